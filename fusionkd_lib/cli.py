"""The command line: ``fusionkd run | table | book``.

Exit status: 0 done, 1 something handed in cannot be used (one sentence, no traceback), 2 usage.
"""

import json
from pathlib import Path

import click

from fusionkd_lib.errors import InputError


class Commands(click.Group):
    """A group whose commands turn the user's errors into one sentence and exit status 1."""

    def invoke(self, ctx: click.Context) -> None:
        """Run the command that was asked for."""
        try:
            super().invoke(ctx)
        except InputError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Feature fusion and knowledge distillation for urban sound tagging."""


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Do again what is done.")
def run(files: tuple[Path, ...], force: bool) -> None:
    """Train the branches and pairs that parameter FILES describe, as executed notebooks."""
    from fusionkd_lib import batch
    from fusionkd_lib.params import load_params

    nodes = batch.plan([params for file in files for params in load_params(file)])
    failures = batch.run_all(nodes, force=force, report=click.echo)
    if failures:
        lines = "\n".join(f"  {failure}" for failure in failures)
        raise click.ClickException(f"{len(failures)} of {len(nodes)} runs failed:\n{lines}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print plain data.")
@click.option("--runs", type=click.Path(path_type=Path), help="Folder of runs; else this book's.")
def table(as_json: bool, runs: Path | None) -> None:
    """Print Tables I to III over the finished runs."""
    from fusionkd_lib import tables
    from fusionkd_lib.runs import outputs_root

    root = runs or outputs_root() / "runs"
    found = tables.collect(tables.find_runs(root))
    if as_json:
        click.echo(json.dumps([t.to_dict() for t in found], indent=1))
    elif found:
        click.echo("\n\n".join(t.to_markdown() for t in found))
    else:
        raise InputError(f"{root} holds no finished pair: try fusionkd run params/quick/*.yaml")


@main.group()
def book() -> None:
    """Make the book's chapters into notebooks and pages."""


@book.command("notebooks")
def book_notebooks() -> None:
    """Write every chapter as .ipynb into outputs/notebooks."""
    from fusionkd_lib import chapters
    from fusionkd_lib.runs import outputs_root

    for path in chapters.write_notebooks(outputs_root() / "notebooks"):
        click.echo(path)


@book.command("executed")
@click.argument("names", nargs=-1)
def book_executed(names: tuple[str, ...]) -> None:
    """Execute every chapter, or those NAMED, and keep the copies that are committed."""
    from fusionkd_lib import chapters
    from fusionkd_lib.runs import project_root

    for name in names or [source.stem for source in chapters.sources()]:
        click.echo(chapters.execute_copy(name, project_root() / "outputs" / "executed"))


@book.command("tables")
def book_tables() -> None:
    """Execute chapter 05 over the finished runs and render it as a page."""
    from fusionkd_lib import chapters
    from fusionkd_lib.runs import outputs_root

    path = chapters.execute_copy("05_the_tables", outputs_root() / "book")
    click.echo(chapters.render(path))
