"""Checks of the exercises: one call answers with a sentence, whatever a reader has written."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from fusionkd_book import study
from fusionkd_lib import losses, metrics


class Exercise(NamedTuple):
    """What is right, a hint, and the arguments that a function is tried on."""

    right: Any  # a value, or a function that is known to be right
    hint: str
    tries: tuple[tuple[Any, ...], ...] = ()


def check(number: str, answer: Any) -> Markdown:
    """Say whether the answer to an exercise is right; if it is not, give a hint.

    Parameters
    ----------
    number
        Chapter and exercise, such as ``"3.1"``.
    answer
        A value or a function, as the exercise asks; ``...`` stands for one not yet written.

    Examples
    --------
    >>> check("3.2", ...).data
    '**Exercise 3.2: not yet.** Put lines of your own in place of the dots.'
    """
    fault = _fault(EXERCISES[number], answer)
    return Markdown(f"**Exercise {number}: {f'not yet.** {fault}' if fault else 'right.**'}")


def _fault(exercise: Exercise, answer: Any) -> str | None:
    for arguments in exercise.tries or [()]:
        try:
            given = answer(*arguments) if callable(answer) else answer
            if given is None or given is ...:
                return "Put lines of your own in place of the dots."
            right = exercise.right(*arguments) if arguments else exercise.right
            if not _equal(given, right):
                return exercise.hint
        except Exception as error:  # whatever a reader's lines raise is told in a sentence
            return f"It stops with {type(error).__name__}: {error}."
    return None


def _equal(given: Any, right: Any) -> bool:
    given, right = (np.asarray(torch.as_tensor(x).detach(), float) for x in (given, right))
    return given.shape == right.shape and np.allclose(given, right, atol=1e-4)


def _in_two_folds(recordings: np.ndarray, folds: np.ndarray) -> int:
    pairs = np.unique(np.stack([recordings, folds]), axis=1)
    return int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())


def _paired(one: np.ndarray, other: np.ndarray, recording: np.ndarray, drawn: list[int]) -> float:
    times = np.array([drawn.count(name) for name in recording])
    return 100 * float((times * (one.astype(int) - other)).sum() / times.sum())


_ONE, _TWO, _SHARES = (
    torch.tensor([[2.0, 0.0, -1.0], [0.5, -0.5, 1.5]]),
    torch.tensor([[3.0, 1.0, -2.0], [-1.0, 0.5, 2.0]]),
    torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5]]),
)
_HITS, _RECORDINGS = np.array([True, True, False, True, True]), np.array([3, 3, 5, 7, 7])
EXERCISES = {
    "0.1": Exercise(
        metrics.accuracy,
        "`scores.argmax(axis=1)` is the class that each clip is given.",
        ((np.array([0, 1, 2, 2]), np.eye(3)[[0, 2, 2, 2]]), (np.array([1]), np.eye(2)[:1])),
    ),
    "1.1": Exercise(
        _in_two_folds,
        "Group the folds by recording, and count the recordings that have more than one.",
        ((np.array([7, 7, 8, 8, 9]), np.array([1, 2, 1, 1, 3])), (np.arange(3), np.ones(3))),
    ),
    "2.1": Exercise(
        lambda decibels, factor: decibels + 20 * np.log10(factor),
        "Power goes with the square of the amplitude: `10 log10` of a square is `20 log10`.",
        ((np.array([-60.0, -20.0]), 0.5), (np.array([-30.0]), 10.0)),
    ),
    "3.1": Exercise(
        partial(losses.classification_loss, multi_label=False),
        "Weight the logarithms with the shares, sum over classes, and average over clips.",
        ((_ONE, _SHARES), (_TWO, _SHARES)),
    ),
    "3.2": Exercise(0.125, "The points are (0, 1), one for each threshold, 1 and 0.5, and (1, 0)."),
    "3.3": Exercise(
        lambda n_in, n_out, expansion: expansion * n_in * (n_in + 9 + n_out),
        "Three terms: 1 x 1 to the wide map, 3 x 3 on each channel alone, 1 x 1 to `n_out`.",
        ((24, 24, 6), (16, 24, 6), (96, 160, 3)),
    ),
    "4.1": Exercise(
        lambda student, teacher: 2 * (student - teacher) / student.numel(),
        "The derivative of a square is twice its base; the mean divides by B and by K.",
        ((_ONE, _TWO), (_TWO[:1], _ONE[:1])),
    ),
    "4.2": Exercise(
        [1 / 6, 1 / 3, 1 / 3, 1 / 6],
        "Each of three pooled rows is the mean of two neighbours: which rows are in two of them?",
    ),
    "4.3": Exercise(
        lambda one, other, t: losses.distillation_loss(one, other, kind="kl", temperature=t),
        "The teacher's probabilities weight the differences of the two `log_softmax(dim=1)`.",
        ((_ONE, _TWO, 1.0), (_ONE, _TWO, 4.0)),
    ),
    "5.1": Exercise(
        _paired,
        "A recording that is drawn twice brings all of its clips twice, and one that is not, none.",
        ((_HITS, ~_HITS[::-1], _RECORDINGS, [3, 3, 7]), (_HITS, _HITS, _RECORDINGS, [5])),
    ),
    "5.2": Exercise(1600, "Half the width needs more than twice the recordings: think of a root."),
    "6.1": Exercise(
        lambda p: [study.holm(dict(enumerate(p)))[i] for i in range(len(p))],
        "Sort, multiply by n, n - 1, ..., let none fall below the one before, and put them back.",
        (([0.03, 0.01, 0.9],), ([0.01, 0.02, 0.021, 0.4],)),
    ),
    "6.2": Exercise(
        [0.5, 1.25], "The first is a mean of two numbers; in the second each clip has a vote."
    ),
    "7.1": Exercise(
        lambda x, s, z: np.clip(np.round(x / s) + z, 0, 255),
        "Divide by the scale, round, add the zero point; nothing falls below 0 or above 255.",
        ((np.array([-3.0, 0.1, 0.26, 40.0]), 0.1, 20), (np.array([0.0, 1.0, -0.04]), 0.02, 1)),
    ),
    "7.2": Exercise(
        [5 / 255, 51],
        "The scale is the width over 255 steps; the zero point is the step at which 0 lies.",
    ),
    "7.3": Exercise(
        lambda watt_hours, watts, milliseconds, window: (
            watt_hours / (watts * milliseconds / 1000 / window) / 24
        ),
        "The core computes for `milliseconds / 1000 / window` of the time; a day has 24 hours.",
        ((10.0, 0.5, 20.0, 2.0), (3.0, 1.0, 500.0, 4.0)),
    ),
    "8.1": Exercise(
        lambda recordings, n_folds: pd.factorize(recordings)[0] % n_folds + 1,
        "Number the recordings as they appear, 0, 1, ...; the remainder by `n_folds`, plus 1.",
        ((np.array([7, 7, 3, 7, 9, 3, 1]), 3), (np.array([4, 4, 2]), 5)),
    ),
    "8.2": Exercise(246, "Solve the formula for n, with 0.05 for the half width, and round up."),
}
