"""Runs -> Tables I to III: ours with its interval, beside the paper's.

A row is a classifier of one pair: each branch alone, each branch after distillation, the fused
classifier. Its value is the mean over the runs (folds and seeds) of the official metric, in
percent; its interval resamples whole recordings (or sensors' clips) of the test folds. A table is
data; only `to_markdown` makes text of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusionkd_lib import metrics
from fusionkd_lib.catalogue import FUSED, label
from fusionkd_lib.errors import InputError
from fusionkd_lib.params import Params
from fusionkd_lib.records import Provenance, Record
from fusionkd_lib.runs import identity, trace
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
    chance
        What blind guessing reaches, in percent.
    """

    metric: str
    dataset: str
    status: str
    rows: tuple[Row, ...]
    chance: float
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
        told = ("title", "metric", "dataset", "status", "chance", "note")
        return {key: getattr(self, key) for key in told} | {"rows": rows}


@dataclass(frozen=True)
class Gain:
    """A branch after distillation compared with itself before, in points, on the same recordings.

    Parameters
    ----------
    gain, low, high
        The difference and its paired 95 % interval.
    paper
        The paper's, None where it has none.
    """

    head: str
    gain: float
    low: float
    high: float
    paper: float | None

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
    classifiers = [(label(name), name, _before(fusions, name, by_name)[0]) for name in names]
    classifiers += [(f"{label(name)} (KD)", name, fusions) for name in names]
    classifiers += [(label(FUSED), FUSED, fusions)]
    paper = PAPER[told.metric].get(names, [None] * len(classifiers))
    rows = tuple(_row(*row, paper=x) for row, x in zip(classifiers, paper, strict=True))
    chance = 100 * float(np.mean([_chance(run) for run in fusions]))
    note = _note(told, params)
    return Table(told.metric, told.dataset, told.data_status, rows, chance, note, params)


def _before(
    fusions: Sequence[Record], head: str, by_name: Mapping[str, Record]
) -> tuple[list[Record], list[Record]]:
    """Return the runs of a branch alone, and of the fusion runs those that stand on them."""
    index = fusions[0].params.representations.index(head)
    pairs = [(by_name.get(list(run.provenance.parents)[index]), run) for run in fusions]
    return [branch for branch, _ in pairs if branch], [run for branch, run in pairs if branch]


def _row(classifier: str, head: str, runs: Sequence[Record], *, paper: float | None) -> Row:
    ours = 100 * float(np.mean([run.score(head) for run in runs])) if runs else None
    low, high = _ends(_resampled(runs, head)) if _can_resample(runs) else (None, None)
    clips = {run.params.fold: run.provenance.n_test for run in runs}
    n_clips, n_seeds = sum(clips.values()), len({run.params.seed for run in runs})
    names = tuple(run.name for run in runs)
    return Row(classifier, head, ours, low, high, paper, len(clips), n_clips, n_seeds, names)


def _chance(run: Record) -> float:
    """Return what blind guessing reaches: one class in K, or the share of tags that are set."""
    targets = run.test.targets
    return float(np.nanmean(targets)) if targets.ndim == 2 else 1 / len(run.provenance.classes)


def _can_resample(runs: Sequence[Record]) -> bool:
    return bool(runs) and all(len(set(run.test.groups)) > 1 for run in runs)


def _ends(resampled: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval, in percent, of resampled metrics (n_resamples,)."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return 100 * float(low), 100 * float(high)


def _resampled(runs: Sequence[Record], head: str) -> np.ndarray:
    """Return the mean over the runs of a metric on resampled recordings: (n_resamples,)."""
    metric, resampled = getattr(metrics, runs[0].provenance.metric), []
    for run in runs:
        clips = (run.test.targets, run.scores[head], run.test.groups)
        # The seed draws the same recordings for every run of a fold: seeds and heads are paired.
        resampled.append(metrics.bootstrap(metric, *clips, seed=run.params.fold))
    return np.mean(resampled, axis=0)


def gains(table: Table, runs: Iterable[Record]) -> list[Gain]:
    """Compare each branch after distillation with itself before, on the same recordings."""
    by_name, found = {run.name: run for run in runs}, []
    fusions = [by_name[name] for name in table.row(FUSED).runs]
    for head in table.params.representations:
        before, after = _before(fusions, head, by_name)
        if not _can_resample(after):
            continue
        points = [100 * (b.score(head) - a.score(head)) for a, b in zip(before, after, strict=True)]
        low, high = _ends(_resampled(after, head) - _resampled(before, head))
        told = (table.row(head).paper, table.row(head, alone=True).paper)
        paper = None if None in told else told[0] - told[1]
        found.append(Gain(head, float(np.mean(points)), low, high, paper))
    return found


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
        | {"metrics": by_name[name].metrics[row.head], **trace(by_name[name])}
        for of, row in chosen
        for name in row.runs
    ]


def _note(provenance: Provenance, params: Params) -> str:
    n = provenance.n_dropped
    leaks = f" {n} training clips left out: their recording is in the test fold." if n else ""
    n_epochs = params.joint_epochs or params.epochs
    return (
        f"Data: {provenance.data_status}. {provenance.data_note.rstrip('.')}. "
        f"{params.trunk} at width {params.width:g}, {params.epochs} + {n_epochs} epochs, "
        f"{params.sample_rate} Hz.{leaks} The interval resamples recordings of the test clips; it "
        "does not hold the spread of seeds."
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
