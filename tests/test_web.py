"""What the web book is built from: pinned packages, copies as pages, rows that are links."""

import base64
import hashlib
import io
import tarfile

import nbformat
import numpy as np
import pytest
from handmade import write_pair

from fusionkd_book import publish, record_pages, web
from fusionkd_lib import tables
from fusionkd_lib.errors import InputError
from fusionkd_lib.params import make_params
from fusionkd_lib.runs import find_records

PAIR = ("logmel", "gammatone")
CONTENT = b"// a script"
KERNEL = {"name": "python3", "display_name": "Python 3"}


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Put a package in the place of what npm fetches, and return its bytes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo("package/script.js")
        entry.size = len(CONTENT)
        archive.addfile(entry, io.BytesIO(CONTENT))
    fetched = tmp_path / "fetched.tgz"
    fetched.write_bytes(packed.getvalue())
    command = tmp_path / "bin" / "npm"
    command.parent.mkdir()
    command.write_text(
        f'#!/bin/sh\nwhile [ "$1" != --pack-destination ]; do shift; done\ncp {fetched} "$2"\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
    return packed.getvalue()


def pin(monkeypatch, content: bytes) -> None:
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    monkeypatch.setattr(web, "VENDORED", {"script@1.0.0": (digest, "package/script.js")})


def test_a_pinned_package_is_fetched_once(npm, monkeypatch, tmp_path):
    pin(monkeypatch, npm)
    (path,) = web.vendor("script@1.0.0", tmp_path / "vendor")
    assert path.read_bytes() == CONTENT
    monkeypatch.setenv("PATH", "")
    assert web.vendor("script@1.0.0", tmp_path / "vendor") == [path]


def test_another_content_than_the_pinned_is_refused(npm, monkeypatch, tmp_path):
    pin(monkeypatch, npm + b"!")
    with pytest.raises(InputError, match=r"script@1\.0\.0: another content than the pinned"):
        web.vendor("script@1.0.0", tmp_path / "vendor")
    assert not list((tmp_path / "vendor").iterdir())


def test_a_missing_npm_is_told(monkeypatch, tmp_path):
    pin(monkeypatch, b"")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="install npm"):
        web.vendor("script@1.0.0", tmp_path / "vendor")


def cell_with(*outputs: nbformat.NotebookNode, **metadata) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell("x", outputs=list(outputs), metadata=metadata)


def shown(kind: str, data: str, **metadata: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("display_data", {kind: data}, metadata={kind: metadata})


def test_each_picture_reaches_the_page_with_its_own_text(tmp_path):
    png = base64.b64encode(b"pixels").decode()
    outputs = shown("image/png", png), shown("image/svg+xml", "<svg/>", alt="a drawing")
    cell = cell_with(*outputs, mystnb={"image": {"alt": "a plot"}})
    web.as_page(nbformat.v4.new_notebook(cells=[cell]), {}, tmp_path / "pictures")
    told = [output.data["text/markdown"] for output in cell.outputs]
    assert [text.partition("](")[0] for text in told] == ["![a plot", "![a drawing"]
    paths = [tmp_path / text.partition("](")[2].rstrip(")") for text in told]
    assert [path.read_bytes() for path in paths] == [b"pixels", b"<svg/>"]


def test_a_copy_keeps_the_text_that_a_figure_has_and_gives_it_its_cells_otherwise():
    cell = cell_with(
        shown("image/png", "", alt="own"),
        shown("image/png", ""),
        shown("text/plain", ""),
        mystnb={"image": {"alt": "the cell's"}},
    )
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": KERNEL})
    (cleaned,) = publish.clean(notebook).cells
    told = [output.metadata.get("image/png", {}).get("alt") for output in cleaned.outputs]
    assert told == ["own", "the cell's", None]


def test_what_jupyterlab_folds_is_folded_and_links_to_pages_stay_in_the_book(tmp_path):
    text = nbformat.v4.new_markdown_cell("[a](../../book/many.md) [b](05.ipynb)")
    cells = [cell_with(jupyter={"source_hidden": True}, tags=["one"]), cell_with(), text]
    page = web.as_page(nbformat.v4.new_notebook(cells=cells), {}, tmp_path)
    tags = [cell.metadata.get("tags", []) for cell in page.cells[:2]]
    assert tags == [["hide-input", "one"], []]
    assert text.source == "[a](many.md) [b](05.ipynb)"


@pytest.fixture
def records(tmp_path):
    """Write a pair, and return the folder of its pages, the links and its table."""
    scores = np.eye(10)[np.arange(20) % 3]
    both = {
        "alone": dict.fromkeys(PAIR, scores),
        "together": dict.fromkeys([*PAIR, "fused"], scores),
    }
    write_pair(tmp_path / "runs", make_params({"representations": PAIR}), both)
    linked = record_pages.write([tmp_path / "runs"], tmp_path / "pages")
    (table,) = tables.collect(find_records(tmp_path / "runs")[0])
    return tmp_path / "pages", linked, table


def cells(rows: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in rows.splitlines()[2:]]


def test_every_row_of_a_table_leads_to_a_page_of_its_runs(records):
    folder, linked, table = records
    ((block, replacement),) = linked.items()
    assert block in table.to_markdown()
    for row, before, after in zip(table.rows, cells(block), cells(replacement), strict=True):
        assert before[0] == row.classifier
        assert after == [f"[{row.classifier}](/records/{row.runs[0]}.md)", *before[1:]]
        assert f"*{row.classifier}* in {table.title}" in (folder / f"{row.runs[0]}.md").read_text()


def test_a_row_whose_runs_are_not_there_stays_as_it_is(records, tmp_path):
    _, _, table = records
    (tmp_path / "runs" / table.rows[0].runs[0] / "complete.json").unlink()
    (replacement,) = record_pages.write([tmp_path / "runs"], tmp_path / "again").values()
    assert [row[0][0] for row in cells(replacement)] == ["L", *"[" * 5]


def test_a_page_holds_what_its_run_left_behind(records):
    folder, _, table = records
    fused = (folder / f"{table.row('fused').runs[0]}.md").read_text()
    assert "| 35.0" in fused  # every third of ten classes is the true one of 7 in 20 clips
    assert "dataset: urban_synth" in fused or "dataset: urbansound8k" in fused
    for name in PAIR:
        assert f"](/records/{table.row(name, alone=True).runs[0]}.md)" in fused


def test_a_damaged_record_stops_the_book(tmp_path, records):
    (tmp_path / "runs" / records[2].rows[0].runs[0] / "scores.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"scores\.npz: missing or changed"):
        record_pages.write([tmp_path / "runs"], tmp_path / "again")
