"""What tables say of the paper's claims: differences with their paired intervals, and a ledger.

Each function returns rows for `fusionkd_lib.tables.markdown`, none where nothing can be compared.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fusionkd_lib.catalogue import FUSED, MEAN, SUPPORT_VECTORS, label
from fusionkd_lib.records import Record
from fusionkd_lib.runs import identity
from fusionkd_lib.tables import Difference, Row, Table, compare, interval, summarise

Rows = list[dict[str, Any]]
REAL = ("real", "partial")  # clips that say something of a dataset
VERDICTS = {"gain": "held", "loss": "contradicted", "open": "open"}
UNTESTED = {"Ours": None, "95 % interval": None, "On": None}


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

    All seeds of a branch count, also those that no pair has used yet.

    Parameters
    ----------
    tables
        Of one dataset and setting, whose pairs share their branches.
    """
    runs = list(runs)
    alone, machines = {}, {}
    for table in tables:
        for name in table.params.representations:
            heads = [row.head for row in table.rows]
            if f"{SUPPORT_VECTORS}_{name}" in heads:
                alone[name] = _every_seed(table.row(name, alone=True), runs)
                machines[name] = table.row(f"{SUPPORT_VECTORS}_{name}")
    rows = []
    for name, row in alone.items():
        rows += _row(
            f"{row.classifier} less {machines[name].classifier}", [row], [machines[name]], runs
        )
    if alone:
        rows += _row("Mean of these", list(alone.values()), list(machines.values()), runs)
    return rows


def branches(runs: Iterable[Record]) -> Rows:
    """Return what each kind of branch has alone, over all of its folds and seeds."""
    groups: dict[str, list[Record]] = {}
    for run in runs:
        if run.provenance.kind == "branch" and run.params.judged_on == "test":
            groups.setdefault(_setting(run), []).append(run)
    rows = []
    for group in groups.values():
        params = group[0].params
        row = summarise(label(params.representations[0]), params.representations[0], group)
        rows.append(
            {
                "Trunk": params.trunk,
                "Weights": params.weights,
                "Hop": params.hop_length,
                "Branch": row.classifier,
                "Alone": f"{row.ours:.1f}",
                "95 % interval": interval(row.low, row.high),
                "Folds": row.folds,
                "Seeds": row.seeds,
            }
        )
    return sorted(rows, key=lambda row: [str(row[key]) for key in ("Weights", "Hop", "Branch")])


def in_one_table(tables: Sequence[Table], runs: Iterable[Record]) -> Rows:
    """Return a row per setting: log-mel, branches less the machines, fusion less averaging."""
    runs, groups = list(runs), {}
    for table in tables:
        groups.setdefault(table.note, []).append(table)
    return [row for group in groups.values() for row in _setting_in_one_row(group, runs)]


def _setting_in_one_row(group: Sequence[Table], runs: Sequence[Record]) -> Rows:
    params, machines = group[0].params, baselines(group, runs)
    logmel = [table for table in group if "logmel" in table.params.representations]
    if not (machines and logmel):
        return []
    alone = _every_seed(logmel[0].row("logmel", alone=True), runs)
    fused, mean = ([table.row(head) for table in group] for head in (FUSED, MEAN))
    fusion_gain = _ours(compare(fused, mean, runs))
    start = "ImageNet weights" if params.weights == "imagenet" else "from scratch"
    return [
        {
            "Networks": f"{params.trunk}, {start}",
            "Log-mel alone (%)": f"{alone.ours:.1f}",
            "Three branches less their SVMs": _with_ends(machines[-1], "Points"),
            "Fused less mean of scores": _with_ends(fusion_gain, "Ours"),
            "Seeds": f"{alone.seeds} of branches, {fused[0].seeds} of pairs",
        }
    ]


def _with_ends(told: Mapping[str, str], key: str) -> str:
    return f"{told[key]} ({told['95 % interval']})"


def _every_seed(row: Row, runs: Iterable[Record]) -> Row:
    """Return a branch's row with its runs of every seed."""
    setting = {_setting(run) for run in runs if run.name in row.runs}
    return summarise(row.classifier, row.head, [run for run in runs if _setting(run) in setting])


def _setting(run: Record) -> str:
    """Return what a run of one branch shares with its other folds and seeds."""
    named = identity(run.params, branch=run.params.representations[0])
    kept = {key: value for key, value in named.items() if key not in ("fold", "seed")}
    return f"{run.provenance.kind} {sorted(kept.items())}"


def ledger(
    tables: Sequence[Table], controls: Sequence[Table], runs: Iterable[Record], *, study: Rows = ()
) -> Rows:
    """Return what the paper claims, where, its numbers, ours, and whether the claim held.

    A claim is *held* or *contradicted* where the interval of the difference leaves out zero, and
    else *open*; stand-in and synthetic clips test nothing that was said of a dataset.

    Parameters
    ----------
    controls
        Tables of the same pairs, trained in the same way with lambda 0.
    runs
        Of tables and controls.
    study
        Its rows on the endpoint and the secondary questions.
    """
    runs = list(runs)
    urban = [table for table in tables if table.metric == "accuracy" and table.status in REAL]
    rows = []
    for weights, how in (("imagenet", "ImageNet weights"), ("scratch", "from scratch")):
        group = [table for table in urban if table.params.weights == weights]
        for comparison in _comparisons(group, controls):
            rows += _claim(comparison, f"UrbanSound8K, {how}", runs)
    rows += [_studied(row) for row in study if row["Difference"] in STUDIED]
    return rows + [told | UNTESTED | {"Verdict": verdict} for told, verdict in _beyond_reach()]


class Comparison(NamedTuple):
    """A claim, where the paper makes it, and the rows whose mean difference it is about."""

    claim: str
    place: str
    after: Sequence[Row]
    before: Sequence[Row]

    @property
    def paper(self) -> str:
        """The paper's own difference."""
        both = [
            (a.paper, b.paper)
            for a, b in zip(self.after, self.before, strict=True)
            if None not in (a.paper, b.paper)
        ]
        return f"{np.mean([a - b for a, b in both]):+.1f}" if both else "no number"


def _comparisons(group: Sequence[Table], controls: Sequence[Table]) -> list[Comparison]:
    """Return the claims on tables of one setting."""
    cells = [(table, name) for table in group for name in table.params.representations]
    alone = [table.row(name, alone=True) for table, name in cells]
    taught = [table.row(name) for table, name in cells]
    fused = [table.row(FUSED) for table, _ in cells]
    logmel = [i for i, (_, name) in enumerate(cells) if name == "logmel"]
    untaught = [replace(row, paper=None) for row in _untaught(cells, controls)]
    all_of_them = [
        Comparison("Branches are better after distillation", "abstract, V", taught, alone),
        Comparison(
            "The log-mel branch is better after distillation",
            "I, third contribution",
            [taught[i] for i in logmel],
            [alone[i] for i in logmel],
        ),
        Comparison("The fused classifier is stronger than a branch", "I, first", fused, alone),
    ]
    if untaught and len(untaught) == len(taught):
        claim = "It is the teacher that makes them better, not more training"
        all_of_them.insert(1, Comparison(claim, "abstract, implied", taught, untaught))
    return all_of_them if group else []


def _untaught(cells: Sequence[tuple[Table, str]], controls: Sequence[Table]) -> list[Row]:
    """Return the rows of branches that were trained in the same way, but for lambda."""
    return [
        control.row(name)
        for table, name in cells
        for control in controls
        if control.params.replace(kd_weight=table.params.kd_weight) == table.params
    ]


def _claim(comparison: Comparison, on: str, runs: Sequence[Record]) -> Rows:
    claim, place, after, before = comparison
    found = compare(after, before, runs)
    if not found:
        return []
    told = {"Claim": f"{claim} ({on})", "Place": place, "Paper": comparison.paper}
    row = after[0]
    clips = f"{row.folds} folds, {row.clips:,d} clips, {row.seeds} seed{'s' * (row.seeds > 1)}"
    return [told | _ours(found) | {"On": clips, "Verdict": VERDICTS[found.verdict]}]


# What the study says of a teacher, and how the ledger puts it.
STUDIED = {
    "The paper's less lambda 0": "the paper's distillation",
    "Distilled less the same without a teacher": "softened scores at weight 1",
}


def _studied(row: Mapping[str, Any]) -> dict[str, Any]:
    how = f"{STUDIED[row['Difference']]}, ImageNet weights"
    verdict = row["Verdict"].partition(";")[0]
    return {
        "Claim": f"It is the teacher that makes them better, not more training (the study: {how})",
        "Place": "abstract, implied",
        "Paper": "no number",
        "Ours": row["Points"],
        "95 % interval": row["95 % interval"],
        "On": row["On"],
        "Verdict": VERDICTS.get(verdict, verdict),
    }


def _ours(found: Difference) -> Mapping[str, str]:
    ends = f"{found.low:+.1f} to {found.high:+.1f}"
    return {"Ours": f"{found.points:+.1f}", "95 % interval": ends}


def _beyond_reach() -> list[tuple[dict[str, str], str]]:
    """Return the claims that no run here can decide, and what is to be said of each."""
    third = "I, third contribution"
    return [
        (
            {
                "Claim": "The log-mel branch on DCASE 2019 Task 5: 75.7 → 77.3",
                "Place": third,
                "Paper": "+1.6; its Table I has 81.4 → 84.02",
            },
            "cannot be tested here: the recordings cannot be had",
        ),
        (
            {"Claim": "ShuffleNet and SqueezeNet gain too", "Place": third, "Paper": "no number"},
            "open: not run",
        ),
        (
            {
                "Claim": "A branch is no more expensive after distillation",
                "Place": "VI",
                "Paper": "no number",
            },
            "held: it is the same network with other weights",
        ),
    ]


def message(table: Table) -> str:
    """Say how many of a table's networks stand above its best support vector machine."""
    machines = [row for row in table.rows if row.head.startswith(SUPPORT_VECTORS)]
    networks = [row for row in table.rows if row.head in (*table.params.representations, FUSED)]
    if not machines:
        return "There are no baselines to hold these networks to."
    best = max(row.ours for row in machines)
    above = sum(row.ours > best for row in networks)
    of = f"{above} of {len(networks)} networks"
    return f"{of} stand above the best support vector machine, which has {best:.1f}."


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
    ours = _ours(found)
    values = {"Points": ours["Ours"], "95 % interval": ours["95 % interval"], **(told or {})}
    return [{"Difference": what, **values, "Verdict": found.verdict}]
