"""The command line: ``fusionkd run | table``.

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
