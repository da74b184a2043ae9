"""Which candidate is taken, for the training recipe and for the distillation, by its protocol.

Both are chosen in the same way: each candidate is a parameter file whose runs are judged on
validation clips, and of those within one standard error of the best the simplest is taken.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusionkd_lib import metrics, tables
from fusionkd_lib.params import Params, load_params
from fusionkd_lib.records import Record
from fusionkd_lib.runs import find_records, project_root, run_name

RUNS = project_root() / "outputs" / "reference" / "tuning"
RECIPE = project_root() / "params" / "tuning" / "README.md"
DISTILLATION = project_root() / "params" / "study" / "choosing" / "README.md"
N_RESAMPLES = 2000
BEGINS, ENDS = "<!-- the ranking -->", "<!-- the end of the ranking -->"
GROUPS = {"pretrained": "With ImageNet weights", "scratch": "From scratch"}
# What a candidate for the distillation is compared with: the same without distillation.
WITHOUT = {"same": "0_none", "own": "0_none_own_views"}


@dataclass(frozen=True)
class Candidate:
    """A parameter file whose runs are all there.

    Parameters
    ----------
    name
        Of the file; candidates are numbered from simple to less simple.
    points, drawn
        Accuracy on validation clips in percent, the mean over runs and branches, and the same on
        resampled recordings (N_RESAMPLES,); a training set's draw is the same for all candidates.
    views
        As of `Params`.
    """

    name: str
    points: float
    drawn: np.ndarray
    views: str

    def over(self, other: "Candidate") -> "Candidate":
        """Return what this one has more than another."""
        return Candidate(
            self.name, self.points - other.points, self.drawn - other.drawn, self.views
        )

    @property
    def told(self) -> str:
        """A difference with its standard error."""
        return f"{self.points:+.1f} ± {self.drawn.std():.1f}"


def candidates(folder: Path, records: Mapping[str, Record], group: str = "") -> list[Candidate]:
    """Return the candidates of a group whose runs are all there, from simple to less simple."""
    found = []
    for path in sorted(folder.glob(f"{group}*.yaml")):
        settings = load_params(path)
        names = [_judged(params) for params in settings]
        if all(name in records for name in names):
            cells = [
                (records[n], head) for n in names for head in records[n].params.representations
            ]
            points = 100 * np.mean([run.score(head) for run, head in cells])
            drawn = 100 * np.mean([_drawn(*cell) for cell in cells], axis=0)
            found.append(Candidate(path.stem, float(points), drawn, settings[0].views))
    return found


def _judged(params: Params) -> str:
    """Return the run that a candidate is judged by: of one branch, or of a pair."""
    one = params.representations[0] if len(params.representations) == 1 else None
    return run_name(params, branch=one)


def _drawn(run: Record, head: str) -> np.ndarray:
    draws = {"n_resamples": N_RESAMPLES, "seed": run.params.fold}
    clips = (run.test.targets, run.scores[head], run.test.groups)
    return metrics.bootstrap(metrics.accuracy, *clips, **draws)


def taken(found: Sequence[Candidate]) -> tuple[Candidate, Candidate]:
    """Return the simplest candidate within one standard error of the best, and the best."""
    best = max(found, key=lambda one: one.points)
    return next(one for one in found if best.over(one).points <= best.over(one).drawn.std()), best


def rank(folder: Path, records: Mapping[str, Record], group: str) -> list[dict[str, Any]]:
    """Return a table's rows on the candidates for the recipe: what each added step brought."""
    found = candidates(folder, records, f"{group}_")
    simplest, best = taken(found) if found else (None, None)
    return [
        {
            "Candidate": one.name,
            "Accuracy (%)": f"{one.points:.1f}",
            "Over the one before": one.over(before).told if before else None,
            "Below the best": best.over(one).told if one is not best else None,
            "Taken": "yes" if one is simplest else None,
        }
        for before, one in zip([None, *found], found, strict=False)
    ]


def rank_distillations(folder: Path, records: Mapping[str, Record]) -> list[dict[str, Any]]:
    """Return a table's rows on the candidates for the distillation: what each brought."""
    all_found = {one.name: one for one in candidates(folder, records)}
    without = {views: all_found.get(name) for views, name in WITHOUT.items()}
    found = [one for name, one in all_found.items() if name not in WITHOUT.values()]
    found = [one.over(without[one.views]) for one in found if without[one.views]]
    simplest, best = taken(found) if found else (None, None)
    return [
        {
            "Candidate": one.name,
            "Branches (%)": f"{all_found[one.name].points:.1f}",
            "Over no distillation": one.told,
            "Below the best": best.over(one).told if one is not best else None,
            "Taken": "yes" if one is simplest else None,
        }
        for one in found
    ]


def write_rankings() -> None:
    """Put the rankings by the committed runs into the pages of their protocols."""
    write_recipe(RECIPE)
    write_distillation(DISTILLATION)


def write_recipe(page: Path) -> None:
    """Put the ranking of recipes into the page beside their parameter files."""
    parts = {title: rank(page.parent, _records(), group) for group, title in GROUPS.items()}
    told = [f"**{title}**\n\n{tables.markdown(rows)}" for title, rows in parts.items() if rows]
    _between_marks(page, "\n\n".join(told))


def write_distillation(page: Path) -> None:
    """Put the ranking of distillations into the page beside their parameter files."""
    rows = rank_distillations(page.parent, _records())
    _between_marks(page, tables.markdown(rows) if rows else "No candidate has all of its runs yet.")


def _records() -> dict[str, Record]:
    return {record.name: record for record in find_records(RUNS)[0]}


def _between_marks(page: Path, text: str) -> None:
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGINS)
    _, _, after = rest.partition(ENDS)
    page.write_text(f"{before}{BEGINS}\n{text}\n{ENDS}{after}", encoding="utf-8")
