"""What the study says, by ``appendix_protocol.md``: the endpoint, its verdict, the other contrasts.

A block is one fold and one seed; it counts for a question when both arms that are compared are in.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fusionkd_book import figures
from fusionkd_lib.catalogue import BASELINES, SUPPORT_VECTORS
from fusionkd_lib.params import load_params
from fusionkd_lib.records import Record
from fusionkd_lib.runs import find_records, project_root, run_name

ROOT = project_root()
FOLDER = ROOT / "params" / "study"
REFERENCE = ROOT / "outputs" / "reference"
ARMS = ("none", "paper", "chosen", "equal")  # as the protocol's table has them
ARMS_OF = {"pretrained": ARMS, "scratch": ("none", "chosen")}
BEFORE = "before"  # the branches as they came out of pretraining
MACHINES = "machines"  # support vector machines on the same representations
N_BLOCKS = 9  # with ImageNet weights: three folds by three seeds
N_BLOCKS_SCRATCH = 3  # one seed
FROM_SCRATCH = "Chosen less lambda 0, from scratch"
N_RESAMPLES = 10_000
WORTH_HAVING = 1.5  # points
LEVEL = 0.05

Cell = tuple[str, str]  # a pair, and one of its branches


@dataclass(frozen=True, eq=False)
class Block:
    """One fold and one seed: the arms that have run, all judged on the same clips.

    Parameters
    ----------
    groups
        (n,) the recording of each test clip.
    right
        Arm -> branch in a pair -> (n,) bool, the clips that it names rightly.
    """

    fold: int
    seed: int
    groups: np.ndarray
    right: Mapping[str, Mapping[Cell, np.ndarray]]

    def share(self, arm: str, cells: Collection[Cell] = ()) -> np.ndarray:
        """(n,) the share of an arm's cells, or of some, that name each clip rightly."""
        right = self.right[arm]
        return np.mean([right[cell] for cell in cells or right], axis=0)

    def by_recording(self) -> "Block":
        """Return a block whose clips are recordings, a long one no more than a short."""
        recordings, of = np.unique(self.groups, return_inverse=True)
        n_clips = np.bincount(of)
        right = {
            arm: {cell: np.bincount(of, weights=clips) / n_clips for cell, clips in cells.items()}
            for arm, cells in self.right.items()
        }
        return Block(self.fold, self.seed, recordings, right)


@dataclass(frozen=True, eq=False)
class Contrast:
    """One arm less another, in points.

    Parameters
    ----------
    points
        The mean over cells, then over seeds, then over folds with equal weight.
    drawn
        (N_RESAMPLES,) the same on recordings and seeds that were drawn with replacement.
    n_recordings
        Recordings of all folds.
    on
        Folds, seeds and clips, in words.
    """

    points: float
    drawn: np.ndarray
    n_recordings: int
    on: str = ""

    @property
    def ends(self) -> tuple[float, float]:
        """The 95 % percentile interval."""
        low, high = np.quantile(self.drawn, [LEVEL / 2, 1 - LEVEL / 2])
        return float(low), float(high)

    @property
    def told(self) -> tuple[str, str]:
        """The points and the interval in words, with two digits where one hides the verdict."""
        low, high = self.ends
        marks = (low, 0), (high, WORTH_HAVING)
        digits = 2 if any(round(end, 1) == mark != end for end, mark in marks) else 1
        return f"{self.points:+z.{digits}f}", f"{low:+z.{digits}f} to {high:+z.{digits}f}"

    def __str__(self) -> str:
        return "{} ({})".format(*self.told)

    @property
    def p(self) -> float:
        """Twice the smaller share of resamples on one side of zero, zero itself on both."""
        sides = (self.drawn <= 0).mean(), (self.drawn >= 0).mean()
        return float(min(1.0, 2 * max(min(sides), 1 / len(self.drawn))))

    @property
    def verdict(self) -> str:
        """``gain``, ``no gain worth having``, or ``open`` and what would decide it."""
        low, high = self.ends
        if low > 0:
            return "gain"
        if high < WORTH_HAVING:
            return "no gain worth having"
        # An end comes nearer as the root of the recordings; the point is taken to stay.
        ends = (self.points - low, self.points), (high - self.points, WORTH_HAVING - self.points)
        n = self.n_recordings * min(away / allowed for away, allowed in ends if allowed > 0) ** 2
        return f"open; about {round(n, -1):,.0f} recordings or more would decide it"


def blocks(trunk: str, records: Mapping[str, Record], *, folder: Path = FOLDER) -> list[Block]:
    """Return the blocks, each with those arms of ``folder/trunk`` that have all of their runs.

    Parameters
    ----------
    trunk
        A key of `ARMS_OF`.
    records
        By name.
    """
    found: dict[tuple[int, int], dict[str, list[Record]]] = {}
    for arm in ARMS_OF[trunk]:
        planned: dict[tuple[int, int], list[Record | None]] = {}
        for params in load_params(folder / trunk / f"{arm}.yaml"):
            runs = planned.setdefault((params.fold, params.seed), [])
            runs.append(records.get(run_name(params)))
        for key, runs in planned.items():
            if all(runs):
                found.setdefault(key, {})[arm] = runs
    return [_block(*key, arms, records) for key, arms in sorted(found.items())]


def _block(
    fold: int, seed: int, arms: Mapping[str, Sequence[Record]], records: Mapping[str, Record]
) -> Block:
    cells = {
        arm: {
            (run.params.pair, name): (run, name)
            for run in runs
            for name in run.params.representations
        }
        for arm, runs in arms.items()
    }
    first = next(iter(cells.values()))
    cells[BEFORE] = {
        cell: (parent_of(run, name, records), name) for cell, (run, name) in first.items()
    }
    runs = [run for run, _ in first.values()]
    machines = {run.params.pair: run for run in records.values() if _judges_machines(run, runs[0])}
    if set(machines) == {run.params.pair for run in runs}:
        heads = {
            (pair, name): (machines[pair], f"{SUPPORT_VECTORS}_{name}") for pair, name in first
        }
        cells[MACHINES] = heads
    right = {arm: {cell: _right(*of) for cell, of in each.items()} for arm, each in cells.items()}
    return Block(fold, seed, runs[0].test.groups, right)


def _judges_machines(run: Record, beside: Record) -> bool:
    """Tell whether a run has the baselines on the test clips and the spectrograms of another."""
    is_theirs = run.provenance.kind == BASELINES and run.test.digest == beside.test.digest
    return is_theirs and run.params.hop_length == beside.params.hop_length


def parent_of(run: Record, name: str, records: Mapping[str, Record]) -> Record:
    """Return the pretrained branch of a representation that a pair began with."""
    parents = (records[parent] for parent in run.provenance.parents)
    return next(parent for parent in parents if parent.params.representations == (name,))


def _right(run: Record, head: str) -> np.ndarray:
    return run.scores[head].argmax(1) == run.test.targets


def answering(found: Sequence[Block], *arms: str) -> list[Block]:
    """Return the blocks that have all of these arms."""
    return [block for block in found if set(arms) <= set(block.right)]


def contrast(
    found: Sequence[Block],
    one: str,
    other: str,
    *,
    cells: Collection[Cell] = (),
    one_draw_of_seeds: bool = True,
) -> Contrast:
    """Compare two arms, or one with `BEFORE`, over the blocks that have both.

    Parameters
    ----------
    cells
        Which branches in pairs count; else all.
    one_draw_of_seeds
        As of `mean_over`.
    """
    both = answering(found, one, other)
    return mean_over(
        both,
        lambda block: block.share(one, cells) - block.share(other, cells),
        one_draw_of_seeds=one_draw_of_seeds,
    )


def mean_over(
    found: Sequence[Block], share: Callable[[Block], np.ndarray], *, one_draw_of_seeds: bool = True
) -> Contrast:
    """Return the mean over clips, seeds and folds of a number (n,) for each clip of a block.

    Parameters
    ----------
    one_draw_of_seeds
        For all folds, as the protocol has it; else each fold draws its own.
    """
    folds = sorted({block.fold for block in found})
    by_fold = [[block for block in found if block.fold == fold] for fold in folds]
    # Drawn once, so that where folds have the same seeds all draw the same of them.
    rng, size = np.random.default_rng(0), (N_RESAMPLES, max(map(len, by_fold)))
    luck = [rng.random(size)] * len(folds) if one_draw_of_seeds else rng.random((len(folds), *size))
    parts = [
        _one_fold(100 * np.array([share(b) for b in part]), part[0], drawn[:, : len(part)])
        for part, drawn in zip(by_fold, luck, strict=True)
    ]
    points, drawn, n_recordings = zip(*parts, strict=True)
    n_clips, n_seeds = sum(len(part[0].groups) for part in by_fold), max(map(len, by_fold))
    counts = {"fold": len(folds), "clip": n_clips, "seed": n_seeds, "block": len(found)}
    on = ", ".join(f"{n:,d} {what}{'s' * (n > 1)}" for what, n in counts.items())
    return Contrast(float(np.mean(points)), np.mean(drawn, axis=0), sum(n_recordings), on)


def _one_fold(
    differences: np.ndarray, block: Block, luck: np.ndarray
) -> tuple[float, np.ndarray, int]:
    """Return points, those of each resample, and the number of recordings of one fold.

    Parameters
    ----------
    differences
        (seeds, n) of each clip, in percent or points.
    block
        One of the fold's.
    luck
        (N_RESAMPLES, seeds) in [0, 1), which draws seeds.
    """
    _, recording = np.unique(block.groups, return_inverse=True)
    n_clips = np.bincount(recording)
    sums = np.array([np.bincount(recording, weights=row) for row in differences])  # (seeds, R)
    n = len(n_clips)
    draws = _drawn(block.fold, n)
    by_seed = (draws @ sums.T) / (draws @ n_clips)[:, None]  # (N_RESAMPLES, seeds)
    seeds = (luck * len(differences)).astype(int)
    return differences.mean(), np.take_along_axis(by_seed, seeds, axis=1).mean(axis=1), n


@lru_cache(maxsize=8)
def _drawn(fold: int, n: int) -> np.ndarray:
    """(N_RESAMPLES, n) how often each of n recordings is drawn: for every contrast the same."""
    rng = np.random.default_rng(fold)
    return rng.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES).astype(np.uint16)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Correct p-values for their number, by Holm's step-down method (1979).

    >>> holm({"a": 0.02, "b": 0.01, "c": 0.9})
    {'b': 0.03, 'a': 0.04, 'c': 0.9}
    """
    corrected, reached = {}, 0.0
    for rank, name in enumerate(sorted(p, key=p.get)):
        reached = max(reached, min(1.0, (len(p) - rank) * p[name]))
        corrected[name] = reached
    return corrected


def endpoint(found: Sequence[Block]) -> list[dict[str, Any]]:
    """Return a table's row on the endpoint, none where no block has both arms."""
    if not answering(found, "chosen", "none"):
        return []
    seen = contrast(found, "chosen", "none")
    row = _row("Distilled less the same without a teacher", seen, N_BLOCKS)
    return [row | {"Verdict": seen.verdict}]


def secondary(pretrained: Sequence[Block], scratch: Sequence[Block]) -> list[dict[str, Any]]:
    """Return a table's rows on the secondary questions that have blocks with both arms."""
    asked = {
        "Chosen less equal training": (pretrained, "chosen", "equal"),
        "Chosen less the branches before": (pretrained, "chosen", BEFORE),
        "The paper's less lambda 0": (pretrained, "paper", "none"),
        FROM_SCRATCH: (scratch, "chosen", "none"),
    }
    seen = {what: contrast(*asks) for what, asks in asked.items() if answering(*asks)}
    # All four are counted from the first, so that no verdict weakens when others come in.
    p = holm({what: seen[what].p if what in seen else 1.0 for what in asked})
    return [
        _row(what, one, N_BLOCKS_SCRATCH if what == FROM_SCRATCH else N_BLOCKS)
        | {"p (Holm)": f"{p[what]:.3f}", "Verdict": _side(one, p[what])}
        for what, one in seen.items()
    ]


def _side(seen: Contrast, p: float) -> str:
    return "open" if p >= LEVEL else "gain" if seen.points > 0 else "loss"


def _row(what: str, seen: Contrast, n_blocks: int) -> dict[str, Any]:
    points, ends = seen.told
    values = {"Points": points, "95 % interval": ends}
    return {"Difference": what, **values, "On": f"{seen.on} of {n_blocks}"}


def picture(found: Sequence[Block]) -> figures.plt.Figure:
    """Show the endpoint: what each arm has, beside the machines, and what the teacher adds."""
    labels = {
        MACHINES: "support vector machine",
        BEFORE: "branch, pretrained",
        "none": "trained on beside the fused\nclassifier, no teacher",
        "chosen": "the same, and distilled",
    }
    both = answering(found, "chosen", "none")
    arms = [arm for arm in labels if len(answering(both, arm)) == len(both)]
    settings = {"figsize": (5.6, 3.8), "height_ratios": (2, 1), "layout": "constrained"}
    figure, (levels, difference) = figures.plt.subplots(2, 1, **settings)
    for y, arm in enumerate(arms[::-1]):
        level = mean_over(both, lambda block, arm=arm: block.share(arm))
        colour = figures.BASELINE if arm == MACHINES else "black"
        levels.plot(level.ends, [y, y], color=colour, alpha=0.5)
        levels.plot(level.points, y, "s" if arm == MACHINES else "o", color=colour)
    levels.set_yticks(range(len(arms)), [labels[arm] for arm in arms[::-1]])
    levels.set(xlabel="accuracy in %", ylim=(-0.6, len(arms) - 0.4))
    seen = contrast(both, "chosen", "none")
    difference.axvspan(0, WORTH_HAVING, color="0.93")
    difference.axvline(0, ymax=0.5, color="0.4", ls=":")
    difference.plot(seen.ends, [0, 0], color="black")
    difference.plot(seen.points, 0, "D", color="black")
    difference.annotate(
        str(seen), (seen.points, 0), (0, 10), textcoords="offset points", ha="center"
    )
    told = f"points that the teacher adds · {len(both)} of {N_BLOCKS} blocks"
    difference.set(yticks=[], ylim=(-1, 1.4), xlabel=told)
    figures.sns.despine(ax=levels)
    figures.sns.despine(ax=difference, left=True)
    return figure


def read_records(reference: Path = REFERENCE) -> dict[str, Record]:
    """Return the committed runs of the study by name.

    Beside those under ``reference/study`` stand the sample's, in ``reference`` itself: the branches
    that all arms begin with, the baselines, and with the paper's distillation the pairs of seed 0.
    """
    found = (run for root in (reference, reference / "study") for run in find_records(root)[0])
    return {run.name: run for run in found}


def blocks_of(trunk: str, reference: Path = REFERENCE) -> list[Block]:
    """Return the blocks of the committed runs."""
    return blocks(trunk, read_records(reference))
