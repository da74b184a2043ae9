"""The command line: ``fusionkd run | table | trace | book | tag | score | data``.

Exit status: 0 done, 1 something handed in cannot be used (one sentence, no traceback), 2 usage.
"""

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

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
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever reads the output has seen enough
                raise
            raise click.ClickException(f"{error}: free space, or see to its rights") from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Feature fusion and knowledge distillation for urban sound tagging."""


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Print what would run, and run nothing.")
@click.option("--force", is_flag=True, help="Do again what is done.")
@click.option("--scheduler", metavar="ADDRESS", help="Of a Dask cluster; else one is started here.")
@click.option("--workers", type=click.IntRange(min=1), help="Runs at once on the local cluster.")
def run(
    files: tuple[Path, ...],
    dry_run: bool,
    force: bool,
    scheduler: str | None,
    workers: int | None,
) -> None:
    """Train the branches and pairs that parameter FILES describe, as executed notebooks."""
    from fusionkd_lib import graph as graphs
    from fusionkd_lib.params import load_params
    from fusionkd_lib.runs import outputs_root
    from fusionkd_lib.tables import find_runs

    settings = []
    for file in files:
        settings += (found := load_params(file))
        with _naming(file):
            graphs.check(found)
    graph = graphs.plan(settings)
    if dry_run:
        click.echo(graphs.describe(graph, find_runs(outputs_root() / "runs")))
        for fault in _absent_clips(graphs.unfinished(graph).values()):
            click.echo(f"cannot run yet: {fault}")
        return
    from fusionkd_lib import batch, watching

    if force:
        batch.forget(graph)
    if not graphs.unfinished(graph):
        click.echo(f"All {len(graph)} nodes are done; --force does them again.")
        return
    threads = min(params.threads for params in settings)
    with (
        batch.stop_file(),
        batch.open_client(
            scheduler,
            threads=threads,
            workers=workers,
            device_bytes=graphs.device_bytes(graph),
        ) as client,
    ):
        futures, outcomes = batch.submit(graph, client)
        outcomes = watching.watch(futures, graph, outcomes)
    _report(list(outcomes.values()))


def _absent_clips(nodes: Iterable) -> Iterator[str]:
    """Say of each store that is to be filled, by what its clips cannot be read."""
    from fusionkd_lib.experiment import open_clips

    for node in nodes:
        try:
            if node.kind == "store":
                open_clips(node.params)
        except InputError as error:
            yield f"{node.name}: {error}"


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Say of an error which file it is in."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _report(outcomes: list) -> None:
    """Say what failed and where; exit with 1 unless everything is done."""
    done = sum(outcome.status == "done" for outcome in outcomes)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if done == len(outcomes):
        return
    lines = "".join(f"\n  {outcome.name}: {outcome.message}" for outcome in failed)
    rest = len(outcomes) - done - len(failed)
    raise click.ClickException(
        f"{len(failed)} of {len(outcomes)} failed, {rest} did not run; the same command goes on "
        f"with these alone.{lines}"
    )


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


@main.command()
@click.argument("title")
@click.argument("classifier")
@click.option("--runs", type=click.Path(path_type=Path), help="Folder of runs; else this book's.")
def trace(title: str, classifier: str, runs: Path | None) -> None:
    """Print where a figure comes from: fusionkd trace "Table I" "Log-mel (KD)"."""
    from fusionkd_lib import tables
    from fusionkd_lib.runs import outputs_root

    found = tables.find_runs(runs or outputs_root() / "runs")
    chain = tables.trace(tables.collect(found), found, title, classifier)
    click.echo(json.dumps(chain, indent=1))


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
        # In an outputs folder of its own: a copy shows no run that a reader's clone lacks.
        with TemporaryDirectory() as outputs:
            os.environ["FUSIONKD_OUTPUTS"] = outputs
            click.echo(chapters.execute_copy(name, project_root() / "outputs" / "executed"))


@book.command("tables")
def book_tables() -> None:
    """Execute chapter 05 over the finished runs and render it as a page."""
    from fusionkd_lib import chapters
    from fusionkd_lib.runs import outputs_root

    path = chapters.execute_copy("05_the_tables", outputs_root() / "book")
    click.echo(chapters.render(path))


@main.command()
@click.argument("run")
@click.argument("audio", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--head", help="A branch of the run, or fused; else the run's own classifier.")
@click.option("--windows", is_flag=True, help="Tell the scores of each window too.")
@click.pass_context
def tag(
    context: click.Context, run: str, audio: tuple[Path, ...], head: str | None, windows: bool
) -> None:
    """Tag AUDIO files with a trained RUN, a folder or a name: one JSON object a line."""
    from fusionkd_lib.tagging import load_tagger, tag_file

    tagger, all_tagged = load_tagger(run, head), True
    for path in audio:
        try:
            click.echo(json.dumps(tag_file(tagger, path, windows=windows), ensure_ascii=False))
        except InputError as error:
            click.echo(f"Error: {error}", err=True)
            all_tagged = False
    context.exit(0 if all_tagged else 1)


@main.group()
def score() -> None:
    """Evaluate prediction files as a challenge does."""


@score.command("sonyc-ust")
@click.option("--predictions", required=True, type=click.Path(path_type=Path))
@click.option("--annotations", required=True, type=click.Path(path_type=Path))
@click.option("--taxonomy", required=True, type=click.Path(path_type=Path))
@click.option("--level", required=True, type=click.Choice(["coarse", "fine"]))
@click.option("--json", "as_json", is_flag=True, help="Print plain data.")
def score_sonyc_ust(
    predictions: Path, annotations: Path, taxonomy: Path, level: str, as_json: bool
) -> None:
    """Evaluate predictions of the validation clips as DCASE 2019 Task 5 does."""
    from fusionkd_lib.challenge import evaluate_sonyc, read_predictions
    from fusionkd_lib.datasets.sonyc_labels import read_annotations, read_taxonomy

    figures = evaluate_sonyc(
        read_predictions(predictions),
        read_annotations(annotations),
        read_taxonomy(taxonomy),
        level,
    )
    if as_json:
        click.echo(json.dumps(figures, indent=1))
        return
    averages = {f"{kind} AUPRC": figures[f"{kind}_auprc"] for kind in ("micro", "macro")}
    for name, value in (averages | figures["per_category"]).items():
        click.echo(f"{value:.4f}  {name}")


@main.group()
def data() -> None:
    """Fetch a dataset from its public record, and check a copy."""


class DatasetName(click.Choice):
    """A dataset on disk; sonyc-ust may be written with an underscore, as parameter files do."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name that parameter files have."""
        return super().convert(value.replace("_", "-"), param, ctx).replace("-", "_")


DATASET = DatasetName(["urbansound8k", "sonyc-ust"], case_sensitive=False)


def root_option(what: str) -> Callable:
    """Return the option --root; where it is not given, $FUSIONKD_DATA says where datasets are."""
    return click.option(
        "--root",
        type=click.Path(path_type=Path),
        help=f"Folder that {what} the dataset; else its own in $FUSIONKD_DATA.",
    )


def _root(name: str, root: Path | None) -> Path:
    from fusionkd_lib.params import DATA_FOLDERS

    home = os.environ.get("FUSIONKD_DATA")
    if root is None and not home:
        raise click.UsageError("give --root, or set FUSIONKD_DATA to the folder of the datasets")
    return root or Path(home) / DATA_FOLDERS[name]


@data.command("fetch")
@click.argument("name", type=DATASET, metavar="NAME")
@root_option("shall hold")
def data_fetch(name: str, root: Path | None) -> None:
    """Download the dataset NAME, verify its checksums and unpack it."""
    from fusionkd_lib.datasets import archives

    dataset, root = archives.DATASETS[name], _root(name, root)
    click.echo(f"{dataset.NAME}, {dataset.SOURCE}")
    click.echo(f"Licence: {dataset.LICENCE}\nPlease cite: {dataset.CITATION}")
    for file, checksum in archives.fetch(name, root).items():
        click.echo(f"{root / file}  {checksum}")
    click.echo(f"Fetched and unpacked; look it over: fusionkd data check {name} --root {root}")


@data.command("check")
@click.argument("name", type=DATASET, metavar="NAME")
@root_option("holds")
@click.option("--json", "as_json", is_flag=True, help="Print plain data.")
@click.pass_context
def data_check(context: click.Context, name: str, root: Path | None, as_json: bool) -> None:
    """Count a copy's clips and read every header; exit status 1 unless all can be used."""
    from fusionkd_lib.datasets import archives

    report = archives.check(name, _root(name, root))
    click.echo(json.dumps(report.as_dict(), indent=1) if as_json else report)
    context.exit(0 if report.whole else 1)


@book.command("reference")
def book_reference() -> None:
    """Keep the compact records of the finished runs, and show their first table in the README."""
    from fusionkd_lib import chapters
    from fusionkd_lib.runs import outputs_root, project_root

    reference = project_root() / "outputs" / "reference"
    for path in chapters.keep_reference(outputs_root() / "runs", reference):
        click.echo(path)
    chapters.write_readme(project_root() / "README.md", reference)
