"""The command line: ``fusionkd run | table | trace | tag | export | score | data``.

Exit status: 0 done, 1 something handed in cannot be used (one sentence, no traceback), 2 usage,
130 stopped by Ctrl-C.
"""

import errno
import json
import os
import traceback
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from fusionkd_lib.catalogue import DATASETS
from fusionkd_lib.errors import InputError, Stopped, choose, seen

FILE, PATH = click.Path(exists=True, dir_okay=False), click.Path(path_type=Path)
JSON = click.option("--json", "as_json", is_flag=True, help="Print plain data.")
SHARE, FORMS = click.FloatRange(0, 0.9), click.Choice(["json", "csv", "audacity"])
RUNS = click.option("--runs", type=PATH, help="Folder of runs; else this book's.")
ROOT = click.option("--root", type=PATH, help="The dataset's folder, if not in $FUSIONKD_DATA.")


class Commands(click.Group):
    """A group whose commands return an exit status; the user's error is one sentence and 1."""

    def invoke(self, ctx: click.Context) -> None:
        """Run the command that was asked for."""
        try:
            ctx.exit(super().invoke(ctx) or 0)
        except InputError as error:
            raise click.ClickException(str(error)) from None
        except Stopped as stop:
            click.echo(stop, err=True)
            ctx.exit(130)
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever reads the output has seen enough
                raise
            raise click.ClickException(f"{error}: free space, or check permissions") from None
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:  # nobody foresaw it
            raise click.ClickException(_kept(error)) from None


def _kept(error: Exception) -> str:
    """Write the traceback of an error into a file, and say in one sentence what and where."""
    from fusionkd_lib.runs import outputs_root
    from fusionkd_lib.storage import write_text

    path = outputs_root().absolute() / f"error-{os.getpid()}.txt"
    with suppress(OSError):
        write_text(path, "".join(traceback.format_exception(error)))
    told = seen(f"{type(error).__name__}: {error}")
    return f"{told}: this is a fault of fusionkd: please report it with {path}"


# A name may be written with hyphens or with underscores, as parameter files have it.
SETTINGS = {"help_option_names": ["-h", "--help"]}
SETTINGS |= {"token_normalize_func": lambda name: name.replace("_", "-")}


@click.group(cls=Commands, context_settings=SETTINGS)
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
    files: tuple, dry_run: bool, force: bool, scheduler: str | None, workers: int | None, **tls: str
) -> None:
    """Train the branches and pairs that parameter FILES describe, as executed notebooks.

    Ctrl-C once stops after the epoch in progress, twice at once; the same command goes on.
    """
    from fusionkd_lib import engine
    from fusionkd_lib.engine.graph import forget, unfinished
    from fusionkd_lib.speed import note

    if any(tls.values()) and not (scheduler or "").startswith("tls://"):
        raise click.UsageError("--tls-ca, --tls-cert and --tls-key need --scheduler tls://...")
    graph = _plan(files)
    if dry_run:
        return _print_plan(graph)
    if force:
        forget(graph)
    if not unfinished(graph):
        return click.echo(f"All {len(graph)} nodes are done; --force does them again")
    for told in {note(node.params) for node in unfinished(graph).values()} - {""}:
        click.echo(f"Note: {told}", err=True)
    outcomes = engine.execute(graph, scheduler=scheduler, workers=workers, **tls)
    return _report(outcomes.values())


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
@JSON
@RUNS
def table(as_json: bool, runs: Path | None) -> int:
    """Print Tables I to III over the finished runs; exit status 1 where one is damaged."""
    from fusionkd_lib import tables

    records, root, status = _records(runs)
    found = tables.collect(records)
    if not found:
        raise InputError(f"{root}: holds no finished pair: try fusionkd run params/quick/*.yaml")
    text = "\n\n".join(one.to_markdown() for one in found)
    click.echo(json.dumps([one.to_dict() for one in found], indent=1) if as_json else text)
    return status


def _records(root: Path | None) -> tuple[list, Path, int]:
    """Return the records of a folder, it, and 1 where some are damaged, named on stderr, else 0."""
    from fusionkd_lib.runs import find_records, runs_root

    records, faults = find_records(root := root or runs_root())
    for fault in faults:
        click.echo(f"Error: {fault}", err=True)
    return records, root, 1 if faults else 0


@main.command()
@click.argument("title")
@click.argument("classifier")
@RUNS
def trace(title: str, classifier: str, runs: Path | None) -> int:
    """Print where a number comes from: fusionkd trace "Table I" "Log-mel (KD)"."""
    from fusionkd_lib import tables

    records, _, status = _records(runs)
    chain = tables.trace_row(tables.collect(records), records, title, classifier)
    click.echo(json.dumps(chain, indent=1))
    return status


@main.command()
@click.argument("run")
@click.argument("audio", nargs=-1, required=True, type=PATH)
@click.option("--head", help="A branch of the run, or fused; by default the run's own.")
@click.option("--windows", is_flag=True, help="Tell the scores of each window too, as JSON.")
@click.option("--overlap", type=SHARE, default=0.0, help="Share of a window that the next repeats.")
@click.option("--format", "form", type=FORMS, default="json", help="CSV and labels tell windows.")
def tag(run: str, audio: tuple[Path, ...], head: str | None, form: str, **how: Any) -> int:
    """Tag AUDIO (files, folders, - for standard input) with a trained RUN or an exported file."""
    from fusionkd_lib import timeline
    from fusionkd_lib.tagging import load_tagger, tag_file

    tagger, status, how["windows"] = load_tagger(run, head), 0, how["windows"] or form != "json"
    if tagger.told.warning:
        click.echo(f"Note: {seen(tagger.told.warning)}", err=True)
    if form == "audacity" and (len(audio) > 1 or audio[0].is_dir()):
        raise InputError("--format audacity: labels are of one recording: name one file")
    if form == "csv":
        click.echo(timeline.csv_header(tagger.told.labels))
    for name, path in timeline.sounds_in(audio):
        try:
            click.echo(timeline.FORMATS[form](tag_file(tagger, path, **how) | {"file": name}))
        except InputError as error:
            click.echo(f"Error: {str(error).replace(str(path), name)}", err=True)
            status = 1
    return status


@main.command("export")
@click.argument("run")
@click.option("--head", help="A branch, fused, or all (fused and each branch); else the run's own.")
@click.option("--out", required=True, type=PATH, help="The file to write, FILE.onnx.")
@click.option("--int8", is_flag=True, help="Quantise, calibrated on the training clips.")
@click.option("--float16", is_flag=True, help="Store the weights in 16 bits.")
def export_run(run: str, head: str | None, out: Path, int8: bool, float16: bool) -> None:
    """Write a trained RUN into one ONNX file, waveform to scores, with a model card beside it."""
    from fusionkd_lib.exported import require_tools
    from fusionkd_lib.tagging import load_tagger

    if int8 and float16:
        raise InputError("--int8 and --float16: a file has one precision: leave one of them out")
    require_tools("onnx", "onnxruntime")
    from fusionkd_lib.export.onnx_file import export

    precision = "int8" if int8 else "float16" if float16 else "float32"
    tagger = load_tagger(run, None if head == "all" else head)
    export(tagger, out, precision=precision, all_heads=head == "all")


@main.group()
def score() -> None:
    """Evaluate prediction files as a challenge does."""


@score.command("sonyc-ust")
@click.option("--predictions", required=True, type=PATH)
@click.option("--annotations", required=True, type=PATH)
@click.option("--taxonomy", required=True, type=PATH)
@click.option("--level", required=True, type=click.Choice(["coarse", "fine"]))
@JSON
def score_sonyc_ust(
    predictions: Path, annotations: Path, taxonomy: Path, level: str, as_json: bool
) -> None:
    """Evaluate predictions of the validation clips as DCASE 2019 Task 5 does."""
    from fusionkd_lib.challenge import evaluate_sonyc, read_predictions
    from fusionkd_lib.datasets.sonyc_labels import read_annotations, read_taxonomy

    given = read_predictions(predictions), read_annotations(annotations), read_taxonomy(taxonomy)
    scores = evaluate_sonyc(*given, level)
    named = {f"{kind} AUPRC": scores[f"{kind}_auprc"] for kind in ("micro", "macro")}
    named |= scores["per_category"]
    text = "\n".join(f"{value:.4f}  {name}" for name, value in named.items())
    click.echo(json.dumps(scores, indent=1) if as_json else text)


@main.group()
def data() -> None:
    """Fetch a dataset from its public record, and check a copy."""


ON_DISK = [name for name, entry in DATASETS.items() if entry.folder]
NAME = click.argument("name", metavar="NAME", type=click.Choice(ON_DISK, case_sensitive=False))


def _root(name: str, root: Path | None) -> Path:
    home = os.environ.get("FUSIONKD_DATA")
    if root is None and not home:
        raise click.UsageError("give --root, or set FUSIONKD_DATA to the folder of the datasets")
    return root or Path(home) / DATASETS[name].folder


@data.command("fetch")
@NAME
@ROOT
def data_fetch(name: str, root: Path | None) -> None:
    """Download the dataset NAME, verify its checksums and unpack it."""
    from fusionkd_lib.datasets import archives

    dataset, root = archives.DATASETS[choose("NAME", name, archives.DATASETS)], _root(name, root)
    click.echo(f"{dataset.NAME}, {dataset.SOURCE}")
    click.echo(f"Licence: {dataset.LICENCE}\nPlease cite: {dataset.CITATION}")
    for file, checksum in archives.fetch(name, root).items():
        click.echo(f"{root / file}  {checksum}")
    click.echo(f"Fetched and unpacked; to check it: fusionkd data check {name} --root {root}")


@data.command("check")
@NAME
@ROOT
@JSON
def data_check(name: str, root: Path | None, as_json: bool) -> int:
    """Count a copy's clips and read every header; exit status 1 unless all can be used."""
    from fusionkd_lib.datasets import archives, folder

    place, checker = _root(name, root), folder if DATASETS[name].own else archives
    report = folder.check(place) if checker is folder else archives.check(name, place)
    click.echo(json.dumps(report, indent=1) if as_json else checker.describe(report))
    return 0 if report["whole"] else 1
