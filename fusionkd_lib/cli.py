"""The command line: ``fusionkd run | table | trace | tag | score | data``.

Exit status: 0 done, 1 something handed in cannot be used (one sentence, no traceback), 2 usage,
130 stopped by Ctrl-C.
"""

import errno
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import click

from fusionkd_lib.catalogue import DATASETS
from fusionkd_lib.errors import InputError, Stopped

PATH = click.Path(path_type=Path)
FILE = click.Path(exists=True, dir_okay=False)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print plain data.")
RUNS = click.option("--runs", type=PATH, help="Folder of runs, by default this book's.")


class Commands(click.Group):
    """Commands that turn the user's errors into one sentence and an exit status."""

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
            raise click.ClickException(f"{error}: free space, or check permissions") from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Feature fusion and knowledge distillation for urban sound tagging."""


@main.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("--dry-run", is_flag=True, help="Print what would run, and run nothing.")
@click.option("--force", is_flag=True, help="Delete finished runs and do them again.")
@click.option("--scheduler", metavar="ADDRESS", help="Dask cluster to use, by default none.")
@click.option("--tls-ca", "tls_ca_file", type=FILE, help="Authority of a tls:// cluster.")
@click.option("--tls-cert", "tls_client_cert", type=FILE, help="Your certificate there.")
@click.option("--tls-key", "tls_client_key", type=FILE, help="Its private key.")
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
    _report(engine.execute(graph, scheduler=scheduler, tls=tls, workers=workers).values())


def _plan(files: Iterable[Path]) -> Mapping:
    """Return the graph of what parameter files describe; an error names the file it is in."""
    from fusionkd_lib.engine.graph import plan
    from fusionkd_lib.params import load_params

    settings = []
    for file in files:
        settings += (found := load_params(file))
        try:
            plan(found)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
    return plan(settings)


def _print_plan(graph: Mapping) -> None:
    """Say what would run, and what cannot run yet for want of readable clips."""
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


def _report(outcomes: Collection) -> None:
    """Say what failed and where, or that the user stopped, unless everything is done."""
    statuses = [outcome.status for outcome in outcomes]
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    lines = "".join(f"\n  {outcome.name}: {outcome.message}" for outcome in failed)
    told = f"{statuses.count('done')} of {len(statuses)} done, {len(failed)} failed"
    if "stopped" in statuses:
        raise Stopped(f"Stopped: {told}; the same command goes on{lines}")
    if failed:
        raise click.ClickException(f"{told}; the same command goes on with the rest{lines}")


@main.command()
@AS_JSON
@RUNS
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


def _records(context: click.Context, runs: Path | None) -> tuple[list, Path]:
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
@RUNS
@click.pass_context
def trace(context: click.Context, title: str, classifier: str, runs: Path | None) -> None:
    """Print where a number comes from: fusionkd trace "Table I" "Log-mel (KD)"."""
    from fusionkd_lib import tables

    records, _ = _records(context, runs)
    chain = tables.trace_row(tables.collect(records), records, title, classifier)
    click.echo(json.dumps(chain, indent=1))


@main.command()
@click.argument("run")
@click.argument("audio", nargs=-1, required=True, type=PATH)
@click.option("--head", help="A branch of the run, or fused; by default the run's own.")
@click.option("--windows", is_flag=True, help="Print the scores of each window too.")
@click.pass_context
def tag(
    context: click.Context, run: str, audio: tuple[Path, ...], head: str | None, windows: bool
) -> None:
    """Tag AUDIO files with a trained RUN, a folder or a name: one JSON object per line."""
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
@click.option("--predictions", required=True, type=PATH)
@click.option("--annotations", required=True, type=PATH)
@click.option("--taxonomy", required=True, type=PATH)
@click.option("--level", required=True, type=click.Choice(["coarse", "fine"]))
@AS_JSON
def score_sonyc_ust(
    predictions: Path, annotations: Path, taxonomy: Path, level: str, as_json: bool
) -> None:
    """Evaluate predictions of the validation clips as DCASE 2019 Task 5 does."""
    from fusionkd_lib.challenge import evaluate_sonyc, read_predictions
    from fusionkd_lib.datasets.sonyc_labels import read_annotations, read_taxonomy

    labels = read_annotations(annotations), read_taxonomy(taxonomy)
    figures = evaluate_sonyc(read_predictions(predictions), *labels, level)
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
ROOT = click.option("--root", type=PATH, help="Its folder, by default in $FUSIONKD_DATA.")


def _root(name: str, root: Path | None) -> Path:
    home = os.environ.get("FUSIONKD_DATA")
    if root is None and not home:
        raise click.UsageError("give --root, or set FUSIONKD_DATA to the folder of the datasets")
    return root or Path(home) / DATASETS[name].folder


@data.command("fetch")
@click.argument("name", type=DATASET, metavar="NAME")
@ROOT
def data_fetch(name: str, root: Path | None) -> None:
    """Download the dataset NAME, verify its checksums and unpack it."""
    from fusionkd_lib.datasets import archives

    dataset, root = archives.DATASETS[name], _root(name, root)
    click.echo(f"{dataset.NAME}, {dataset.SOURCE}")
    click.echo(f"Licence: {dataset.LICENCE}\nPlease cite: {dataset.CITATION}")
    for file, checksum in archives.fetch(name, root).items():
        click.echo(f"{root / file}  {checksum}")
    click.echo(f"Fetched and unpacked; to check it: fusionkd data check {name} --root {root}")


@data.command("check")
@click.argument("name", type=DATASET, metavar="NAME")
@ROOT
@AS_JSON
@click.pass_context
def data_check(context: click.Context, name: str, root: Path | None, as_json: bool) -> None:
    """Count a copy's clips and read every header; exit status 1 unless all can be used."""
    from fusionkd_lib.datasets import archives

    report = archives.check(name, _root(name, root))
    click.echo(json.dumps(report.as_dict(), indent=1) if as_json else report)
    context.exit(0 if report.whole else 1)
