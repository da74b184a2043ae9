"""The built web book as a reader has it: opened from its folder, on a phone and on a desk.

`make test-site` builds it and runs this; where it is not built there is nothing to look at.
"""

import io
import json
import os
import re
import shutil
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image
from scipy import stats

from fusionkd_book import web

playwright = pytest.importorskip("playwright.sync_api", reason="make test-site installs playwright")
ROOT = Path(__file__).parents[1]
SITE = ROOT / "outputs" / "site"
NAMES = sorted(
    path.relative_to(SITE).as_posix()
    for path in SITE.rglob("*.html")
    if "_static" not in path.parts
)
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--mute-audio"),
    "--autoplay-policy=no-user-gesture-required",
)
LOOKS = {
    "phone, light": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
    "desk, dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
}
CHAPTERS = [
    name for name in NAMES if (ROOT / "outputs/executed" / name).with_suffix(".ipynb").exists()
]
# Of the pages that are made alike, one stands for all where looking takes long.
RECORDS = [name for name in NAMES if name.startswith("records/")]
ALIKE = ("library/", "records/", "genindex", "py-modindex")
SINGLE = [name for name in NAMES if not name.startswith(ALIKE)]
LOOKED_AT = [*SINGLE, "library/fusionkd_lib.losses.html", *RECORDS[:2]]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not NAMES, reason="there is no built web book: make site"),
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium: apt-get install chromium"),
]


@cache
def soup(name: str) -> BeautifulSoup:
    return BeautifulSoup((SITE / name).read_text(encoding="utf-8"), "html.parser")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module", params=LOOKS)
def look(request, browser):
    context = browser.new_context(**LOOKS[request.param])
    yield context
    context.close()


@pytest.fixture(scope="module")
def desk(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    yield context
    context.close()


@pytest.fixture
def opened(look):
    """Return a function that opens a page and collects what a reader would not want to know."""
    page, faults = look.new_page(), []
    page.on("console", lambda told: faults.append(told.text) if told.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(f"failed: {request.url[:200]}"))
    page.on("request", lambda asked: faults.append(asked.url) if is_outside(asked.url) else None)
    yield lambda name: (show(page, name), faults)
    page.close()


def is_outside(url: str) -> bool:
    return not url.startswith((SITE.as_uri(), "data:", "blob:"))


def show(page, name: str):
    address, mark, query = name.partition("?")
    page.goto((SITE / address).as_uri() + mark + query, wait_until="load")
    page.wait_for_function("!window.MathJax || window.MathJax.startup?.promise !== undefined")
    page.evaluate("window.MathJax?.startup?.promise")
    return page


SHOWN = """() => {
  const images = [...document.querySelectorAll("article img")];
  const text = [...document.querySelectorAll("article p")].map(p => p.innerText).join("\\n");
  return {
    width: document.scrollingElement.scrollWidth - innerWidth,
    broken: images.filter(i => !(i.complete && i.naturalWidth)).map(i => i.src.slice(0, 99)),
    silent: images.filter(i => !i.alt.trim() || /\\.(png|svg)$/.test(i.alt)).map(i => i.src),
    raw: text.match(/\\$\\$|\\\\\\(|^\\|.*\\|$|\\]\\(|\\{\\w+\\}`/gm),
  };
}"""


@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_the_screen_asks_for_nothing_elsewhere_and_has_no_error(opened, name):
    page, faults = opened(name)
    assert page.evaluate(SHOWN) == {"width": 0, "broken": [], "silent": [], "raw": None}
    assert faults == []


@pytest.mark.parametrize("name", NAMES)
def test_the_links_of_a_page_lead_somewhere(name):
    dead = []
    for link in soup(name).select("a[href]"):
        parts = urlsplit(link["href"])
        if not parts.scheme:
            target = SITE / name if not parts.path else (SITE / name).parent / unquote(parts.path)
            place = target.resolve().relative_to(SITE).as_posix()
            found = target.is_file() and (
                not parts.fragment
                or place.endswith(".ipynb")
                or has(place, unquote(parts.fragment))
            )
            dead += [] if found else [link["href"]]
    assert dead == []


IDS: dict[str, set[str]] = {}


def has(name: str, anchor: str) -> bool:
    """Tell whether a page has an anchor."""
    if name not in IDS:
        IDS[name] = {tag["id"] for tag in soup(name).select("[id]")}
    return anchor in IDS[name]


@pytest.mark.parametrize("name", [n for n in CHAPTERS if "<audio" in (SITE / n).read_text()])
def test_players_play(desk, name):
    page = show(desk.new_page(), name)
    played = page.evaluate("""async () => {
      const heard = [];
      for (const player of document.querySelectorAll("audio")) {
        await player.play();
        while (!player.currentTime && !player.error) await new Promise(f => setTimeout(f, 20));
        heard.push([player.currentTime > 0, player.duration > 0.2]);
        player.pause();
      }
      return heard;
    }""")
    page.close()
    assert played
    assert set(map(tuple, played)) == {(True, True)}


@pytest.mark.parametrize("name", [n for n in SINGLE if soup(n).select("article details")])
def test_folds_are_closed_and_open_by_a_click(desk, name):
    page = show(desk.new_page(), name)
    folds = page.locator("article details")
    states = []
    for fold in folds.all():
        closed = fold.get_attribute("open") is None
        fold.locator("> summary").click()
        inside = fold.locator("> :not(summary)").first
        states.append((closed, inside.is_visible()))
    page.close()
    assert states
    assert set(states) == {(True, True)}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("gammatone", "02_three_ways_to_look.html"),
        ("distillation_loss", "library/fusionkd_lib.losses.html"),
        ("provenance", "glossary.html"),
    ],
)
def test_search_finds(desk, words, found):
    page = show(desk.new_page(), f"search.html?q={words}")
    page.wait_for_selector("#search-results li a")
    links = page.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)")
    page.close()
    assert any(found in link for link in links)


def test_the_search_field_leads_to_the_results(desk):
    page = show(desk.new_page(), "index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("siren")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a")
    page.close()


def seen_by_axe(page) -> list[tuple[str, list]]:
    """Return the serious faults that axe finds on a page as it is now."""
    page.add_script_tag(path=web.vendor("axe-core@4.14.1", SITE.parent / "vendor")[0])
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        (fault["id"], [node["target"] for node in fault["nodes"]][:3])
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("name", LOOKED_AT)
def test_axe_finds_no_serious_fault(opened, name):
    page, _ = opened(name)
    assert seen_by_axe(page) == []


def test_the_dark_leaves_spectrograms_as_they_are(desk):
    page = show(desk.new_page(), "02_three_ways_to_look.html")
    pictures = []
    for scheme in ("light", "dark"):
        page.locator(".theme-switch-button:visible").click()
        page.locator(f".theme-change-button[data-mode={scheme}]:visible").click()
        page.mouse.move(0, 0)
        assert page.locator("html").get_attribute("data-theme") == scheme
        shot = page.locator(".cell_output img").first.screenshot()
        pictures.append(np.array(Image.open(io.BytesIO(shot)).convert("RGB"))[4:-4, 4:-4])
    page.close()
    assert (pictures[0] == pictures[1]).all()


def test_every_row_of_the_tables_leads_to_its_records():
    tables = [t for t in soup("05_the_tables.html").select("table") if "Classifier" in t.thead.text]
    rows = [row for table in tables for row in table.tbody.select("tr")]
    assert len(rows) > 30
    for row in rows:
        name = unquote(row.select_one("td a[href^='records/']")["href"])
        headings = {heading.get_text().strip("#") for heading in soup(name).select("h2")}
        assert {"Scores", "Parameters", "Provenance"} <= headings


def test_a_record_of_one_run_has_the_value_of_its_row():
    (row,) = [
        row
        for row in soup("records/index.html").select("tbody tr")
        if [cell.text for cell in row.select("td")][::6] == ["Fused classifier", "1"]
        and re.match("sonyc.*logmel%2Bcqt", row.a["href"])
    ]
    scores = soup(f"records/{unquote(row.a['href'])}").select_one("table")
    told = dict(
        zip(*([c.text for c in r.select("th, td")] for r in scores.select("tr")), strict=True)
    )
    assert told["Fused classifier"] == row.select("td")[1].text


def test_chapters_and_the_library_lead_to_each_other():
    chapter, module = "04_fusion_and_distillation.html", "library/fusionkd_lib.losses.html"
    assert soup(chapter).select(f".highlight a[href^='{module}']")
    assert soup(module).select(f"a[href^='../{chapter}']")


def test_every_module_of_the_library_has_a_page_in_the_contents():
    paths = [
        path.relative_to(ROOT).with_suffix("") for path in (ROOT / "fusionkd_lib").rglob("*.py")
    ]
    names = {".".join(path.parts).removesuffix(".__init__") for path in paths} - {"fusionkd_lib"}
    links = {
        link["href"].partition("#")[0] for link in soup("library.html").select("article a[href]")
    }
    assert {f"library/{name}.html" for name in names} - links == set()


# Things to play with. What they hold stands in the page as it was built.

BRANCH, BRINGS = "03_branch_pretraining.html", "06_what_distillation_brings.html"


def game(opened, name: str, key: str):
    """Return a page, its faults, the game whose data have a key, and those data."""
    page, faults = opened(name)
    held = [json.loads(script.string) for script in soup(name).select(".play script[type]")]
    (index,) = [i for i, data in enumerate(held) if key in data]
    return page, faults, page.locator(".play").nth(index), held[index]


def still_fine(page, faults) -> None:
    assert page.evaluate("document.scrollingElement.scrollWidth - innerWidth") == 0
    assert faults == []
    assert seen_by_axe(page) == []


def confusion_on(table) -> np.ndarray:
    cells = table.locator("tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => +cell.innerText))"
    )
    return np.array(cells)


def test_ten_clips_are_named_by_keyboard_and_both_matrices_are_right(opened):
    page, faults, place, data = game(opened, BRANCH, "sounds")
    truth, n = np.array(data["truth"]), len(data["classes"])
    mine = np.where(np.arange(len(truth)) < 4, truth, (truth + 1) % n)
    for step, said in enumerate(mine, 1):
        assert f"Clip {step} of {len(truth)}" in place.locator("[aria-live]").inner_text()
        place.get_by_role("button", name=data["classes"][said], exact=True).focus()
        page.keyboard.press("Enter")
    for answers, name in ((mine, "You"), (np.array(data["network"]), "The network")):
        expected = np.zeros((n, n), int)
        np.add.at(expected, (truth, answers), 1)
        table = place.locator("table.confusion").filter(has_text=f"{name}: {expected.trace()} of")
        assert (confusion_on(table) == expected).all()
    assert not place.locator(".answers").is_visible()
    assert page.evaluate("document.activeElement.textContent").startswith("You named 4 of 10")
    still_fine(page, faults)
    place.get_by_role("button", name="Once more").click()
    assert place.locator(".answers").is_visible()
    assert place.locator("table").count() == 0


def test_the_slider_counts_what_it_says(opened):
    page, faults, place, data = game(opened, BRANCH, "ranked")
    has_it = np.array(list(data["ranked"])) == "1"
    slider = place.get_by_role("slider")
    slider.focus()
    for key, presses in (("End", 1), ("ArrowLeft", 7), ("ArrowLeft", 20), ("Home", 1)):
        for _ in range(presses):
            page.keyboard.press(key)
        stop = len(data["points"]) - 1 - int(slider.input_value())
        said = has_it[: data["points"][stop][1]]
        counts = [int(text) for text in place.locator(".tiles b").all_inner_texts()]
        assert counts == [said.sum(), (~said).sum(), has_it.sum() - said.sum()]
        told = place.locator("[aria-live]").inner_text()
        assert f"precision {said.sum()} of {len(said)}" in told
        assert f"recall {said.sum()} of {has_it.sum()}" in told
        assert told in slider.get_attribute("aria-valuetext")
        dot = place.locator("circle")
        across, down = (float(dot.get_attribute(key)) for key in ("cx", "cy"))
        recall, precision = said.sum() / has_it.sum(), said.mean()
        assert (across, down) == pytest.approx((40 + 280 * recall, 12 + 170 * (1 - precision)))
    still_fine(page, faults)


def test_seeds_are_drawn_and_their_mean_has_the_interval_of_scipys_test(opened):
    page, faults, place, data = game(opened, BRINGS, "quantiles")
    for gains in data["series"].values():
        place.get_by_role("button", name="Start again").click()
        drawn = []
        for n in range(1, len(gains) + 1):
            place.get_by_role("button", name="Another seed" if n < 4 else "All of them").click()
            told = (
                place.locator("[aria-live]").inner_text().replace("\u2212", "-").replace("±", "+")
            )
            number = re.search(r"Seed (\d+): ([+-][\d.]+) points", told)
            drawn.append(gains[data["seeds"].index(int(number[1]))])
            assert float(number[2]) == pytest.approx(drawn[-1], abs=0.051)
            if n == 4:
                drawn = gains
            if n > 1:
                values = [float(x) for x in re.findall(r"[+-][\d.]+\d", told)[1:]]
                ends = stats.ttest_1samp(drawn, 0).confidence_interval(0.95)
                assert values == pytest.approx([np.mean(drawn), *ends], abs=0.051)
                assert ("with zero in it" in told) == (ends.low <= 0 <= ends.high)
            if n == 4:
                break
        assert place.get_by_role("button", name="Another seed").is_disabled()
        assert place.locator("svg text").count() > len(gains)
        options = list(data["series"])
        if len(options) > 1:
            place.get_by_role("combobox").select_option(options[-1])
    still_fine(page, faults)
