"""What readers see of the book: executed copies, pages, reference records, the README's table.

The copies under ``outputs/executed/`` are written by `execute_copy` alone; readers see them on
GitHub, and nbval compares with them. A chapter's source links to other sources, which JupyterLab
opens; a notebook links to notebooks.
"""

import base64
import html
import re
import shutil
from collections.abc import Iterable
from itertools import count, pairwise
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from fusionkd_book import figures, record_pages, study, verdicts
from fusionkd_lib import tables
from fusionkd_lib.engine import notebooks
from fusionkd_lib.engine.notebooks import execute
from fusionkd_lib.errors import InputError
from fusionkd_lib.records import COMPLETE, FILES, Record
from fusionkd_lib.runs import find_records, project_root

MAX_BYTES = 1_000_000
README_BEGINS, README_ENDS = "<!-- the table -->", "<!-- the end of the table -->"


def chapters() -> list[str]:
    """Return the names of the chapters, in the order of the book."""
    return sorted(source.stem for source in (project_root() / "book").glob("*.py"))


def write_notebooks(folder: Path) -> list[Path]:
    """Write every chapter as ``.ipynb``, for papermill and other readers of notebooks."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.ipynb" for name in chapters()]
    for path in paths:
        nbformat.write(read(path.stem), path)
    return paths


def execute_copy(
    name: str, folder: Path, *, outputs: Path | None = None, most: float = MAX_BYTES
) -> Path:
    """Execute a chapter and keep a copy fit for the repository.

    Parameters
    ----------
    name
        The chapter.
    folder
        Where the copy goes.
    outputs
        Folder of the runs that the chapter sees, by default this project's.
    most
        Bytes that the copy may have: the repository's limit, or infinity for a reader's own.

    Raises
    ------
    InputError
        Where a cell fails, or the copy is larger than that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    partial = path.with_suffix(".partial.ipynb")
    environment = {"FUSIONKD_OUTPUTS": str(outputs)} if outputs else {}
    notebook = clean(execute(read(name), partial, environment=environment))
    partial.unlink()
    keep_sounds(notebook, path)
    text = nbformat.writes(notebook)
    if len(text) > most:
        raise InputError(f"{path}: {len(text):,d} bytes executed: show fewer figures and sounds")
    path.write_text(text, encoding="utf-8")
    return path


PLAYER = re.compile(r'<div>([^<]*)</div><audio[^>]* src="data:audio/mpeg;base64,([^"]*)"')


def keep_sounds(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write the sounds of a copy into files beside it, and link them below their players.

    GitHub drops the players and keeps the links.
    """
    folder, number = path.parent / "sounds", count(1)
    for old in folder.glob(f"{path.stem}-*.mp3"):
        old.unlink()
    for cell in notebook.cells:
        for output, below in pairwise(cell.get("outputs", [])):
            sounds = PLAYER.findall(output.get("data", {}).get("text/html", ""))
            files = [folder / f"{path.stem}-{next(number)}.mp3" for _ in sounds]
            for file, (_, sound) in zip(files, sounds, strict=True):
                folder.mkdir(exist_ok=True)
                file.write_bytes(base64.b64decode(sound))
            if sounds:
                names = [name for name, _ in sounds]
                _link(below, [f"[{n}](sounds/{f.name})" for n, f in zip(names, files, strict=True)])


def _link(below: nbformat.NotebookNode, links: list[str]) -> None:
    """Add links to the line below a row of players."""
    told = f"{figures.NO_PLAYER} As files: {', '.join(links)}."
    below.data["text/markdown"] = below.data["text/markdown"].replace(figures.NO_PLAYER, told)


LINK = re.compile(r"\]\((\w+)\.(py|md)\b")  # to another page of the book


def read(name: str) -> nbformat.NotebookNode:
    """Return a chapter as a notebook two folders down, whose links lead to the others there."""
    notebook, to = notebooks.read(name), {"py": r"](\1.ipynb", "md": r"](../../book/\1.md"}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(lambda link: link.expand(to[link[2]]), cell.source)
    return notebook


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what differs from one execution to the next and tells a reader nothing."""
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for cell in notebook.cells:
        keys = ("tags", "mystnb", "jupyter")  # the last folds a cell in JupyterLab
        cell.metadata = {key: cell.metadata[key] for key in keys if cell.metadata.get(key)}
        if cell.cell_type == "code":
            cell.outputs = _one_stream(o for o in cell.outputs if o.get("name") != "stderr")
            _tell_figures(cell)
    return notebook


def _tell_figures(cell: nbformat.NotebookNode) -> None:
    """Give the figures of a cell its alternative text, where they have none of their own."""
    alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
    for output in cell.outputs:
        if alt and "image/png" in output.get("data", {}):
            output.metadata.setdefault("image/png", {}).setdefault("alt", alt)


def _one_stream(outputs: Iterable[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Join printed lines that arrived one by one."""
    joined: list[nbformat.NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def render(path: Path) -> Path:
    """Write an executed notebook as one HTML page beside it."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if told := output.get("data", {}).get("text/markdown"):
                output.data["text/markdown"] = _inert(told)
    page, _ = HTMLExporter().from_notebook_node(notebook)
    path.with_suffix(".html").write_text(page, encoding="utf-8")
    return path.with_suffix(".html")


def _inert(markdown: str) -> str:
    """Take HTML and links out of what a chapter printed, which may come from somebody's record."""
    return html.escape(markdown, quote=False).replace("[", r"\[")


def keep_reference(runs: Path, reference: Path) -> list[Path]:
    """Copy the compact records of finished runs into the repository's reference folder."""
    return [copy_record(record, reference) for record in find_records(runs)[0]]


def copy_record(record: Record, root: Path) -> Path:
    """Copy all but the weights and the notebook: enough for tables, too small to tag with."""
    (root / record.name).mkdir(parents=True, exist_ok=True)
    for name in (*FILES, COMPLETE):
        shutil.copyfile(record.folder / name, root / record.name / name)
    record.test.write(root)
    return root / record.name


def write_readme(readme: Path, reference: Path) -> None:
    """Put the study's answer, a row for each setting and the first table into the README.

    The answer is also drawn, into ``endpoint.svg`` beside the records.

    Raises
    ------
    InputError
        Where the README has lost its marks, or there is no reference table.
    """
    before, mark, rest = readme.read_text(encoding="utf-8").partition(README_BEGINS)
    _, end_mark, after = rest.partition(README_ENDS)
    if not (mark and end_mark):
        raise InputError(
            f"{readme}: no marks for the table: put back {README_BEGINS} {README_ENDS}"
        )
    records, _ = find_records(reference)
    found = [t for t in tables.collect(records) if t.params.dataset == "urbansound8k"]
    found.sort(key=lambda table: table.params.weights)  # those with ImageNet weights first
    if not found:
        raise InputError(f"{reference}: no reference runs: run params/sample/urbansound8k.yaml")
    figures.use_style()
    title, rows, note = found[0].to_markdown().split("\n\n")
    place = reference.relative_to(readme.parent).as_posix()
    rows = record_pages.linked(rows, found[0], to=f"{place}/{{}}")
    settings = tables.markdown(verdicts.in_one_table(found, records))
    asked = study.blocks_of("pretrained", reference)
    answer = tables.markdown(study.endpoint(asked))
    study.picture(asked).savefig(reference / "endpoint.svg")
    parts = [f"{mark}\n{answer}", settings, title, rows, f"{note}\n{end_mark}"]
    block = "\n\n".join(parts)
    readme.write_text(before + block + after, encoding="utf-8")
