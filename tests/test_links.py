"""Links lead somewhere: in sources as JupyterLab sees them, in copies and Markdown pages on GitHub.

And `make lab` opens what they lead to as notebooks.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from fusionkd_book import publish
from fusionkd_lib.engine import notebooks

ROOT = Path(__file__).parents[1]
BOOK, EXECUTED = ROOT / "book", ROOT / "outputs" / "executed"
SOURCES = [f"{name}.py" for name in publish.chapters()]
COPIES = sorted(path.name for path in EXECUTED.glob("*.ipynb"))
# What the web book is built from leads to its pages, which tests/test_site.py follows.
OF_THE_SITE = {*ROOT.glob("book/site/**/*.md"), *ROOT.glob("outputs/site-source/**/*.md")}
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/**/*.md")} - OF_THE_SITE)
OUTSIDE = re.compile(r"[a-z]+:")  # https:, mailto:, data:


def links_in(text: str) -> list[str]:
    """Return the targets of a Markdown text's links, images and HTML attributes, code left out."""
    text = re.sub(r"^ *(```|~~~).*?^ *\1|`[^`\n]*`", "", text, flags=re.S | re.M)
    found = re.findall(
        r"\]\(<?([^)\s>]+)|^ *\[[^]]+\]: +(\S+)|\b(?:href|src)=[\"']([^\"']+)", text, re.M
    )
    return ["".join(groups) for groups in found]


def anchors_in(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a Markdown text."""
    headings = re.findall(r"^#+ +(.+?) *$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def markdown_of(notebook: nbformat.NotebookNode) -> str:
    """Return all that a notebook shows as Markdown: its text, and what its cells display."""
    shown = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    for cell in notebook.cells:
        data = [output.get("data", {}) for output in cell.get("outputs", [])]
        shown += [d["text/markdown"] for d in data if "text/markdown" in d]
    return "\n\n".join(shown)


def text_of(path: Path) -> str:
    if path.suffix == ".ipynb":
        return markdown_of(nbformat.read(path, as_version=4))
    return markdown_of(notebooks.read(path.stem)) if path.suffix == ".py" else path.read_text()


def dead_links(text: str, page: Path) -> list[str]:
    """Return the links of a page's text that lead to no file, or to no heading of it."""
    dead = []
    for link in links_in(text):
        if not OUTSIDE.match(link):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            if not target.exists() or (anchor and anchor not in anchors_in(text_of(target))):
                dead.append(link)
    return dead


def test_links_are_found_in_text_and_not_in_code():
    text = (
        "[a](x.py) ![b](y.png \"title\") <a href='z.md'>\n[c]: w.md\n`[d](no)`\n```\n[e](no)\n```"
    )
    assert links_in(text) == ["x.py", "y.png", "z.md", "w.md"]


def test_a_link_to_no_file_or_to_no_heading_is_dead(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One, two\n[a](#one-two) [b](#three) [c](page.md#one-two) [d](gone.md)")
    assert dead_links(page.read_text(), page) == ["#three", "gone.md"]


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_links_to_what_jupyterlab_shows_beside_it(name):
    text = text_of(BOOK / name)
    assert dead_links(text, BOOK / name) == []
    inside = [link.partition("#")[0] for link in links_in(text) if not OUTSIDE.match(link)]
    assert [link for link in inside if not re.fullmatch(r"\w+\.(py|md)", link)] == []


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_links_to_copies(name):
    text = text_of(EXECUTED / name)
    assert dead_links(text, EXECUTED / name) == []
    assert [link for link in links_in(text) if link.endswith(".py")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_markdown_page_lead_somewhere(page):
    assert dead_links(text_of(page), page) == []


def test_every_chapter_of_the_guide_is_a_click_away_from_the_first():
    assert {"01_sounds_and_labels.py", "05_the_tables.py"} <= set(
        links_in(text_of(BOOK / SOURCES[0]))
    )
    linked_to = {link for name in SOURCES for link in links_in(text_of(BOOK / name))}
    assert {name for name in SOURCES if name[0].isdigit()} <= linked_to


def test_links_to_chapters_and_pages_are_turned_and_others_are_kept(monkeypatch):
    text = "[a](05_the_tables.py) [b](05_the_tables.py#recap) [c](appendix_many_runs.md) [d](x.csv)"
    cells = nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell("x[0](y.py)")
    notebook = nbformat.v4.new_notebook(cells=list(cells))
    monkeypatch.setattr(notebooks, "read", lambda name: notebook)
    turned, code = publish.read("chapter").cells
    assert links_in(turned.source) == [
        *("05_the_tables.ipynb", "05_the_tables.ipynb#recap"),
        *("../../book/appendix_many_runs.md", "x.csv"),
    ]
    assert code.source == "x[0](y.py)"


# What JupyterLab itself makes of the settings that a command's environment gives it.
SETTINGS = """
import json, sys
from jupyterlab.commands import get_app_dir
from jupyterlab_server.settings_utils import get_settings
schemas, settings = get_app_dir() + "/schemas", get_app_dir() + "/settings"
found = [get_settings(schemas, schemas, settings, name)[0]["schema"] for name in sys.argv[1:]]
print(json.dumps([schema["properties"] for schema in found]))
"""


def test_make_lab_opens_chapters_as_notebooks_without_asking_for_news():
    dry_run = ["make", "--dry-run", "lab"]
    command = subprocess.run(dry_run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert (BOOK / re.search(r"--LabApp.default_url=/lab/tree/(\S+)", command)[1]).exists()
    folder = re.search(r'JUPYTER_CONFIG_PATH="([^"$]+)', command)[1]
    names = "@jupyterlab/docmanager-extension:plugin", "@jupyterlab/apputils-extension:notification"
    answer = subprocess.run(
        [sys.executable, "-c", SETTINGS, *names],
        env=os.environ | {"JUPYTER_CONFIG_PATH": folder},
        capture_output=True,
        text=True,
        check=True,
    )
    opening, news = json.loads(answer.stdout)
    assert opening["defaultViewers"]["default"]["python"] == "Jupytext Notebook"
    assert (news["fetchNews"]["default"], news["checkForUpdates"]["default"]) == ("false", False)
