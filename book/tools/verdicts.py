"""What the rows of a table say of the paper's questions: differences with their paired intervals.

Each function returns rows for `fusionkd_lib.tables.markdown`, none where nothing can be compared.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from fusionkd_lib.catalogue import FUSED, MEAN, SUPPORT_VECTORS
from fusionkd_lib.records import Record
from fusionkd_lib.tables import Row, Table, compare

Rows = list[dict[str, Any]]


def distillation(table: Table, runs: Iterable[Record]) -> Rows:
    """Compare each branch after the joint phase with itself before."""
    pairs = [(table.row(x), table.row(x, alone=True)) for x in table.params.representations]
    rows = []
    for after, before in pairs:
        paper = None if None in (after.paper, before.paper) else after.paper - before.paper
        told = {"Paper": None if paper is None else f"{paper:+.1f}"}
        rows += _row(f"{after.classifier} less {before.classifier}", [after], [before], runs, told)
    return rows


def fusion(table: Table, runs: Iterable[Record]) -> Rows:
    """Compare the fused classifier with the mean of its branches' scores."""
    fused, mean = table.row(FUSED), table.row(MEAN)
    return _row(f"{fused.classifier} less {mean.classifier}", [fused], [mean], runs)


def baselines(tables: Sequence[Table], runs: Iterable[Record]) -> Rows:
    """Compare the branches alone, and their mean, with machines on the same representations.

    Parameters
    ----------
    tables
        Of one dataset and setting, whose pairs share their branches.
    """
    alone, machines = {}, {}
    for table in tables:
        for name in table.params.representations:
            heads = [row.head for row in table.rows]
            if f"{SUPPORT_VECTORS}_{name}" in heads:
                alone[name] = table.row(name, alone=True)
                machines[name] = table.row(f"{SUPPORT_VECTORS}_{name}")
    rows = []
    for name, row in alone.items():
        rows += _row(
            f"{row.classifier} less {machines[name].classifier}", [row], [machines[name]], runs
        )
    if alone:
        rows += _row("Mean of these", list(alone.values()), list(machines.values()), runs)
    return rows


def _row(
    what: str,
    rows: Sequence[Row],
    others: Sequence[Row],
    runs: Iterable[Record],
    told: dict[str, Any] | None = None,
) -> Rows:
    found = compare(rows, others, runs)
    if not found:
        return []
    ends = f"{found.low:+.1f} to {found.high:+.1f}"
    values = {"Points": f"{found.points:+.1f}", "95 % interval": ends, **(told or {})}
    return [{"Difference": what, **values, "Verdict": found.verdict}]
