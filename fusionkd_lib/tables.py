"""Runs -> Tables I to III: ours with its interval, beside the paper's.

A row is a classifier of one pair: the baselines, each branch alone, each branch after distillation,
the mean of these, the fused classifier. Its value is the mean over the runs (folds and seeds) of
the official metric, in percent; its interval resamples whole recordings (or sensors' clips) of the
test folds. A table is data; only `to_markdown` makes text of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from fusionkd_lib import metrics
from fusionkd_lib.catalogue import BASELINES, FUSED, MEAN, baselines_of, label
from fusionkd_lib.errors import InputError
from fusionkd_lib.params import Params
from fusionkd_lib.records import Provenance, Record
from fusionkd_lib.runs import identity, run_name, trace
from fusionkd_lib.storage import digest

NUMERALS = {("logmel", "gammatone"): "I", ("logmel", "cqt"): "II", ("gammatone", "cqt"): "III"}

# The paper's Tables I to III, in percent: branches, branches (KD), fused.
PAPER = {
    "accuracy": {
        ("logmel", "gammatone"): (78.3, 74.9, 80.6, 76.2, 79.5),
        ("logmel", "cqt"): (78.3, 79.8, 80.6, 74.1, 81.4),
        ("gammatone", "cqt"): (74.98, 79.8, 76.0, 76.2, 79.5),
    },
    "micro_auprc": {
        ("logmel", "gammatone"): (81.4, 81.9, 84.02, 82.5, 83.92),
        ("logmel", "cqt"): (81.44, 78.68, 82.53, 81.17, 82.41),
        ("gammatone", "cqt"): (81.90, 78.68, 83.08, 81.58, 83.27),
    },
}
PAPER_DATA = {"accuracy": "UrbanSound8K, 10 folds", "micro_auprc": "DCASE 2019 Task 5, validate"}
Cell = tuple[Record, str]  # a run and one of its heads
METRIC_NAMES = {"accuracy": "accuracy", "micro_auprc": "micro AUPRC"}


@dataclass(frozen=True)
class Row:
    """A classifier: its value, its 95 % interval and the paper's, all in percent.

    Parameters
    ----------
    classifier, head
        Its name in the table, and the scores of the runs that it stands on.
    ours, low, high, paper
        None where there is no run, or the paper has no value.
    folds, clips, seeds
        Numbers of test folds, of their clips, and of seeds.
    runs
        Names of the runs whose mean it is.
    """

    classifier: str
    head: str
    ours: float | None
    low: float | None
    high: float | None
    paper: float | None
    folds: int
    clips: int
    seeds: int
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """One pair on one dataset with one setting: its rows, and all that must be said of them.

    Parameters
    ----------
    metric
        A key of `METRIC_NAMES`.
    dataset, status
        What was tested on, and what may be claimed of it.
    """

    metric: str
    dataset: str
    status: str
    rows: tuple[Row, ...]
    note: str
    params: Params

    @property
    def numeral(self) -> str:
        """The paper's number of this table, or the pair."""
        return NUMERALS.get(self.params.representations, self.params.pair)

    @property
    def measured(self) -> str:
        """What the values are, such as ``accuracy in %, UrbanSound8K (partial)``."""
        return f"{METRIC_NAMES[self.metric]} in %, {self.dataset} ({self.status})"

    @property
    def title(self) -> str:
        """Number, pair and measure of the table."""
        return f"Table {self.numeral} · {self.params.pair} · {self.measured}"

    @property
    def paper_data(self) -> str:
        """What the paper's values were measured on."""
        return PAPER_DATA[self.metric]

    def row(self, head: str, *, alone: bool = False) -> Row:
        """Return a classifier's row; ``alone``: a branch before distillation."""
        found = [row for row in self.rows if row.head == head]
        return found[0] if alone else found[-1]

    def to_markdown(self) -> str:
        """Return title, table and note for a terminal, GitHub and a notebook alike."""
        rows = [
            {
                "Classifier": row.classifier,
                "Ours": None if row.ours is None else f"{row.ours:.1f}",
                "95 % interval": interval(row.low, row.high),
                f"Paper ({self.paper_data})": row.paper,
                **{key.title(): getattr(row, key) for key in ("folds", "clips", "seeds")},
            }
            for row in self.rows
        ]
        return f"**{self.title}**\n\n{markdown(rows)}\n\n{self.note}"

    def to_dict(self) -> dict[str, Any]:
        """Return the table as plain data."""
        rows = [{key: x for key, x in vars(row).items() if key != "runs"} for row in self.rows]
        told = ("title", "metric", "dataset", "status", "note")
        return {key: getattr(self, key) for key in told} | {"rows": rows}


@dataclass(frozen=True)
class Difference:
    """One classifier less another, in points, on the same recordings.

    Parameters
    ----------
    points, low, high
        The difference and its paired 95 % interval.
    """

    points: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """``gain`` or ``loss`` where the interval leaves out zero, else ``open``."""
        return "gain" if self.low > 0 else "loss" if self.high < 0 else "open"


def collect(runs: Iterable[Record]) -> list[Table]:
    """Gather runs into tables: equal but for fold and seed belongs together."""
    by_name = {run.name: run for run in runs}
    groups: dict[str, list[Record]] = {}
    for run in by_name.values():
        if run.provenance.kind == "fusion" and run.params.judged_on == "test":
            groups.setdefault(_setting(run), []).append(run)
    tables = [_table(group, by_name) for group in groups.values()]
    return sorted(tables, key=lambda table: (table.params.dataset, table.numeral))


def _setting(run: Record) -> str:
    kept = {k: v for k, v in identity(run.params).items() if k not in ("fold", "seed")}
    return digest([kept, run.provenance.data_status, run.provenance.data])


def _table(fusions: Sequence[Record], by_name: Mapping[str, Record]) -> Table:
    told, params = fusions[0].provenance, fusions[0].params
    names = params.representations
    parents = [[by_name.get(name) for name in run.provenance.parents] for run in fusions]
    before = zip(names, zip(*parents, strict=True), strict=True)
    classifiers = [(label(name), name, list(filter(None, runs))) for name, runs in before]
    classifiers += [(f"{label(name)} (KD)", name, fusions) for name in names]
    classifiers += [(label(head), head, fusions) for head in (MEAN, FUSED)]
    paper = list(PAPER[told.metric].get(names, [None] * (2 * len(names) + 1)))
    paper.insert(-1, None)  # it has no mean
    baselines = _baselines(fusions, by_name)
    rows = [summarise(label(head), head, baselines) for head in baselines_of(names) if baselines]
    rows += [summarise(*row, paper=x) for row, x in zip(classifiers, paper, strict=True)]
    lacking = "" if baselines else " It lacks baselines: fusionkd run adds them."
    note = _note(told, params) + lacking
    return Table(told.metric, told.dataset, told.data_status, tuple(rows), note, params)


def _baselines(fusions: Sequence[Record], by_name: Mapping[str, Record]) -> list[Record]:
    """Return the baselines on the clips of some runs, one for each fold."""
    names = dict.fromkeys(run_name(run.params, branch=BASELINES) for run in fusions)
    found = [by_name[name] for name in names if name in by_name]
    return [run for run in found if run.provenance.data == fusions[0].provenance.data]


def summarise(
    classifier: str, head: str, runs: Sequence[Record], *, paper: float | None = None
) -> Row:
    """Return the row of a classifier over some runs, each of another fold or seed."""
    cells = [(run, head) for run in runs]
    ours = 100 * float(np.mean([_value(*cell) for cell in cells])) if runs else None
    low, high = _ends(_resampled(cells)) if _can_resample(cells) else (None, None)
    clips = {run.params.fold: run.provenance.n_test for run in runs}
    n_clips, n_seeds = sum(clips.values()), len({run.params.seed for run in runs})
    names = tuple(run.name for run in runs)
    return Row(classifier, head, ours, low, high, paper, len(clips), n_clips, n_seeds, names)


def _scores(run: Record, head: str) -> np.ndarray:
    if head == MEAN:
        return np.mean([run.scores[name] for name in run.params.representations], axis=0)
    return run.scores[head]


def _value(run: Record, head: str) -> float:
    return getattr(metrics, run.provenance.metric)(run.test.targets, _scores(run, head))


def _can_resample(cells: Sequence[Cell]) -> bool:
    return bool(cells) and all(len(set(run.test.groups)) > 1 for run, _ in cells)


def _ends(resampled: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval, in percent, of resampled metrics (n_resamples,)."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return 100 * float(low), 100 * float(high)


def _resampled(cells: Sequence[Cell]) -> np.ndarray:
    """Return the mean over cells of their metric on resampled recordings: (n_resamples,)."""
    return np.mean([_resampled_cell(*cell) for cell in cells], axis=0)


@cache
def _resampled_cell(run: Record, head: str) -> np.ndarray:
    clips = (run.test.targets, _scores(run, head), run.test.groups)
    # The seed draws the same recordings for every run of a fold: seeds and heads are paired.
    return metrics.bootstrap(getattr(metrics, run.provenance.metric), *clips, seed=run.params.fold)


def compare(
    rows: Sequence[Row], others: Sequence[Row], runs: Iterable[Record]
) -> Difference | None:
    """Compare the mean of some classifiers with that of others, each with its own counterpart.

    Runs are paired where they have the same test clips and seed; baselines stand for every seed.
    None where nothing can be paired, or a test set is one recording.
    """
    by_name, pairs = {run.name: run for run in runs}, []
    for row, other in zip(rows, others, strict=True):
        against = [by_name[name] for name in other.runs]
        for run in (by_name[name] for name in row.runs):
            found = next((one for one in against if _alike(run, one)), None)
            pairs += [((run, row.head), (found, other.head))] if found else []
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    if not _can_resample(first):
        return None
    points = 100 * np.mean([_value(*a) - _value(*b) for a, b in pairs])
    return Difference(float(points), *_ends(_resampled(first) - _resampled(second)))


def _alike(run: Record, other: Record) -> bool:
    keys = ("fold",) if other.provenance.kind == BASELINES else ("fold", "seed")
    same_clips = run.provenance.test_clips == other.provenance.test_clips
    return same_clips and all(getattr(run.params, k) == getattr(other.params, k) for k in keys)


def trace_row(
    tables: Iterable[Table], runs: Iterable[Record], title: str, classifier: str
) -> list[dict]:
    """Walk from a row of a table back to the runs whose mean it is.

    Parameters
    ----------
    title
        Beginning of the table's title, such as ``Table II``.
    classifier
        The row, such as ``CQT (KD)``.

    Raises
    ------
    InputError
        Where there is no such table or row.
    """
    found = [table for table in tables if table.title.lower().startswith(f"{title} ".lower())]
    if not found:
        raise InputError(f"no table is called '{title}': fusionkd table shows those that there are")
    rows = [(table.title, row) for table in found for row in table.rows]
    chosen = [(of, row) for of, row in rows if row.classifier.lower() == classifier.lower()]
    if not chosen:
        names = ", ".join(dict.fromkeys(row.classifier for _, row in rows))
        raise InputError(f"no row of {title} is called '{classifier}': there are {names}")
    by_name = {run.name: run for run in runs}
    return [
        {"table": of, "classifier": row.classifier, "head": row.head}
        | {"metrics": run.metrics.get(row.head, {run.provenance.metric: _value(run, row.head)})}
        | trace(run)
        for of, row in chosen
        for run in (by_name[name] for name in row.runs)
    ]


def _note(provenance: Provenance, params: Params) -> str:
    n = provenance.n_dropped
    weights = " with ImageNet weights" if params.weights == "imagenet" else ""
    leaks = f" {n} training clips left out: their recording is in the test fold." if n else ""
    return (
        f"Data: {provenance.data_status}. {provenance.data_note.rstrip('.')}. "
        f"{params.trunk}{weights} at width {params.width:g}, {params.epochs} + "
        f"{params.n_epochs('fusion')} epochs, {params.sample_rate} Hz.{leaks} The interval "
        "resamples recordings of the test clips; it does not hold the spread of seeds."
    )


def interval(low: float | None, high: float | None) -> str | None:
    """Write an interval in percent, such as ``23.4 to 41.2``."""
    return None if low is None else f"{low:.1f} to {high:.1f}"


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table, aligned to be read as plain text too.

    >>> print(markdown([{"Trunk": "small", "Clips": 9}]))
    | Trunk | Clips |
    |-------|-------|
    | small | 9     |
    """
    cells = [list(rows[0]), *([row[key] for key in rows[0]] for row in rows)]
    text = [["–" if cell is None else str(cell) for cell in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*text, strict=True)]
    lines = [f"| {' | '.join(map(str.ljust, row, widths))} |" for row in text]
    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return "\n".join([lines[0], rule, *lines[1:]])
