"""The command line: ``fusionkd run | table | trace | tag | score | data``.

Exit status: 0 done, 1 something handed in cannot be used (one sentence, no traceback), 2 usage,
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fusionkd_lib.catalogue import DATASETS
from fusionkd_lib.errors import InputError, Stopped

if TYPE_CHECKING:
    from fusionkd_lib.engine.batch import Outcome
    from fusionkd_lib.engine.graph import Graph
    from fusionkd_lib.records import Record

FILE = click.Path(exists=True, dir_okay=False)


class Commands(click.Group):
    """A group whose commands turn the user's errors into one sentence and exit status 1."""

    def invoke(self, ctx: click.Context) -> None:
        """Run the command that was asked for."""
        try:
            super().invoke(ctx)
        except InputError as error:
            raise click.ClickException(str(error)) from None
        except Stopped as stop:
            click.echo(stop, err=True)
            ctx.exit(130)
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
@click.option("--scheduler", metavar="ADDRESS", help="Dask cluster to use; else this machine.")
@click.option("--tls-ca", type=FILE, help="Certificate authority of a tls:// scheduler.")
@click.option("--tls-cert", type=FILE, help="Your certificate for a tls:// scheduler.")
@click.option("--tls-key", type=FILE, help="Your certificate's private key.")
@click.option("--workers", type=click.IntRange(min=1), help="Runs at once on this machine.")
def run(
    files: tuple[Path, ...],
    dry_run: bool,
    force: bool,
    scheduler: str | None,
    workers: int | None,
    **tls: str | None,
) -> None:
    """Train the branches and pairs that parameter FILES describe, as executed notebooks.

    Ctrl-C once stops after the epoch in progress, twice at once; the same command goes on.
    """
    from fusionkd_lib import engine
    from fusionkd_lib.engine import graph as graphs

    if any(tls.values()) and not (scheduler or "").startswith("tls://"):
        raise click.UsageError("--tls-ca, --tls-cert and --tls-key need --scheduler tls://...")
    graph = _plan(files)
    if dry_run:
        _print_plan(graph)
        return
    if force:
        graphs.forget(graph)
    if not graphs.unfinished(graph):
        click.echo(f"All {len(graph)} nodes are done; --force does them again")
        return
    outcomes = engine.execute(graph, scheduler=scheduler, tls=tls, workers=workers)
    _report(list(outcomes.values()))


def _plan(files: Iterable[Path]) -> Graph:
    """Return the graph of what parameter files describe; an error names the file it is in."""
    from fusionkd_lib.engine import graph
    from fusionkd_lib.params import load_params

    settings = []
    for file in files:
        settings += (found := load_params(file))
        try:
            graph.check(found)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
    return graph.plan(settings)


def _print_plan(graph: Graph) -> None:
    """Say what would run, and what cannot run yet because its clips cannot be read."""
    from fusionkd_lib.engine.graph import describe, unfinished
    from fusionkd_lib.experiment import clips_of
    from fusionkd_lib.runs import find_records, runs_root

    past, _ = find_records(runs_root())
    click.echo(describe(graph, past))
    for node in unfinished(graph).values():
        try:
            if node.kind == "store":
                clips_of(node.params)
        except InputError as error:
            click.echo(f"cannot run yet: {node.name}: {error}")


def _report(outcomes: list[Outcome]) -> None:
    """Say what failed and where, or that the user stopped it, unless everything is done."""
    n_done = sum(outcome.status == "done" for outcome in outcomes)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    lines = "".join(f"\n  {outcome.name}: {outcome.message}" for outcome in failed)
    if any(outcome.status == "stopped" for outcome in outcomes):
        raise Stopped(
            f"Stopped with {n_done} of {len(outcomes)} done; the same command goes on{lines}"
        )
    if failed:
        n_left = len(outcomes) - n_done - len(failed)
        raise click.ClickException(
            f"{len(failed)} of {len(outcomes)} failed, {n_left} did not run; the same command goes "
            f"on with these alone{lines}"
        )


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print plain data.")
@click.option("--runs", type=click.Path(path_type=Path), help="Folder of runs; else this book's.")
@click.pass_context
def table(context: click.Context, as_json: bool, runs: Path | None) -> None:
    """Print Tables I to III over the finished runs; exit status 1 where one is damaged."""
    from fusionkd_lib import tables

    records, root = _records(context, runs)
    found = tables.collect(records)
    if not found:
        raise InputError(f"{root} holds no finished pair: try fusionkd run params/quick/*.yaml")
    if as_json:
        click.echo(json.dumps([t.to_dict() for t in found], indent=1))
    else:
        click.echo("\n\n".join(t.to_markdown() for t in found))


def _records(context: click.Context, runs: Path | None) -> tuple[list[Record], Path]:
    """Return the records to use and their folder; name those that are damaged, and exit with 1."""
    from fusionkd_lib.runs import find_records, runs_root

    records, faults = find_records(runs or runs_root())
    for fault in faults:
        click.echo(f"Error: {fault}", err=True)
    if faults:
        context.call_on_close(lambda: context.exit(1))
    return records, runs or runs_root()


@main.command()
@click.argument("title")
@click.argument("classifier")
@click.option("--runs", type=click.Path(path_type=Path), help="Folder of runs; else this book's.")
@click.pass_context
def trace(context: click.Context, title: str, classifier: str, runs: Path | None) -> None:
    """Print where a number comes from: fusionkd trace "Table I" "Log-mel (KD)"."""
    from fusionkd_lib import tables

    records, _ = _records(context, runs)
    chain = tables.trace_row(tables.collect(records), records, title, classifier)
    click.echo(json.dumps(chain, indent=1))


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
        read_predictions(predictions), read_annotations(annotations), read_taxonomy(taxonomy), level
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


ON_DISK = [name.replace("_", "-") for name, entry in DATASETS.items() if entry.folder]
DATASET = DatasetName(ON_DISK, case_sensitive=False)


def root_option(what: str) -> Callable:
    """Return the option --root; where it is not given, $FUSIONKD_DATA says where datasets are."""
    return click.option(
        "--root",
        type=click.Path(path_type=Path),
        help=f"Folder that {what} the dataset; else its own in $FUSIONKD_DATA.",
    )


def _root(name: str, root: Path | None) -> Path:
    home = os.environ.get("FUSIONKD_DATA")
    if root is None and not home:
        raise click.UsageError("give --root, or set FUSIONKD_DATA to the folder of the datasets")
    return root or Path(home) / DATASETS[name].folder


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
