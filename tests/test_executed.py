"""Executed copies: of every chapter, with its source's code, run through, fit to be read."""

import re
from pathlib import Path

import nbformat
import pytest

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
