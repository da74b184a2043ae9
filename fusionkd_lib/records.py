"""What a finished run leaves behind, and the one reader of it, which takes nothing on trust.

A record is a folder of five files and ``complete.json``, which is written last and holds the format
version and the digest of every other file. Scores are stored in float16, and metrics are computed
from the rounded scores, so that a record proves itself: the reader computes them again. The names,
recordings and targets of the test clips are stored once per test set, in ``test-clips/`` beside the
runs. Weights and notebook are no part of the record.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from zipfile import BadZipFile, ZipFile

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from fusionkd_lib import metrics as official
from fusionkd_lib.errors import InputError
from fusionkd_lib.params import Params, make_params, read_yaml
from fusionkd_lib.storage import file_digest, replacing

T = TypeVar("T")

VERSION = 1
COMPLETE = "complete.json"
FILES = ("params.yaml", "history.csv", "scores.npz", "metrics.json", "provenance.json")
TEST_CLIPS = "test-clips"
MOST_BYTES = 2**26  # of a file, and of what it unpacks to
UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    BadZipFile,
    SafetensorError,
    RecursionError,
)
TOLERANCE = 1e-9  # of a metric that is computed again

Count = Annotated[int, Field(ge=0)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Provenance(BaseModel):
    """Where a run comes from: its kind, data, machine and parents."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["branch", "fusion"]
    metric: Literal["accuracy", "micro_auprc"]
    dataset: str
    data: str  # fingerprint of the clip table and its sounds
    data_status: Literal["real", "partial", "stand-in", "synthetic"]
    data_note: str
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    n_train: Count
    n_validation: Count
    n_test: Count
    n_dropped: Count
    test_clips: Digest
    parents: dict[str, Digest]  # run -> digest of its complete.json
    selected_epoch: dict[str, Annotated[int, Field(ge=1)]]
    device: str
    processor: str
    peak_mebibytes: Annotated[float, Field(ge=0)]
    started: str
    training_seconds: Annotated[float, Field(ge=0)]
    commit: str
    versions: dict[str, str]


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
        """Store them below a folder of runs, if they are not there yet; return the digest."""
        path = root / TEST_CLIPS / f"{self.digest}.npz"
        if not path.exists():
            write_arrays(path, vars(self))
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
        check_files(self.folder, (f"{head}.safetensors",))
        return _read(self.folder / f"{head}.safetensors", load_file)

    def copy(self, root: Path) -> Path:
        """Copy all but the weights and the notebook: enough for tables, too small to tag with."""
        target = root / self.name
        target.mkdir(parents=True, exist_ok=True)
        for name in (*FILES, COMPLETE):
            shutil.copyfile(self.folder / name, target / name)
        self.test.write(root)
        return target


def read_record(folder: Path) -> Record:
    """Read a record and check it: format, digests, types, shapes, ranges, and the metrics anew.

    Raises
    ------
    InputError
        Naming the file and its fault.
    """
    check_files(folder, FILES)
    path = folder / "params.yaml"
    params = make_params(read_yaml(path), source=str(path))
    provenance = _read(folder / "provenance.json", _provenance)
    test = read_test_clips(folder.parent, provenance.test_clips)
    scores = _read(folder / "scores.npz", read_arrays)
    metrics = _read(folder / "metrics.json", _json)
    history = _read(folder / "history.csv", pd.read_csv)
    record = Record(folder, params, history, scores, test, metrics, provenance)
    for check in (_check_scores, _check_metrics, _check_history, _check_parents):
        check(record)
    return record


def check_files(folder: Path, names: tuple[str, ...]) -> None:
    """Require that files are as they were when their run ended.

    Raises
    ------
    InputError
        Where the run is unfinished or of another format, or a file is missing or changed.
    """
    path = folder / COMPLETE
    if not path.exists():
        raise InputError(f"{folder}: this run is not finished: start it again")
    complete = _read(path, _json)
    if complete.get("version") != VERSION or not isinstance(complete.get("files"), dict):
        found = complete.get("version", "none")
        raise _fault(path, f"format version {found!r} is not {VERSION}")
    for name in names:
        file = folder / name
        if not file.is_file() or file_digest(file) != complete["files"].get(name):
            raise _fault(file, "missing or changed since its run")


def read_test_clips(root: Path, digest: str) -> TestClips:
    """Read the test clips that runs below a folder were judged by.

    Raises
    ------
    InputError
        Where they are missing or not those.
    """
    path = root / TEST_CLIPS / f"{digest}.npz"
    if not path.is_file():
        raise _fault(path, "missing: the clips that runs beside it were tested on")
    arrays = _read(path, read_arrays)
    if set(arrays) != {"clips", "groups", "targets"} or TestClips(**arrays).digest != digest:
        raise _fault(path, "changed since its runs")
    return TestClips(**arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote, floats as float32, and nothing that is larger or executes."""
    # `numpy.savez` makes a zip; `numpy.load` would take a file for whatever else it looks like.
    with ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
            raise ValueError("it unpacks to too many bytes")
    with np.load(path, allow_pickle=False) as arrays:
        return {
            name: values.astype(np.float32) if values.dtype == np.float16 else values
            for name, values in arrays.items()
        }


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as one compressed file, atomically."""
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **arrays)


def _read(path: Path, read: Callable[[Path], T]) -> T:
    """Read a file, or say that it is not what its name says."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("it is too large")
        return read(path)
    except UNREADABLE as error:
        raise _fault(path, f"cannot be read ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return (str(error).splitlines() or [type(error).__name__])[0]


def _fault(path: Path, what: str) -> InputError:
    return InputError(f"{path}: {what}: delete the run's folder, and it is done again")


def _json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("it holds no names and values")
    return value


def _provenance(path: Path) -> Provenance:
    return Provenance(**_json(path))


def _check_scores(record: Record) -> None:
    path = record.folder / "scores.npz"
    shape = (record.provenance.n_test, len(record.provenance.classes))
    if len(record.test.targets) != record.provenance.n_test:
        raise _fault(path, f"it is of {len(record.test.targets)} clips, not of {shape[0]}")
    for head, values in record.scores.items():
        if values.shape != shape or values.dtype != np.float32:
            raise _fault(path, f"{head} is {values.dtype} {values.shape}, not float16 {shape}")
        if not ((values >= 0) & (values <= 1)).all():
            raise _fault(path, f"{head} has a score outside [0, 1]")


def _check_metrics(record: Record) -> None:
    """Compute every metric again from the scores."""
    path, targets = record.folder / "metrics.json", record.test.targets
    if set(record.metrics) != set(record.scores):
        raise _fault(path, f"it is not of {', '.join(record.scores)}, whose scores there are")
    if record.provenance.metric != official.official(targets):
        raise _fault(path, f"its targets are not those of {record.provenance.metric}")
    for head, values in record.scores.items():
        expected, found = official.summary(targets, values), record.metrics[head]
        thresholds = found.get("thresholds", np.zeros(values.shape[1]))
        if not _alike(thresholds, np.clip(np.resize(thresholds, values.shape[1]), 0, 1)):
            raise _fault(path, f"{head} has other thresholds than one in [0, 1] per class")
        for name in expected | found:
            if name != "thresholds" and not _alike(found.get(name), expected.get(name)):
                raise _fault(path, f"{name} of {head} is not that of its scores")


def _alike(found: Any, expected: Any) -> bool:
    try:
        found, expected = (np.asarray(values, dtype=float) for values in (found, expected))
        close = np.isclose(found, expected, rtol=0, atol=TOLERANCE, equal_nan=True)
        return found.shape == expected.shape and bool(close.all())
    except (TypeError, ValueError):
        return False


def _check_history(record: Record) -> None:
    path, history = record.folder / "history.csv", record.history
    values = history.to_numpy()
    if not np.issubdtype(values.dtype, np.number) or not np.isfinite(values).all():
        raise _fault(path, "it holds something else than finite numbers")
    if "epoch" not in history or history["epoch"].tolist() != list(range(1, len(history) + 1)):
        raise _fault(path, "its epochs do not follow each other")
    if any(epoch > len(history) for epoch in record.provenance.selected_epoch.values()):
        raise _fault(path, "the selected epoch is not in it")


def _check_parents(record: Record) -> None:
    for parent, parents_digest in record.provenance.parents.items():
        complete = record.folder.parent / parent / COMPLETE
        if complete.exists() and file_digest(complete) != parents_digest:
            raise _fault(record.folder, f"its parent {parent} has changed since")
