"""Training, validation and test clips of a run: official folds, no recording on two sides.

The test clips are the dataset's own: a fold of UrbanSound8K or of urban synth, the ``validate``
split of SONYC-UST. Nothing is ever chosen on them.
"""

from dataclasses import dataclass

import numpy as np

from fusionkd_lib.datasets.clips import Clips
from fusionkd_lib.errors import InputError
from fusionkd_lib.params import Params


@dataclass(frozen=True)
class Split:
    """Row numbers of a clip table, sorted: what is trained on, selected on, reported on."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    n_dropped: int = 0  # training clips left out, since their recording is also in the test fold


def make_split(clips: Clips, params: Params) -> Split:
    """Split a clip table as the parameters say.

    Raises
    ------
    InputError
        Where the table has no clip of the test fold, or too few for training.

    Source: section IV-A (official folds) and our reading of what it leaves open.
    """
    folds, groups = clips.table["fold"].to_numpy(), clips.table["group"].to_numpy()
    test_fold = "validate" if "validate" in folds else params.fold
    test = folds == test_fold
    if not test.any():
        present = ", ".join(map(str, sorted(set(folds))))
        raise InputError(
            f"fold = {test_fold}: no clip of {clips.dataset} here is in it ({present})"
        )
    leaked = ~test & np.isin(groups, groups[test])
    rest = ~test & ~leaked if params.drop_leaked else ~test
    validation = _validation(clips, rest, params)
    if (rest & ~validation).sum() < 2:
        raise InputError(f"{clips.dataset} has too few clips outside fold {test_fold} to train on")
    if params.validation != "none" and not validation.any():
        raise InputError(
            f"validation = {params.validation}: {clips.dataset} has no recording to spare outside "
            f"fold {test_fold}: use validation: none"
        )
    return Split(
        train=np.flatnonzero(rest & ~validation),
        validation=np.flatnonzero(validation),
        test=np.flatnonzero(test),
        n_dropped=int(leaked.sum()) if params.drop_leaked else 0,
    )


def _validation(clips: Clips, rest: np.ndarray, params: Params) -> np.ndarray:
    folds, groups = clips.table["fold"].to_numpy(), clips.table["group"].to_numpy()
    if params.validation == "none":
        return np.zeros_like(rest)
    others = sorted(set(folds[rest]))
    if params.validation == "next_fold" and len(others) > 1:
        following = [fold for fold in others if fold > params.fold] or others
        validation = rest & (folds == following[0])
        # A recording in both would be trained on and selected on.
        return rest & np.isin(groups, groups[validation])
    return _held_out(clips, rest, params)


def _held_out(clips: Clips, rest: np.ndarray, params: Params) -> np.ndarray:
    """Draw whole groups at random, of each class its share where a clip has one class.

    A few recordings drawn blindly can miss a class, and then select for the others alone.
    """
    groups = clips.table["group"].to_numpy()
    classes = np.zeros(len(clips)) if clips.multi_label else clips.targets
    generator = np.random.default_rng(params.seed)
    held_out: list[str] = []
    for label in np.unique(classes[rest]):
        free = groups[rest & (classes == label) & ~np.isin(groups, held_out)]
        held_out += _draw_groups(free, params.val_fraction, generator)
    return rest & np.isin(groups, held_out)


def _draw_groups(groups: np.ndarray, share: float, generator: np.random.Generator) -> list[str]:
    """Draw groups that hold at most the share of the rows, but one at least and not all."""
    names, counts = np.unique(groups, return_counts=True)
    if len(names) < 2:
        return []
    room, drawn = share * counts.sum(), []
    for index in generator.permutation(len(names)):
        if counts[index] <= room:
            drawn.append(names[index])
            room -= counts[index]
    return drawn or [names[counts.argmin()]]
