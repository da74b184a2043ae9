"""Hostile inputs: each one gives one sentence that names it and a way out, and runs nothing of it.

What the modules ``test_hostile_*`` share. Their tables read ``what it is: (how to make it, what the
sentence must say)``. An input that a command takes is handed to that command as well: exit status
1, one line on stderr, no traceback.
"""

import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from handmade import write_run
from miniature import COARSE_TAGS, FINE_TAGS

from fusionkd_lib import experiment
from fusionkd_lib.cli import main
from fusionkd_lib.errors import InputError
from fusionkd_lib.models import Normalise
from fusionkd_lib.params import make_params
from fusionkd_lib.runs import Run

FETCH, FETCH_FILE = "fetch it again", "fetch the file again"


# What is asserted


def table(cases: dict) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("make", "says"), cases.values(), ids=cases.keys())


def sentence_of(act, *arguments, **options) -> str:
    """Return the one sentence with which something is refused."""
    with pytest.raises(InputError) as caught:
        act(*arguments, **options)
    return str(caught.value)


def refused(*arguments) -> str:
    """Return the one line with which a command refuses something."""
    answer = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert isinstance(answer.exception, SystemExit), answer.exception  # not a traceback
    assert answer.exit_code == 1, answer.output
    assert answer.stderr.startswith("Error: ")
    return answer.stderr.removeprefix("Error: ").removesuffix("\n")


def check(sentence: str, *says: str) -> None:
    assert "\n" not in sentence
    assert len(sentence) < 700
    for words in says:
        assert words in sentence, sentence


class Payload:
    """What makes a folder at the moment when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def pickled(path: Path) -> bytes:
    """Pickle a payload that would make ``executed`` beside the file."""
    return pickle.dumps(Payload(path.parent / "executed"), protocol=2)  # torch's own


def assert_nothing_was_executed(folder: Path) -> None:
    assert not list(folder.rglob("executed"))


# Files that are made, or made worse


def tone(seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * 8000)) / 8000)


def holding(content: bytes):
    return lambda path: path.write_bytes(content)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def saved(value):
    return lambda path: torch.save(value(path), path)


def changed(change):
    """Make a change to a table, however it is spelled in the file."""

    def make(path: Path) -> None:
        change(pd.read_csv(path, dtype=object)).to_csv(path, index=False)

    return make


def cell(column: str, value, *, row: int = 1):
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        rows.loc[row, column] = value
        return rows

    return changed(change)


def without(column: str):
    return changed(lambda rows: rows.drop(columns=column))


def text(change):
    return lambda path: path.write_text(change(path.read_text()))


# What is handed to a command


def tiny_run(
    root: Path, *, head: tuple[int, int] = (8, 8), targets: np.ndarray | None = None
) -> Run:
    """Write a finished branch run that was never trained into a folder of runs."""
    params = make_params(
        {
            "representations": ["logmel"],
            "sample_rate": 8000,
            "duration": 0.25,
            "n_fft": 256,
            "n_mels": 32,
            "width": 0.25,
            "head": list(head),
            "epochs": 2,
        }
    )
    scores = np.array([[0.75, 0.25], [0.625, 0.375]])
    branch = experiment.build_branch(params, "logmel", scores.shape[1], Normalise())
    weights = {"logmel": branch.state_dict()}
    given = {"branch": "logmel", "weights": weights, "targets": targets}
    return write_run(root, params, {"logmel": scores}, **given)


def score(labels: Path, predictions: Path, level: str = "coarse") -> tuple:
    return (
        *("score", "sonyc-ust", "--predictions", predictions, "--level", level),
        *("--annotations", labels / "annotations.csv"),
        *("--taxonomy", labels / "dcase-ust-taxonomy.yaml"),
    )


def write_predictions(path: Path) -> Path:
    tags = dict.fromkeys([*FINE_TAGS, *COARSE_TAGS], 0.5)
    rows = pd.DataFrame({"audio_filename": ["00_000001.wav", "03_000001.wav"]} | tags)
    rows.to_csv(path, index=False)
    return path
