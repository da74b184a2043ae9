"""The page that listens, in headless Chromium, alone in a folder: its scores, pictures and manners.

`make test-site` builds it and runs this; where it is not built there is nothing to listen to.
"""

import base64
import io
import json
import shutil

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch
from bs4 import BeautifulSoup
from test_export import BAD, CLASSES, tagger_of

from fusionkd_book import listen, web
from fusionkd_lib import representations
from fusionkd_lib.datasets.urbansound8k import CLASSES as CITY
from fusionkd_lib.export.onnx_file import export

playwright = pytest.importorskip("playwright.sync_api", reason="make test-site installs playwright")
from test_site import CHROMIUM, FLAGS, LOOKS, SITE  # noqa: E402  (it skips without playwright)

PAGE = SITE / "listen.html"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PAGE.exists(), reason="there is no page that listens: make site"),
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium: apt-get install chromium"),
]
MINUTES = 60_000  # of a browser that shares its processors, in milliseconds


# What the page holds, read without the page


@pytest.fixture(scope="module")
def held():
    """Return a function from a name to the bytes that the page holds under it."""
    page = BeautifulSoup(PAGE.read_text(encoding="utf-8"), "html.parser")
    found = {tag["id"]: tag.string for tag in page.select("script[id]")}
    config = json.loads(found.pop("config"))
    return lambda name: config if name == "config" else base64.b64decode(found[name])


@pytest.fixture(scope="module")
def clips(held) -> dict[str, np.ndarray]:
    """Return the page's clips (N,) by label."""
    told = held("config")["clips"]
    sounds = {clip["label"]: np.frombuffer(held(clip["id"]), "<i2") for clip in told}
    return {label: np.float32(sound / 2**15) for label, sound in sounds.items()}


@pytest.fixture(scope="module")
def expected(held, clips) -> dict[str, list[np.ndarray]]:
    """Return ONNX Runtime's mean scores (columns, K) of the windows of each clip."""
    scores = {label: [] for label in clips}
    for network in held("config")["networks"]:
        session = onnxruntime.InferenceSession(held(network["id"]))
        told = session.get_modelmeta().custom_metadata_map
        size = round(json.loads(told["window_seconds"]) * json.loads(told["sample_rate"]))
        for label, clip in clips.items():
            windows = clip.reshape(-1, size)  # clips are whole windows
            for column in network["columns"]:
                head = column["head"]
                name = "scores" if head == json.loads(told["head"]) else f"scores_{head}"
                scores[label].append(session.run([name], {"waveform": windows})[0].mean(axis=0))
    return scores


# The page, alone


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> str:
    """Return the address of the page in a folder that holds nothing else."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copy(PAGE, folder)
    return (folder / PAGE.name).as_uri()


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        yield started.chromium


@pytest.fixture(scope="module")
def browser(chromium):
    browser = chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    yield browser
    browser.close()


def is_strange(url: str, address: str) -> bool:
    return url != address and not url.startswith(("blob:", "data:"))


def opened(browser, address: str, faults: list[str], **look):
    """Open the page, wait until it is ready, and collect what it should not say or ask for."""
    page = browser.new_context(**look).new_page()
    page.set_default_timeout(3 * MINUTES)
    page.on("console", lambda told: faults.append(told.text) if told.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(f"failed: {request.url[:200]}"))
    page.on("request", lambda r: faults.append(r.url) if is_strange(r.url, address) else None)
    page.goto(address)
    page.evaluate("ready")
    assert page.inner_text("#status").startswith("Ready"), faults
    return page


def until(page, condition: str) -> None:
    """Wait for a condition; the page's policy forbids Playwright's own way to ask again."""
    for _ in range(3 * MINUTES // 50):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)


@pytest.fixture(scope="module")
def faults():
    return []


@pytest.fixture(scope="module")
def page(browser, alone, faults):
    page = opened(browser, alone, faults, viewport={"width": 1280, "height": 900})
    yield page
    page.context.close()


# Numbers

SCORES = """async (label) => {
  const columns = [];
  for (const one of networks) {
    const track = new Track(one.network.rate, clips[label].samples);
    const scores = await wholeScores(one.network, track);
    columns.push(...one.columns.map((column) => scores[column.head]));
  }
  return columns;
}"""


def test_the_scores_of_every_clip_are_those_of_onnx_runtime(page, expected):
    for label, scores in expected.items():
        np.testing.assert_allclose(page.evaluate(SCORES, label), scores, rtol=0, atol=1e-3)
    assert np.std(list(expected.values()), axis=0).max() > 0.01


@pytest.mark.parametrize(
    ("name", "lowest", "tolerance"),
    [("logmel", -90, 0.1), ("gammatone", -90, 0.1), ("cqt", -60, 1)],
)
def test_the_spectrograms_are_those_of_the_library(page, clips, name, lowest, tolerance):
    timing = page.evaluate("TIMING")
    given = {"sample_rate": timing["rate"], "hop_length": timing["hop"]}
    module = representations.build(name, **given, **listen.SETTINGS[name])
    for label in ("siren", "dog_bark"):
        clip = clips[label][: timing["rate"]]
        levels = module(torch.from_numpy(clip)[None])[0, 0].numpy()
        shown = page.evaluate(
            "([name, x]) => whole(pictures[name].spectrogram.rows, TIMING, Float32Array.from(x))",
            [name, clip.tolist()],
        )
        loud = levels > max(lowest, levels.max() + lowest)
        assert loud.mean() > 0.3
        np.testing.assert_allclose(np.array(shown)[loud], levels[loud], rtol=0, atol=tolerance)


PUSHED = """([x, to]) => {
  const resampler = new Resampler(48000, to);
  const out = [];
  for (let n = 0; n < x.length; n += 128) {
    out.push(...resampler.push(Float32Array.from(x.slice(n, n + 128))));
  }
  return out;
}"""


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
def test_the_microphones_sound_is_brought_to_the_networks_rate(page, rate):
    n = np.arange(24000)
    for frequency in (440, 5000):
        tone = np.sin(2 * np.pi * frequency * n / 48000)
        out = np.array(page.evaluate(PUSHED, [tone.tolist(), rate]))
        assert abs(len(out) - rate / 2) < 40
        wanted = np.sin(2 * np.pi * frequency * np.arange(len(out)) / rate)
        np.testing.assert_allclose(out[100:-100], wanted[100:-100], atol=0.01)
    above = np.sin(2 * np.pi * 0.62 * rate * n / 48000) if rate < 30000 else 0 * n
    assert np.abs(page.evaluate(PUSHED, [above.tolist(), rate])[100:-100]).max() < 0.01


# What a reader does


def scores_shown(page) -> np.ndarray:
    """Return the scores (columns, K) of the table."""
    return np.array(
        page.evaluate("cells.map((column) => column.map((cell) => Number(cell.dataset.score)))")
    )


def bold(page) -> list[list[str]]:
    """Return the classes that each column of the table has as its tags."""
    return page.evaluate(
        """networks.flatMap(({network, columns}) => columns.map(({place}) =>
          network.told.labels.filter((_, k) => cells[place][k].classList.contains("tag"))))"""
    )


# Play a clip to its end: updates a second, and the pictures near its begin and at its end.
PLAYED = """async (label) => {
  const see = () => [...document.querySelectorAll("canvas")].map((canvas) => canvas.toDataURL());
  document.querySelector(`[data-clip=${label}]`).click();
  while (!source || source.seconds < 0.5) await pause(5);
  const [of, n, begun, pictures] = [source, measured.updates, performance.now(), see()];
  while (source === of && !of.ended) await pause(20);
  const pace = (1000 * (measured.updates - n)) / (performance.now() - begun);
  return [pace, pictures, see()];
}"""


def test_a_clip_plays_moves_and_ends_with_the_tags_of_its_whole(page, expected, capsys):
    page.evaluate(PLAYED, "dog_bark")  # the browser compiles what runs often
    page.wait_for_selector("#status:has-text('The whole of dog bark')")
    pace, before, after = page.evaluate(PLAYED, "siren")
    page.wait_for_selector("#status:has-text('The whole of siren')")
    assert all(a != b for a, b in zip(before, after, strict=True))
    with capsys.disabled():
        times = page.evaluate("measured.milliseconds.slice(-15)")
        median = float(np.median(times))
        print(f"\n{pace:.1f} updates a second; the networks take {median:.0f} ms of each (median)")
    assert pace >= 1  # a generous floor: what this machine reaches was printed
    np.testing.assert_allclose(scores_shown(page), expected["siren"], rtol=0, atol=1e-3)
    assert bold(page) == [[CITY[int(np.argmax(scores))]] for scores in expected["siren"]]


def test_a_fake_microphone_is_heard(chromium, alone, clips, held, tmp_path):
    rate = held("config")["spectrograms"]["timing"]["rate"]
    soundfile.write(tmp_path / "siren.wav", np.tile(clips["siren"], 3), rate, subtype="PCM_16")
    flags = (
        *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
        f"--use-file-for-fake-audio-capture={tmp_path / 'siren.wav'}",
    )
    browser, faults = chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags]), []
    page = opened(browser, alone, faults)
    page.click("#microphone")
    until(page, "source && source.seconds > 2.5 && measured.updates > 5")
    assert page.inner_text("#status") == "Listening to the microphone."
    np.testing.assert_allclose(scores_shown(page).sum(axis=1), 1, atol=1e-4)
    # What came in is the file's sound: as loud as any window of it, nearly.
    heard = page.evaluate(
        "[...source.tracks[TIMING.rate].slice(source.end(TIMING.rate) - 16000, 16000)]"
    )
    assert np.std(heard) == pytest.approx(np.std(clips["siren"]), rel=0.5)
    page.click("#microphone")
    assert page.inner_text("#status") == "Stopped."
    browser.close()
    assert faults == []


def test_a_file_of_ones_own_is_tagged(page, clips, expected):
    rate = page.evaluate("TIMING.rate")
    file = io.BytesIO()
    soundfile.write(
        file, np.stack([clips["siren"]] * 2, axis=1), rate, format="WAV", subtype="FLOAT"
    )
    given = {"name": "street.wav", "mimeType": "audio/wav", "buffer": file.getvalue()}
    page.set_input_files("#sound-file", given)
    page.wait_for_selector("#status:has-text('The whole of street.wav')")
    np.testing.assert_allclose(scores_shown(page), expected["siren"], rtol=0, atol=1e-3)


def test_what_is_no_sound_is_refused_in_a_sentence(page):
    given = {"name": "a.wav", "mimeType": "audio/wav", "buffer": b"no sound"}
    page.set_input_files("#sound-file", given)
    page.wait_for_selector("#status.fault")
    assert page.inner_text("#status").startswith("a.wav cannot be read as a sound: open ")


def open_network(page, name: str, content: bytes) -> str:
    """Open a file as a network of one's own, and return what the page says of it."""
    page.evaluate("$('network-status').textContent = ''")
    given = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    page.set_input_files("#network-file", given)
    until(page, "!/Opening|^$/.test($('network-status').textContent)")
    return page.inner_text("#network-status")


def test_an_exported_network_of_ones_own_takes_the_place_of_the_books(page, clips, tmp_path):
    tagger = tagger_of("gammatone")  # of another rate, with several tags at once
    export(tagger, tmp_path / "own.onnx")
    told = open_network(page, "own.onnx", (tmp_path / "own.onnx").read_bytes())
    assert told == "own.onnx listens now: choose a sound above."
    rows = page.locator("#tags tbody th").all_inner_texts()
    assert rows == list(CLASSES)
    window = np.resize(clips["siren"], tagger.told.n_samples)
    scores = page.evaluate(
        "async (x) => (await networks[0].network.scores(Float32Array.from(x))).gammatone",
        window.tolist(),
    )
    np.testing.assert_allclose(scores, tagger.scores([window])[0], rtol=0, atol=1e-3)
    page.click("[data-clip=dog_bark]")
    page.wait_for_selector("#status:has-text('The whole of dog bark: Gammatone (yours)')")
    assert scores_shown(page).shape == (1, len(CLASSES))
    page.click("#books-networks")
    assert scores_shown(page).shape[0] == 4


# In a browser a function harms nobody, and scores are looked at when there are some.
BAD_HERE = {
    name: BAD[name] for name in BAD if name not in ("with a function", "with scores below 0")
}


@pytest.mark.parametrize("make", BAD_HERE.values(), ids=BAD_HERE)
def test_a_file_that_is_not_ours_and_whole_is_refused_in_a_sentence(page, tmp_path, make):
    export(tagger_of("logmel"), tmp_path / "good.onnx")
    make(tmp_path / "x.onnx", tmp_path / "good.onnx")
    before = page.locator("#tags thead").inner_text()
    told = open_network(page, "x.onnx", (tmp_path / "x.onnx").read_bytes())
    assert told.startswith("x.onnx is not a whole file of fusionkd export: export it again")
    assert page.locator("#tags thead").inner_text() == before


def test_the_page_goes_on_after_all_that_and_asked_for_nothing(page, faults):
    page.click("[data-clip=siren]")
    until(page, "source && source.seconds > 1 && measured.updates > 1")
    page.click("[data-clip=siren]")
    assert page.inner_text("#status") == "Stopped."
    assert faults == []


# Its looks


@pytest.mark.parametrize("look", LOOKS)
def test_it_fits_the_screen_and_axe_finds_no_serious_fault(browser, alone, look):
    faults = []
    page = opened(browser, alone, faults, **LOOKS[look])
    page.click("[data-clip=siren]")
    until(page, "source && source.seconds > 1 && measured.updates > 1")
    assert page.evaluate("document.scrollingElement.scrollWidth - innerWidth") == 0
    page.add_script_tag(path=web.vendor("axe-core@4.14.1", SITE.parent / "vendor")[0])
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    serious = [x for x in found if x["impact"] in ("serious", "critical")]
    assert [(x["id"], [node["html"] for node in x["nodes"]]) for x in serious] == []
    page.context.close()
    assert faults == []


def test_it_is_one_file_of_20_megabytes_at_most(alone):
    assert PAGE.stat().st_size <= 20_000_000
