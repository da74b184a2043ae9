"""Which candidate is the training recipe, by the protocol of ``params/tuning/README.md``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fusionkd_lib import metrics, tables
from fusionkd_lib.params import load_params
from fusionkd_lib.records import Record
from fusionkd_lib.runs import find_records, project_root, run_name

PAGE = project_root() / "params" / "tuning" / "README.md"
RUNS = project_root() / "outputs" / "reference" / "tuning"
N_RESAMPLES = 2000
BEGINS, ENDS = "<!-- the ranking -->", "<!-- the end of the ranking -->"
GROUPS = {"pretrained": "With ImageNet weights", "scratch": "From scratch"}


def rank(folder: Path, records: Mapping[str, Record], group: str) -> list[dict[str, Any]]:
    """Rank the candidates of a group whose runs are all there, from simple to less simple.

    Parameters
    ----------
    folder
        Holds one parameter file per candidate.
    records
        By name.

    Returns
    -------
    list of dict
        A table's rows: what each candidate has on validation clips, its difference from the one
        before and the best one's from it, in points with standard errors; and which is taken.
    """
    cells = {}
    for path in sorted(folder.glob(f"{group}_*.yaml")):
        settings = load_params(path)
        names = [run_name(params, branch=params.representations[0]) for params in settings]
        if all(name in records for name in names):
            cells[path.stem] = [records[name] for name in names]
    points = {name: 100 * np.mean([_accuracy(run) for run in runs]) for name, runs in cells.items()}
    drawn = {
        name: 100 * np.mean([_drawn(run) for run in runs], axis=0) for name, runs in cells.items()
    }
    if not cells:
        return []
    best = max(points, key=points.get)
    near = [name for name in cells if points[best] - points[name] <= _error(drawn, best, name)]
    before, rows = None, []
    for name in cells:
        rows.append(
            {
                "Candidate": name,
                "Accuracy (%)": f"{points[name]:.1f}",
                "Over the one before": _difference(points, drawn, name, before),
                "Below the best": _difference(points, drawn, best, name) if name != best else None,
                "Taken": "yes" if name == near[0] else None,
            }
        )
        before = name
    return rows


def _accuracy(run: Record) -> float:
    return run.score(run.params.representations[0])


def _drawn(run: Record) -> np.ndarray:
    """Return the accuracy on resampled recordings; a training set's draw is the same for all."""
    scores, test = run.scores[run.params.representations[0]], run.test
    draws = {"n_resamples": N_RESAMPLES, "seed": run.params.fold}
    return metrics.bootstrap(metrics.accuracy, test.targets, scores, test.groups, **draws)


def _error(drawn: Mapping[str, np.ndarray], one: str, other: str) -> float:
    return float(np.std(drawn[one] - drawn[other]))


def _difference(
    points: Mapping[str, float], drawn: Mapping[str, np.ndarray], one: str, other: str | None
) -> str | None:
    if other is None:
        return None
    return f"{points[one] - points[other]:+.1f} ± {_error(drawn, one, other):.1f}"


def write_ranking(page: Path) -> None:
    """Put the ranking by the committed runs into the page of the protocol, between its marks."""
    records = {record.name: record for record in find_records(RUNS)[0]}
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGINS)
    _, _, after = rest.partition(ENDS)
    parts = []
    for group, title in GROUPS.items():
        if rows := rank(page.parent, records, group):
            parts.append(f"**{title}**\n\n{tables.markdown(rows)}")
    text = f"{before}{BEGINS}\n{(chr(10) * 2).join(parts)}\n{ENDS}{after}"
    page.write_text(text, encoding="utf-8")
