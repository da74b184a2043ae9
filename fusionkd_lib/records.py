"""What a finished run leaves behind, and the one reader of it, which takes nothing on trust.

A record is a folder of five files and ``complete.json``, which is written last and holds the format
version and the digest of every other file. Scores are stored in float32, as the metrics were
computed from them, so that a record proves itself: the reader computes them again. (Half of that
precision would tie the highest scores, which moved the official AUPRC by up to a point.) The names,
recordings and targets of the test clips are stored once per test set, in ``test-clips/`` beside the
runs. Weights and notebook are no part of the record.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from fusionkd_lib import metrics as official
from fusionkd_lib.catalogue import DATASETS, FUSED, baselines_of
from fusionkd_lib.errors import InputError, seen
from fusionkd_lib.params import Params, make_params
from fusionkd_lib.reading import MOST_BYTES, parse_csv, parse_json, parse_yaml, read_bytes
from fusionkd_lib.storage import file_digest, replacing

VERSION = 1
COMPLETE = "complete.json"
FILES = ("params.yaml", "history.csv", "scores.npz", "metrics.json", "provenance.json")
TEST_CLIPS = "test-clips"
MOST_BYTES_OF_WEIGHTS = 2**30  # those of a fused pair at width 1 have 65 MiB
TOLERANCE = 1e-9  # of a metric that is computed again

STRICT = {"frozen": True, "extra": "forbid", "strict": True, "allow_inf_nan": False}
Count = Annotated[int, Field(ge=0)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# On one line, and nothing that a terminal obeys.
Text = Annotated[str, Field(pattern=r"^[^\p{C}\p{Zl}\p{Zp}]*$")]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
# Classifier -> metric -> an average, or a value per class, None for one that has no clips.
METRICS = TypeAdapter(dict[str, dict[str, Share | list[Share | None]]])


class Complete(BaseModel, **STRICT):
    """What is written last: the version of the format and the digest of every other file."""

    version: Literal[1]
    files: dict[str, Digest]


class Provenance(BaseModel, **STRICT):
    """Where a run comes from: its kind, data, machine and parents."""

    kind: Literal["branch", "fusion", "baselines"]
    metric: Literal["accuracy", "micro_auprc"]
    dataset: Text
    data: Text  # fingerprint of the clip table and its sounds
    data_status: Literal["real", "partial", "stand-in", "synthetic"]
    data_note: Text
    classes: Annotated[tuple[Text, ...], Field(min_length=2, strict=False)]
    n_train: Count
    n_validation: Count
    n_test: Count
    n_dropped: Count
    test_clips: Digest
    parents: dict[Text, Digest]  # run -> digest of its complete.json
    selected_epoch: dict[str, Annotated[int, Field(ge=1)]]
    device: Text
    processor: Text
    peak_mebibytes: Annotated[float, Field(ge=0)]
    started: Text
    training_seconds: Annotated[float, Field(ge=0)]
    commit: Text
    versions: dict[Text, Text]


@dataclass(frozen=True, eq=False)
class TestClips:
    """The test clips of a fold: what every run on it is judged by.

    Parameters
    ----------
    clips, groups
        (n,) names of the clips and of their recordings or sensors.
    targets
        (n,) class indices, or (n, K) in [0, 1], NaN where not annotated.
    """

    __test__ = False  # no test of pytest's

    clips: np.ndarray
    groups: np.ndarray
    targets: np.ndarray

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        text = json.dumps([self.clips.tolist(), self.groups.tolist(), self.targets.dtype.str])
        return hashlib.sha256(text.encode() + self.targets.tobytes()).hexdigest()

    def write(self, root: Path) -> str:
        """Store them below a folder of runs, once for all that share them; return the digest."""
        # Written even where they are there: that mends a damaged file.
        write_arrays(root / TEST_CLIPS / f"{self.digest}.npz", vars(self))
        return self.digest


@dataclass(frozen=True, eq=False)
class Record:
    """A finished run as it was read and checked.

    Parameters
    ----------
    folder
        Its name is the run's.
    history
        One row per epoch: the learning rate, every loss term, the validation losses.
    scores
        Classifier -> (n, K) in [0, 1] of the test clips.
    test
        The clips that it was tested on.
    metrics
        Classifier -> its metrics on the test clips, and the thresholds of its tags.
    """

    folder: Path
    params: Params
    history: pd.DataFrame
    scores: Mapping[str, np.ndarray]
    test: TestClips
    metrics: Mapping[str, Mapping[str, Any]]
    provenance: Provenance

    @property
    def name(self) -> str:
        """The folder's name, which is the run's."""
        return self.folder.name

    @property
    def digest(self) -> str:
        """Digest of ``complete.json``, by which other runs name this one as a parent."""
        return file_digest(self.folder / COMPLETE)

    def score(self, head: str) -> float:
        """Return the official metric, in [0, 1], of a classifier."""
        return self.metrics[head][self.provenance.metric]

    def weights(self, head: str) -> dict[str, torch.Tensor]:
        """Return the weights of a classifier: a branch, or ``fused`` for the whole network.

        Raises
        ------
        InputError
            Where they are missing or changed since the run.
        """
        path, digests = self.folder / f"{head}.safetensors", _digests(self.folder)
        return _read(path, safetensors.torch.load, digests=digests, most=MOST_BYTES_OF_WEIGHTS)


def read_record(folder: Path) -> Record:
    """Read a record and check it: format, digests, types, shapes, ranges, and the metrics anew.

    Raises
    ------
    InputError
        Naming the file and its fault.
    """
    digests = _digests(folder)

    def read(name: str, parse: Callable, *known: Any) -> Any:
        return _read(folder / name, parse, *known, digests=digests)

    params = read("params.yaml", lambda content: make_params(parse_yaml(content)))
    provenance = read("provenance.json", _provenance, params)
    # Beside the runs; written so, a fault names the run too.
    clips = f"{provenance.test_clips}.npz"
    test = _read(folder / ".." / TEST_CLIPS / clips, _test_clips, provenance)
    scores = read("scores.npz", _scores, params, provenance)
    metrics = read("metrics.json", _metrics, scores, test, provenance)
    history = read("history.csv", _history, params, provenance)
    return Record(folder, params, history, scores, test, metrics, provenance)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as one compressed file, atomically."""
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **arrays)


def _digests(folder: Path) -> dict[str, str]:
    """Return the digests that a run's files had when it ended."""
    if not (folder / COMPLETE).exists():
        raise InputError(f"{folder}: this run is not finished: start it again")
    return _read(folder / COMPLETE, lambda content: Complete(**parse_json(content))).files


def _read(
    path: Path, parse: Callable, *known: Any, digests: dict | None = None, most: int = MOST_BYTES
) -> Any:
    """Read a file whole, compare it with its digest, and parse it by what is known."""
    fault, remedy = (
        "missing or changed since its run",
        "delete the run's folder, and it is done again",
    )
    if path.is_file():
        content = read_bytes(path, remedy=remedy, most=most)
        if digests is None or hashlib.sha256(content).hexdigest() == digests.get(path.name):
            try:
                return parse(content, *known)
            except Exception as error:  # whatever a library finds wrong, the way out is one
                fault = f"cannot be read ({_reason(error)})"
    raise InputError(f"{path}: {fault}: {remedy}")


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = max(error.errors(), key=lambda problem: len(problem["loc"]))
        error = f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return seen(" ".join(str(error).split()) or type(error).__name__)


def _require(is_so: bool, fault: str) -> None:
    if not is_so:
        raise ValueError(fault)


def _provenance(content: bytes, params: Params) -> Provenance:
    """Read where a run comes from; its parameters must say the same."""
    found, dataset = Provenance(**parse_json(content)), DATASETS[params.dataset]
    n_branches, is_made = len(params.representations), dataset.folder is None
    kinds = ("baselines", "branch" if n_branches == 1 else "fusion")
    _require(found.kind in kinds, "its parameters are of another kind")
    _require(params.shortcuts != "all", "its parameters do not name the shortcuts")
    _require(found.dataset.startswith(dataset.title), "its parameters are of another dataset")
    _require((found.data_status == "synthetic") == is_made, "its data have another status")
    _require(params.data_status in (None, found.data_status), "its data have another status")
    return found


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote, and nothing that is larger or executes."""
    with np.lib.npyio.NpzFile(BytesIO(content), allow_pickle=False) as arrays:
        n_bytes = sum(entry.file_size for entry in arrays.zip.infolist())
        _require(n_bytes <= MOST_BYTES, "it unpacks to too many bytes")
        return dict(arrays)


def _test_clips(content: bytes, provenance: Provenance) -> TestClips:
    test, n, n_classes = TestClips(**_arrays(content)), provenance.n_test, len(provenance.classes)
    targets, has_tags = test.targets, provenance.metric == "micro_auprc"
    kind = ((n, n_classes), np.float32) if has_tags else ((n,), np.int64)
    _require((targets.shape, targets.dtype) == kind, "its targets are of another shape or type")
    outside = (targets < 0) | (targets > (1 if has_tags else n_classes - 1))
    _require(not outside.any() and not np.isnan(targets).all(), "its targets are no classes")
    for names in (test.clips, test.groups):
        _require(names.shape == (n,) and names.dtype.kind == "U", "its clips have no names")
    _require(test.digest == provenance.test_clips, "it has changed since its run")
    return test


def _scores(content: bytes, params: Params, provenance: Provenance) -> dict[str, np.ndarray]:
    heads = [*params.representations, *[FUSED] * (provenance.kind == "fusion")]
    heads = baselines_of(params.representations) if provenance.kind == "baselines" else heads
    shape, scores = (provenance.n_test, len(provenance.classes)), _arrays(content)
    _require(set(scores) == set(heads), f"it is not of {', '.join(heads)}")
    for head, values in scores.items():
        is_right = (values.shape, values.dtype) == (shape, np.float32)
        _require(is_right, f"{head} is {values.dtype} {values.shape}, not float32 {shape}")
        _require(((values >= 0) & (values <= 1)).all(), f"{head} has a score outside [0, 1]")
    return {head: scores[head] for head in heads}


def _metrics(content: bytes, scores: Mapping, test: TestClips, provenance: Provenance) -> dict:
    """Read the metrics, which must be those of the scores, computed again."""
    metrics = METRICS.validate_python(parse_json(content))
    _require(metrics.keys() == scores.keys(), f"it is not of {', '.join(scores)}")
    for head, values in scores.items():
        found, expected = metrics[head], official.summary(test.targets, values)
        if provenance.n_validation:  # what was chosen on those clips cannot be computed again
            expected["thresholds"] = chosen = found.get("thresholds")
            is_right = np.shape(chosen) == values.shape[1:] and None not in chosen
            _require(is_right, f"{head} has other thresholds than one per class")
        _require(found.keys() == expected.keys(), f"{head} has other metrics")
        for name, value in expected.items():
            _require(_alike(found[name], value), f"{name} of {head} is not that of its scores")
    return metrics


def _alike(*values: Any) -> bool:
    found, expected = (np.array(value, dtype=float) for value in values)
    same = np.shape(found) == np.shape(expected)
    return same and np.allclose(found, expected, rtol=0, atol=TOLERANCE, equal_nan=True)


def _history(content: bytes, params: Params, provenance: Provenance) -> pd.DataFrame:
    n_epochs = params.n_epochs(provenance.kind)
    history = parse_csv(content, dtype=float)
    _require(np.isfinite(history).all(axis=None), "it holds something else than finite numbers")
    is_whole = len(history) == n_epochs and (history["epoch"] == np.arange(1, n_epochs + 1)).all()
    _require(is_whole, f"its epochs are not 1 to {n_epochs}")
    selected = max(provenance.selected_epoch.values(), default=0)
    _require(selected <= n_epochs, "the selected epoch is not in it")
    return history.astype({"epoch": int})
