"""Executed copies: of every chapter, with its source's code, run through, fit to be read."""

import re
from base64 import b64decode
from pathlib import Path

import nbformat
import pytest
import soundfile

from fusionkd_book import publish
from fusionkd_book.publish import MAX_BYTES, chapters, read

EXECUTED = Path(__file__).parents[1] / "outputs" / "executed"
NAMES = chapters()
CHECKED = "nbval-check-output"


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def copy_of(name: str) -> nbformat.NotebookNode:
    return nbformat.read(EXECUTED / f"{name}.ipynb", as_version=4)


def test_there_is_a_copy_of_every_chapter_and_of_nothing_else():
    assert sorted(path.name for path in EXECUTED.glob("*.ipynb")) == [f"{n}.ipynb" for n in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_is_its_source_run_from_top_to_bottom(name):
    copy, source = copy_of(name), read(name)
    assert [(c.cell_type, c.source) for c in copy.cells] == [
        (c.cell_type, c.source) for c in source.cells
    ]
    cells = code_cells(copy)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_compared_again_has_something_to_be_compared_with(name):
    checked = [c for c in code_cells(copy_of(name)) if CHECKED in c.metadata.get("tags", [])]
    assert checked
    # nbval passes a cell that has no output to compare.
    assert all(cell.outputs for cell in checked)


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_is_small_and_tells_nothing_of_the_machine_it_ran_on(name):
    text = (EXECUTED / f"{name}.ipynb").read_text()
    assert len(text) <= MAX_BYTES
    assert not re.search(r"[\"' (](/home|/root|/tmp|/work|/Users)/", text)


def test_each_player_has_a_file_and_a_link_to_it_below(tmp_path, monkeypatch):
    code = (
        "import numpy as np; from fusionkd_book import figures\n"
        "tone = np.sin(0.2 * np.arange(8000.0))\n"
        "figures.players({'low': tone, 'high': tone**3}, sample_rate=8000, status='synthetic')"
    )
    cell = nbformat.v4.new_code_cell(code)
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata=metadata)
    monkeypatch.setattr(publish, "read", lambda name: notebook)
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "chapter-9.mp3").touch()  # of a player that is gone
    for _ in range(2):  # a copy that is made again links once
        path = publish.execute_copy("chapter", tmp_path)
    players, below = nbformat.read(path, as_version=4).cells[0].outputs
    links = re.findall(r"\[(\w+)\]\(([^)]*)\)", below.data["text/markdown"])
    assert links == [("low", "sounds/chapter-1.mp3"), ("high", "sounds/chapter-2.mp3")]
    embedded = re.findall('base64,([^"]*)', players.data["text/html"])
    assert [(tmp_path / to).read_bytes() for _, to in links] == [*map(b64decode, embedded)]
    assert sorted(p.name for p in (tmp_path / "sounds").iterdir()) == [
        "chapter-1.mp3",
        "chapter-2.mp3",
    ]
    assert soundfile.info(tmp_path / links[0][1]).frames >= 8000


def test_the_sounds_of_the_copies_are_those_that_they_link():
    linked = {
        to
        for name in NAMES
        for to in re.findall(r"\((sounds/[^)]*)\)", (EXECUTED / f"{name}.ipynb").read_text())
    }
    assert linked == {f"sounds/{path.name}" for path in (EXECUTED / "sounds").iterdir()}
