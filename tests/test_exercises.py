"""Exercises: right answers pass, wrong ones get a hint, and nothing written is an error."""

import itertools
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from torch.nn import functional as F

from fusionkd_book import publish
from fusionkd_book.exercises import EXERCISES, check
from fusionkd_lib.torchvision_import import classification_models

EXECUTED = Path(__file__).parents[1] / "outputs" / "executed"
CHECK = re.compile(r'exercises\.check\(\s*"([\d.]+)"')


def gradient(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    student = student.clone().requires_grad_()
    return torch.autograd.grad(F.mse_loss(student, teacher), student)[0]


def hinton(student: torch.Tensor, teacher: torch.Tensor, degrees: float) -> torch.Tensor:
    one, other = (torch.distributions.Categorical(logits=x / degrees) for x in (teacher, student))
    return degrees**2 * torch.distributions.kl_divergence(one, other).mean()


def n_weights(n_in: int, n_out: int, expansion: int) -> int:
    block = classification_models().mobilenetv2.InvertedResidual(n_in, n_out, 1, expansion)
    return sum(x.weight.numel() for x in block.modules() if isinstance(x, torch.nn.Conv2d))


def in_two_folds(recordings: np.ndarray, folds: np.ndarray) -> int:
    pairs = set(zip(recordings.tolist(), folds.tolist(), strict=True))
    return len(pairs) - len(set(recordings.tolist()))  # of recordings in at most two folds


def days(watt_hours: float, watts: float, milliseconds: float, window: float) -> float:
    """Through the energy of one window, in joules, and the windows of a day."""
    of_a_day = watts * milliseconds / 1000 * 24 * 3600 / window
    return watt_hours * 3600 / of_a_day


def folds_of(recordings: np.ndarray, n_folds: int) -> list[int]:
    order = list(dict.fromkeys(recordings.tolist()))
    folds = itertools.cycle(range(1, n_folds + 1))
    of_recording = dict(zip(order, folds, strict=False))
    return [of_recording[name] for name in recordings.tolist()]


def holm(p: list[float]) -> list[float]:
    """By its definition: the largest step among the p-values that are not above one's own."""
    ranks = {i: sum(other < x for other in p) for i, x in enumerate(p)}
    steps = [(len(p) - ranks[i]) * x for i, x in enumerate(p)]
    return [min(1, max(s for s, y in zip(steps, p, strict=True) if y <= x)) for x in p]


# Answers by another way than the book's.
RIGHT = {
    "0.1": lambda targets, scores: accuracy_score(targets, scores.argmax(axis=1)),
    "1.1": in_two_folds,
    "2.1": lambda decibels, factor: 10 * np.log10(10 ** (decibels / 10) * factor**2),
    "3.1": F.cross_entropy,
    "3.2": 1 / 2 * 1 / 4,  # a triangle from (0, 0) to (1, 1/4)
    "3.3": n_weights,
    "4.1": gradient,
    "4.2": np.convolve([1, 1, 1], [1, 1]) / 6,
    "4.3": hinton,
    "5.1": lambda one, other, recording, drawn: (
        100 * np.concatenate([(one * 1.0 - other)[recording == name] for name in drawn]).mean()
    ),
    "5.2": 2 * 2 * 400,
    "6.1": holm,
    "6.2": np.average([[2, -1]] * 2, axis=1, weights=[[1, 1], [900, 300]]),
    "7.1": lambda x, s, z: [sum(value / s + z >= edge + 0.5 for edge in range(255)) for value in x],
    "7.2": [np.ptp([-1, 4]) / 255, np.interp(0, np.linspace(-1, 4, 256), np.arange(256))],
    "7.3": days,
    "8.1": folds_of,
    "8.2": next(n for n in itertools.count(1) if 1.96 * np.sqrt(0.16 / n) <= 0.05),
}


def told(number: str, answer: object) -> str:
    return check(number, answer).data


@pytest.mark.parametrize("number", EXERCISES)
def test_a_right_answer_is_right(number):
    assert told(number, RIGHT[number]) == f"**Exercise {number}: right.**"


@pytest.mark.parametrize("number", EXERCISES)
@pytest.mark.parametrize("empty", [..., None, lambda *arguments: None], ids=["dots", "none", "no"])
def test_an_answer_that_is_not_written_yet_is_no_error(number, empty):
    assert told(number, empty).startswith(f"**Exercise {number}: not yet.** Put lines of your own")


@pytest.mark.parametrize("number", EXERCISES)
def test_a_wrong_answer_gets_the_hint_of_its_exercise(number):
    def wrong(*arguments):
        return 1e3 + np.asarray(RIGHT[number](*arguments) if arguments else RIGHT[number])

    answer = wrong if callable(RIGHT[number]) else wrong()
    assert told(number, answer) == f"**Exercise {number}: not yet.** {EXERCISES[number].hint}"


def test_an_answer_of_another_shape_is_wrong_even_if_it_would_broadcast():
    spread = told("3.1", lambda logits, shares: F.cross_entropy(logits, shares).expand(2))
    assert spread.endswith(EXERCISES["3.1"].hint)


def test_lines_that_stop_are_told_in_a_sentence():
    assert told("2.1", lambda decibels, factor: len(factor)).startswith(
        "**Exercise 2.1: not yet.** It stops with TypeError: "
    )
    assert "TypeError" in told("3.3", lambda n_in: n_in)  # too few parameters
    assert "not yet" in told("4.2", "a sixth")


@pytest.mark.parametrize("name", [n for n in publish.chapters() if re.match(r"0\d_", n)])
def test_each_exercise_of_a_chapter_is_executed_unsolved_and_then_solved(name):
    cells = [
        (match[1], cell)
        for cell in nbformat.read(EXECUTED / f"{name}.ipynb", as_version=4).cells
        if cell.cell_type == "code" and (match := CHECK.search(cell.source))
    ]
    by_number = {
        n: [cell for _, cell in group] for n, group in itertools.groupby(cells, lambda x: x[0])
    }
    chapter = str(int(name[:2]))
    assert list(by_number) == [n for n in EXERCISES if n.split(".")[0] == chapter]
    for unsolved, solved in by_number.values():
        answers = [cell.outputs[0].data["text/markdown"] for cell in (unsolved, solved)]
        assert ["not yet" in answers[0], "right" in answers[1]] == [True, True]
        assert "..." in unsolved.source
        assert solved.metadata["jupyter"] == {"source_hidden": True}
        assert "hide-input" in solved.metadata["tags"]
