"""Runs -> Tables I to III: ours with its interval, beside the paper's.

A row is a classifier of one pair: each branch alone, each branch after distillation, the fused
classifier. Its figure is the mean over the runs (folds and seeds) of the official metric, in
percent; its interval resamples whole recordings (or sensors' clips) of the test folds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fusionkd_lib import metrics
from fusionkd_lib.errors import InputError
from fusionkd_lib.features import digest
from fusionkd_lib.models import FUSED
from fusionkd_lib.params import Params
from fusionkd_lib.runs import Run, identity

LABELS = {"logmel": "Log-mel", "cqt": "CQT", "gammatone": "Gammatone", "stft": "STFT"}
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
PAPER_DATA = {
    "accuracy": "UrbanSound8K, 10 folds",
    "micro_auprc": "DCASE 2019 Task 5, validate",
}
METRIC_NAMES = {"accuracy": "accuracy", "micro_auprc": "micro AUPRC"}


@dataclass(frozen=True)
class Table:
    """One pair on one dataset with one setting: its rows, and all that must be said of them."""

    title: str
    note: str
    rows: pd.DataFrame
    params: Params

    def to_markdown(self) -> str:
        """Return title, table and note for a terminal, GitHub and a notebook alike."""
        return f"**{self.title}**\n\n{markdown(self.rows.drop(columns=HIDDEN))}\n\n{self.note}"

    def to_dict(self) -> dict[str, Any]:
        """Return the table as plain data."""
        rows = self.rows.astype(object).where(self.rows.notna(), None).to_dict("records")
        return {"title": self.title, "note": self.note, "rows": rows}


HIDDEN = ["head", "runs", "chance"]


def trace(tables: Iterable[Table], runs: Iterable[Run], title: str, classifier: str) -> list[dict]:
    """Walk from a row of a table back to the runs that its figure is the mean of.

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
    by_name = {run.name: run for run in runs}
    found = [
        (table, row)
        for table in tables
        if table.title.lower().startswith(f"{title} ".lower())
        for row in table.rows.itertuples()
    ]
    chosen = [(t, row) for t, row in found if row.Classifier.lower() == classifier.lower()]
    if not found:
        raise InputError(f"no table is called '{title}': fusionkd table shows those that there are")
    if not chosen:
        names = ", ".join(dict.fromkeys(row.Classifier for _, row in found))
        raise InputError(f"no row of {title} is called '{classifier}': there are {names}")
    return [
        {
            "table": table.title,
            "classifier": row.Classifier,
            "figure": by_name[name].metrics[row.head],
            "head": row.head,
            **by_name[name].trace(),
        }
        for table, row in chosen
        for name in row.runs
    ]


def find_runs(root: Path) -> list[Run]:
    """Return the complete runs below a folder of runs, by name."""
    return [Run(path.parent) for path in sorted(root.glob("*/complete.json"))]


def collect(runs: Iterable[Run]) -> list[Table]:
    """Gather runs into tables: equal but for fold and seed belongs together."""
    by_name = {run.name: run for run in runs}
    groups: dict[str, list[Run]] = {}
    for run in by_name.values():
        if run.provenance["kind"] == "fusion":
            groups.setdefault(_setting(run), []).append(run)
    tables = [_table(group, by_name) for group in groups.values()]
    return sorted(tables, key=lambda table: (table.params.dataset, _numeral(table.params)))


def _setting(run: Run) -> str:
    kept = {k: v for k, v in identity(run.params).items() if k not in ("fold", "seed")}
    return digest([kept, run.provenance["data_status"]])


def _numeral(params: Params) -> str:
    return NUMERALS.get(params.representations, params.pair)


def _table(fusions: Sequence[Run], by_name: dict[str, Run]) -> Table:
    params, provenance = fusions[0].params, fusions[0].provenance
    metric = "micro_auprc" if fusions[0].scores["targets"].ndim == 2 else "accuracy"
    rows = []
    for index, name in enumerate(params.representations):
        rows.append(_row(LABELS[name], name, _parents(fusions, index, by_name), metric))
    for name in params.representations:
        rows.append(_row(f"{LABELS[name]} (KD)", name, fusions, metric))
    rows.append(_row("Fused classifier", FUSED, fusions, metric))
    frame = pd.DataFrame(rows)
    paper = PAPER[metric].get(params.representations, [None] * len(rows))
    frame.insert(3, f"Paper ({PAPER_DATA[metric]})", list(paper))
    name = f"{METRIC_NAMES[metric]} in %, {provenance['dataset']} ({provenance['data_status']})"
    title = f"Table {_numeral(params)} · {params.pair} · {name}"
    return Table(title, _note(fusions), frame, params)


def _parents(fusions: Sequence[Run], index: int, by_name: dict[str, Run]) -> list[Run]:
    names = [list(run.provenance["parents"])[index] for run in fusions]
    return [by_name[name] for name in names if name in by_name]


def _row(label: str, head: str, runs: Sequence[Run], metric: str) -> dict[str, Any]:
    ours = float(np.mean([run.metrics[head][metric] for run in runs])) if runs else np.nan
    low, high = np.quantile(_resampled(runs, head, metric), [0.025, 0.975]) if runs else (0, 0)
    return {
        "Classifier": label,
        "Ours": round(100 * ours, 1),
        "95 % interval": f"{100 * low:.1f} to {100 * high:.1f}" if runs else None,
        "Folds": len({run.params.fold for run in runs}),
        "Clips": sum({r.params.fold: r.provenance["n_test"] for r in runs}.values()),
        "Seeds": len({run.params.seed for run in runs}),
        "head": head,
        "runs": [run.name for run in runs],
        "chance": round(100 * float(np.mean([_chance(run) for run in runs])), 1) if runs else None,
    }


def _chance(run: Run) -> float:
    """Return what blind guessing reaches: one class in K, or the share of tags that are set."""
    targets = run.scores["targets"]
    return float(np.nanmean(targets)) if targets.ndim == 2 else 1 / len(run.provenance["classes"])


def _resampled(runs: Sequence[Run], head: str, metric: str) -> np.ndarray:
    """Return the mean over the runs of a metric on resampled recordings: (n_resamples,)."""
    # The same seed draws the same recordings for every run of a fold: seeds and heads are paired.
    resampled = [
        metrics.bootstrap(
            getattr(metrics, metric),
            run.scores["targets"],
            run.scores[head],
            run.scores["groups"],
            seed=run.params.fold,
        )
        for run in runs
    ]
    return np.mean(resampled, axis=0)


def gains(table: Table, runs: Iterable[Run]) -> pd.DataFrame:
    """Compare each branch after distillation with itself before, on the same recordings.

    Returns
    -------
    pandas.DataFrame
        A row a branch: our gain in points with its paired 95 % interval, the paper's gain, and a
        verdict: ``gain`` or ``loss`` where the interval leaves out zero, else ``open``.
    """
    by_name, rows = {run.name: run for run in runs}, table.rows.set_index("Classifier")
    metric = "micro_auprc" if "AUPRC" in table.title else "accuracy"
    paper = next(column for column in rows if column.startswith("Paper"))
    found = []
    for name in table.params.representations:
        before, after = rows.loc[LABELS[name]], rows.loc[f"{LABELS[name]} (KD)"]
        sides = [[by_name[run] for run in row["runs"]] for row in (before, after)]
        if not all(sides):
            continue
        means = [np.mean([run.metrics[name][metric] for run in side]) for side in sides]
        resampled = _resampled(sides[1], name, metric) - _resampled(sides[0], name, metric)
        low, high = 100 * np.quantile(resampled, [0.025, 0.975])
        found.append(
            {
                "Branch": LABELS[name],
                "Gain (points)": f"{100 * (means[1] - means[0]):+.1f}",
                "95 % interval": f"{low:+.1f} to {high:+.1f}",
                "Paper's gain": f"{after[paper] - before[paper]:+.1f}",
                "Verdict": "gain" if low > 0 else "loss" if high < 0 else "open",
            }
        )
    return pd.DataFrame(found)


def _note(fusions: Sequence[Run]) -> str:
    provenance, params = fusions[0].provenance, fusions[0].params
    dropped = provenance["n_dropped"]
    leaks = f" {dropped} training clips left out: their recording is in the test fold." * bool(
        dropped
    )
    n_epochs = params.joint_epochs or params.epochs
    return (
        f"Data: {provenance['data_status']}. {provenance['data_note'].rstrip('.')}. "
        f"{params.trunk} at width {params.width:g}, {params.epochs} + {n_epochs} epochs, "
        f"{params.sample_rate} Hz.{leaks} The interval resamples recordings of the test clips; it "
        "does not hold the spread of seeds."
    )


def markdown(frame: pd.DataFrame) -> str:
    """Return a data frame as a Markdown table, aligned to be read as plain text too."""
    cells = [list(frame.columns), *frame.astype(object).where(frame.notna(), "–").values.tolist()]
    text = [[str(cell) for cell in row] for row in cells]
    widths = [max(len(row[i]) for row in text) for i in range(len(text[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in text
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
