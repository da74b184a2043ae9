"""Notebooks: executed through files alone; and the book's tools, which no run imports."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner, Result

from fusionkd_book import publish
from fusionkd_book.__main__ import main
from fusionkd_lib.engine import batch, notebooks
from fusionkd_lib.errors import InputError, Stopped

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "outputs" / "reference"


def notebook_of(*sources: str) -> nbformat.NotebookNode:
    """Return a notebook of these cells, with the header of a chapter."""
    notebook = notebooks.read("03_branch_pretraining")
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return notebook


def test_a_cell_that_fails_is_named_with_its_notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = notebook_of("x = 1", "raise ValueError('lr = 3 is wrong')", "y = 2")
    path = tmp_path / "notebook.ipynb"
    with pytest.raises(InputError, match=rf"cell 2 of {re.escape(str(path))}: ValueError: lr = 3"):
        notebooks.execute(notebook, path)
    assert list(tmp_path.iterdir()) == [path]  # to look at what happened; and no sockets


def test_a_cell_that_a_person_stopped_is_told_from_one_that_fails(tmp_path):
    notebook = notebook_of("from fusionkd_lib.errors import Stopped", "raise Stopped('epoch 3')")
    with pytest.raises(Stopped, match=r"cell 2 of .*: Stopped: epoch 3"):
        notebooks.execute(notebook, tmp_path / "notebook.ipynb")


def test_a_kernel_is_this_python_with_variables_that_this_process_does_not_get(tmp_path):
    notebook = notebook_of("import os, sys", "print(sys.executable, os.environ['FUSIONKD_ONE'])")
    path = tmp_path / "notebook.ipynb"
    executed = notebooks.execute(notebook, path, environment={"FUSIONKD_ONE": "1"})
    assert executed.cells[1].outputs[0].text == f"{sys.executable} 1\n"
    assert "FUSIONKD_ONE" not in os.environ


def test_kernels_that_start_at_the_same_time_speak_through_sockets_of_their_own(
    tmp_path, monkeypatch
):
    folders = []

    def record(notebook, path, parameters, *, config, **options):
        assert config.KernelManager.transport == "ipc"
        folders.append(Path(config.KernelManager.ip).parent)
        assert folders[-1].stat().st_mode & 0o777 == 0o700
        if len(folders) < 3:  # while this one runs, another one begins
            notebooks.execute(notebook, path)

    monkeypatch.setattr(notebooks.papermill, "execute_notebook", record)
    notebooks.execute(notebook_of("x = 1"), tmp_path / "notebook.ipynb")
    assert len(set(folders)) == 3
    assert not any(folder.exists() for folder in folders)


def test_chapters_become_notebooks_that_papermill_can_fill(tmp_path):
    paths = publish.write_notebooks(tmp_path)
    sources = sorted((ROOT / "book").glob("*.py"))
    assert [path.stem for path in paths] == [source.stem for source in sources]
    for name in batch.CHAPTERS.values():
        notebook = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4)
        tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
        assert tags.count("parameters") == 1
        assert notebook.metadata["kernelspec"]["language"] == "python"


# The book's tools


def book(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_what_runs_notebooks_draws_nothing():
    modules = "fusionkd_lib.cli, fusionkd_lib.engine.batch, fusionkd_lib.engine.watching"
    drawing = "{'matplotlib', 'seaborn', 'IPython', 'nbconvert', 'fusionkd_book'}"
    code = f"import sys, {modules}; print(sorted({drawing} & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"


def test_every_package_of_ours_is_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = [p.parent.relative_to(ROOT) for p in (ROOT / "fusionkd_lib").rglob("__init__.py")]
    ours = {".".join(folder.parts) for folder in folders}
    assert set(settings["packages"]) == ours | {"fusionkd_book"}
    assert (ROOT / settings["package-dir"]["fusionkd_book"]).samefile(Path(publish.__file__).parent)


def test_a_copy_is_executed_beside_runs_of_its_own_and_keeps_what_a_reader_wants(
    tmp_path, monkeypatch
):
    notebook = notebook_of(
        "import os, sys",
        "for i in range(3): print(i, flush=True)",
        "print('noise', file=sys.stderr); print(os.environ['FUSIONKD_OUTPUTS'])",
    )
    folded = {"tags": ["nbval-check-output"], "jupyter": {"source_hidden": True}}
    notebook.cells[1].metadata = folded | {"scrolled": True}
    monkeypatch.setattr(publish, "read", lambda name: notebook)
    before = os.environ["FUSIONKD_OUTPUTS"]
    path = publish.execute_copy("chapter", tmp_path / "copies", outputs=tmp_path / "runs")
    assert list(path.parent.iterdir()) == [path]
    _, counting, printing = nbformat.read(path, as_version=4).cells
    assert counting.metadata == folded
    assert [output.text for output in counting.outputs] == ["0\n1\n2\n"]
    assert [output.text for output in printing.outputs] == [f"{tmp_path / 'runs'}\n"]
    assert os.environ["FUSIONKD_OUTPUTS"] == before
    assert "<html" in publish.render(path).read_text()


def test_a_copy_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "read", lambda name: notebook_of("print('x' * 10**6)"))
    with pytest.raises(InputError, match=r"chapter.ipynb: 1,0[\d,]* bytes executed: show"):
        publish.execute_copy("chapter", tmp_path)
    assert not (tmp_path / "chapter.ipynb").exists()


def test_the_readme_shows_the_first_reference_table_between_its_marks(tmp_path):
    shutil.copytree(REFERENCE, tmp_path / "reference", ignore=shutil.ignore_patterns("*.svg"))
    readme = tmp_path / "README.md"
    readme.write_text((ROOT / "README.md").read_text())
    publish.write_readme(readme, tmp_path / "reference")
    assert "<svg" in (tmp_path / "reference" / "endpoint.svg").read_text()
    committed, drawn = (ROOT / "README.md").read_text(), "](outputs/reference/endpoint.svg)"
    assert committed.count(drawn) == 1
    links = committed.replace("](outputs/reference/", "](reference/")
    assert readme.read_text() == links.replace("](reference/endpoint.svg)", drawn)
    leads = re.findall(r"^\| \[.+?\]\(reference/(.+?)\)", readme.read_text(), re.M)
    block = committed.partition("**Table I ")[2].partition(publish.README_ENDS)[0]
    assert len(leads) == block.count("\n| ") - 1  # the head
    assert all((REFERENCE / name / "complete.json").exists() for name in leads)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 140


def test_a_readme_without_marks_is_refused(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("no marks")
    with pytest.raises(InputError, match=r"README.md: no marks for the table"):
        publish.write_readme(readme, REFERENCE)
    assert readme.read_text() == "no marks"


def test_the_books_commands_tell_what_they_wrote_or_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSIONKD_OUTPUTS", str(tmp_path))
    answer = book("notebooks")
    assert answer.exit_code == 0
    assert answer.stdout.split() == [str(p) for p in sorted((tmp_path / "notebooks").iterdir())]
    monkeypatch.setattr(publish, "read", lambda name: notebook_of("raise ValueError(0)"))
    answer = book("tables")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert re.fullmatch(r"Error: cell 1 of .*: ValueError: 0\n", answer.stderr)
