"""The book's sources as notebooks: read, executed, cleaned for the repository, rendered.

A chapter is a py:percent script under ``book/``. Its executed copy under ``outputs/executed/`` is
written by `execute_copy` alone; it is what readers see on GitHub and what nbval compares with.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jupytext
import nbformat
import papermill
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from fusionkd_lib import plots, tables
from fusionkd_lib.errors import InputError
from fusionkd_lib.runs import project_root

MAX_BYTES = 1_000_000
README_BEGINS, README_ENDS = "<!-- the table -->", "<!-- the end of the table -->"

# papermill warns of each parameter that a chapter leaves at its default; ours are validated.
logging.getLogger("papermill").setLevel(logging.ERROR)


def sources() -> list[Path]:
    """Return the chapters, in the order of the book."""
    return sorted((project_root() / "book").glob("*.py"))


def read(name: str) -> nbformat.NotebookNode:
    """Return a chapter as a notebook, its cells named by their place."""
    notebook = jupytext.read(project_root() / "book" / f"{name}.py")
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
    return notebook


def write_notebooks(folder: Path) -> list[Path]:
    """Write every chapter as ``.ipynb``, for papermill and other readers of notebooks."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{source.stem}.ipynb" for source in sources()]
    for path in paths:
        nbformat.write(read(path.stem), path)
    return paths


def execute(
    notebook: nbformat.NotebookNode,
    path: Path,
    *,
    parameters: Mapping[str, Any] | None = None,
) -> nbformat.NotebookNode:
    """Have papermill execute a notebook and save it cell by cell.

    Raises
    ------
    InputError
        Naming the notebook, the cell and the message, where a cell fails.
    """
    try:
        with _sockets() as config:
            return papermill.execute_notebook(
                notebook,
                path,
                parameters=dict(parameters or {}),
                progress_bar=False,
                config=config,
            )
    except PapermillExecutionError as error:
        message = f"cell {error.exec_count} of {path}: {error.ename}: {error.evalue}"
        raise InputError(message) from None


@contextmanager
def _sockets() -> Iterator[Config]:
    """Have a kernel speak through the file system: nothing of it is to be heard on the network.

    In a folder of its own: kernels that start at the same time would else take each other's.
    """
    with TemporaryDirectory(prefix="fusionkd-") as folder:
        # A kernel that is told to end reports an interrupt, which is nobody's concern.
        quiet = {"extra_arguments": ["--IPKernelApp.log_level=CRITICAL"]}
        sockets = {"transport": "ipc", "ip": f"{folder}/kernel"}
        yield Config({"KernelManager": sockets, "NotebookClient": quiet})


def execute_copy(name: str, folder: Path) -> Path:
    """Execute a chapter and keep a copy fit for the repository.

    Raises
    ------
    InputError
        Where a cell fails, or the copy is larger than 1 MB.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    partial = path.with_suffix(".partial.ipynb")
    notebook = clean(execute(read(name), partial))
    partial.unlink()
    text = nbformat.writes(notebook)
    if len(text) > MAX_BYTES:
        raise InputError(f"{path}: {len(text):,d} bytes executed: show fewer figures and sounds")
    path.write_text(text, encoding="utf-8")
    return path


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what differs from one execution to the next and tells a reader nothing."""
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for cell in notebook.cells:
        kept = {key: cell.metadata[key] for key in ("tags", "mystnb") if cell.metadata.get(key)}
        cell.metadata = kept
        if cell.cell_type == "code":
            cell.outputs = _one_stream(o for o in cell.outputs if o.get("name") != "stderr")
    return notebook


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
    page, _ = HTMLExporter().from_filename(str(path))
    path.with_suffix(".html").write_text(page, encoding="utf-8")
    return path.with_suffix(".html")


def keep_reference(runs: Path, reference: Path) -> list[Path]:
    """Copy the compact records of finished runs into the repository's reference folder."""
    return [run.copy_records(reference) for run in tables.find_runs(runs)]


def write_readme(readme: Path, reference: Path) -> None:
    """Put the first reference table and its figure into the README, between its two marks.

    Raises
    ------
    InputError
        Where the README has lost its marks, or there is no reference table.
    """
    before, mark, rest = readme.read_text(encoding="utf-8").partition(README_BEGINS)
    _, end_mark, after = rest.partition(README_ENDS)
    found = [
        t for t in tables.collect(tables.find_runs(reference)) if t.params.dataset == "urbansound8k"
    ]
    if not (mark and end_mark and found):
        raise InputError(f"{readme}: no marks for the table, or no reference runs in {reference}")
    plots.use_style()
    figure = reference / "table.svg"
    plots.table_figure(found[0]).figure.savefig(figure)
    alt = f"{found[0].title}: each classifier with its interval, beside the paper"
    picture = f"![{alt}]({figure.relative_to(readme.parent).as_posix()})"
    block = f"{mark}\n{picture}\n\n{found[0].to_markdown()}\n{end_mark}"
    readme.write_text(before + block + after, encoding="utf-8")
