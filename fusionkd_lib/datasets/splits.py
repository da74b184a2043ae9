"""Training, validation and test clips of a run: official folds, no recording on two sides.

The test clips are the dataset's own: a fold of UrbanSound8K or of urban synth, the ``validate``
split of SONYC-UST. Nothing is ever chosen on them.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from fusionkd_lib.datasets.clips import Clips
from fusionkd_lib.errors import InputError


@dataclass(frozen=True)
class Split:
    """Sorted row numbers of a clip table for training, selection and reporting."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    n_dropped: int = 0  # training clips left out, since their recording is also in the test fold


def make_split(
    clips: Clips,
    *,
    fold: int,
    train_folds: Collection[int] | None = None,
    validation: str = "next_fold",
    val_fraction: float = 0.1,
    drop_leaked: bool = True,
    seed: int = 0,
) -> Split:
    """Split a clip table.

    Parameters
    ----------
    fold
        The test fold; a dataset with a ``validate`` split tests on that instead.
    train_folds
        Folds for training and validation, without the test fold; None: all others.
    validation
        ``"next_fold"`` (wrapping), ``"grouped"`` (a share of the training clips, in whole
        recordings) or ``"none"``.
    val_fraction
        That share, in (0, 1).
    drop_leaked
        Whether clips whose recording is also in the test fold are left out of training.
    seed
        Decides which recordings are drawn.

    Raises
    ------
    InputError
        If the table has no clip of a requested fold, or too few for training.

    Source: section IV-A (official folds) and our reading of the rest.
    """
    folds, groups = clips.table["fold"].to_numpy(), clips.table["group"].to_numpy()
    test_fold = "validate" if "validate" in folds else fold
    present = sorted(set(folds))
    for wanted in (test_fold, *(train_folds or ())):
        if wanted not in present:
            there = f"{clips.dataset} here has clips of {', '.join(map(str, present))} alone"
            raise InputError(f"fold or train_folds = {wanted}: {there}")
    test = folds == test_fold
    others = ~test & (np.isin(folds, list(train_folds)) if train_folds else True)
    leaked = others & np.isin(groups, groups[test]) & drop_leaked
    rest = others & ~leaked
    if validation == "none":
        held_out = np.zeros_like(rest)
    elif validation == "next_fold" and len(set(folds[rest])) > 1:
        held_out = _next_fold(clips, rest, test_fold)
    else:
        held_out = _grouped(clips, rest, val_fraction, seed)
    if (rest & ~held_out).sum() < 2:
        raise InputError(f"{clips.dataset} has too few clips outside fold {test_fold} to train on")
    if validation != "none" and not held_out.any():
        lacking = f"{clips.dataset} has no recording to spare outside fold {test_fold}"
        raise InputError(f"validation = {validation}: {lacking}: use validation: none")
    train, held_out, test = (np.flatnonzero(part) for part in (rest & ~held_out, held_out, test))
    return Split(train, held_out, test, n_dropped=int(leaked.sum()))


def _next_fold(clips: Clips, rest: np.ndarray, test_fold: int) -> np.ndarray:
    folds, groups = clips.table["fold"].to_numpy(), clips.table["group"].to_numpy()
    others = sorted(set(folds[rest]))
    following = next((fold for fold in others if fold > test_fold), others[0])
    # A recording in both would be trained on and selected on.
    return rest & np.isin(groups, groups[rest & (folds == following)])


def _grouped(clips: Clips, rest: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Draw whole groups at random; in a single-label task, the same share of every class.

    A few recordings drawn blindly can miss a class, and selection would then ignore it.
    """
    generator, groups = np.random.default_rng(seed), clips.table["group"].to_numpy()
    classes = np.zeros(len(clips)) if clips.multi_label else clips.targets
    held_out: list[str] = []
    for label in np.unique(classes[rest]):
        free = groups[rest & (classes == label) & ~np.isin(groups, held_out)]
        held_out += _draw_groups(free, share, generator)
    return rest & np.isin(groups, held_out)


def _draw_groups(groups: np.ndarray, share: float, generator: np.random.Generator) -> list[str]:
    """Draw groups with at most the given share of the rows, but at least one and never all."""
    names, counts = np.unique(groups, return_counts=True)
    if len(names) < 2:
        return []
    room, drawn = share * counts.sum(), []
    for index in generator.permutation(len(names)):
        if counts[index] <= room:
            drawn.append(names[index])
            room -= counts[index]
    return drawn or [names[counts.argmin()]]
