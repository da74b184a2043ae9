"""One run: its name, its folder, what it keeps, where it came from, and when it is finished.

A run's folder is named after the parameters that decide its result, so that what is done is found
again and what two pairs share is trained once. ``complete.json`` is written last, with the digest
of every other record: without it a run is unfinished.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile, ZipFile

import numpy as np
import pandas as pd
import torch
import yaml
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fusionkd_lib.errors import InputError
from fusionkd_lib.features import SETTINGS, digest, write_atomically
from fusionkd_lib.params import Params, make_params

T = TypeVar("T")

COMPLETE = "complete.json"
CHECKPOINT = "checkpoint.pt"
NOTEBOOK = "notebook.ipynb"
RECORDS = ("params.yaml", "history.csv", "scores.npz", "metrics.json", "provenance.json")
# Environment variable that names a file: once it exists, runs stop after their epoch.
STOP_FILE = "FUSIONKD_STOP"

# What says where a run happens, not what comes out of it.
PLACE_KEYS = {"data_root", "device", "branch", "reuse_memory", "store_on_device"}
# What the joint phase alone has.
JOINT_KEYS = {"representations", "joint_epochs", "tap", "fusion", "kd_weight", "kd_loss"} | {
    "temperature",
    "detach_teacher",
    "ramp_epochs",
    "select",
}
DATASET_KEYS = {
    "urban_synth": {"clips_per_class", "n_folds", "data_seed"},
    "urban_synth_scenes": {"n_scenes", "n_folds", "data_seed"},
    "urbansound8k": set(),
    "sonyc_ust": {"level", "labels", "coarse_labels"},
}
PACKAGES = ("torch", "torchvision", "numpy", "soundfile", "soxr")


def project_root() -> Path:
    """Return the project's folder, wherever a notebook or a command was started."""
    for folder in (Path.cwd(), *Path.cwd().parents, Path(__file__).resolve().parents[1]):
        if (folder / "book").is_dir() and (folder / "params").is_dir():
            return folder
    return Path.cwd()


def outputs_root() -> Path:
    """Return the folder of runs and stores: $FUSIONKD_OUTPUTS, or ``outputs`` of the project."""
    return Path(os.environ.get("FUSIONKD_OUTPUTS") or project_root() / "outputs")


def identity(params: Params, *, branch: str | None = None) -> dict[str, Any]:
    """Return the parameters that decide a result, where they differ from the defaults.

    Parameters
    ----------
    branch
        Of the pretraining of this branch; else of the fusion run.
    """
    named = (branch,) if branch else params.representations
    used = set().union(*(SETTINGS[name] for name in named))
    unused = set().union(*SETTINGS.values()) - used
    unused |= set().union(*DATASET_KEYS.values()) - DATASET_KEYS[params.dataset]
    unused |= PLACE_KEYS | (JOINT_KEYS if branch else set())
    kept = params.model_dump(mode="json", exclude_defaults=True, exclude=unused)
    return kept | {"dataset": params.dataset, "representations": list(named)}


def run_name(params: Params, *, branch: str | None = None) -> str:
    """Return the folder name of a branch run, or of the fusion run."""
    what = branch or "+".join(params.representations)
    kind = "branch" if branch else "fusion"
    name = digest([kind, identity(params, branch=branch)])[:8]
    return f"{params.dataset}-fold{params.fold}-seed{params.seed}-{what}-{name}"


@dataclass(frozen=True)
class Run:
    """A run's folder and, once it is complete, its records."""

    folder: Path

    @classmethod
    def of(cls, params: Params, *, branch: str | None = None) -> "Run":
        """Return the branch run, or the fusion run, that these parameters describe."""
        return cls(outputs_root() / "runs" / run_name(params, branch=branch))

    @property
    def name(self) -> str:
        """The folder's name, which is the run's."""
        return self.folder.name

    @property
    def is_complete(self) -> bool:
        """Whether every record of the run is written."""
        return (self.folder / COMPLETE).exists()

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each record."""
        path = self.folder / COMPLETE
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):  # JSON's errors and those of the encoding are ValueErrors
            raise InputError(f"{path}: damaged: delete the run's folder") from None

    def record(self, name: str) -> Path:
        """Return the path of a record that is as it was when the run ended.

        Raises
        ------
        InputError
            Where the run is unfinished, or the record is missing or changed.
        """
        path = self.folder / name
        if not self.is_complete:
            raise InputError(f"{self.folder}: this run is not finished: start it again")
        if not path.exists() or file_digest(path) != self.digests.get(name):
            raise InputError(f"{path}: missing or changed since its run: delete the run's folder")
        return path

    @cached_property
    def params(self) -> Params:
        """The parameters of the run."""
        path = self.record("params.yaml")
        return make_params(yaml.safe_load(path.read_text()), source=str(path))

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row an epoch: the learning rate, every loss term, the validation losses."""
        return self._read("history.csv", pd.read_csv)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The figures on the test clips, by classifier, and the thresholds of the tags."""
        return self._read("metrics.json", lambda path: dict(json.loads(path.read_text())))

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Kind, data, versions, commit, device and parents of the run."""
        return self._read("provenance.json", lambda path: dict(json.loads(path.read_text())))

    @cached_property
    def scores(self) -> dict[str, np.ndarray]:
        """Test clips, recordings, targets, and the scores (clips, K) of each classifier."""
        return self._read("scores.npz", _read_arrays)

    def trace(self) -> dict[str, Any]:
        """Return where this run's figures come from, down to the runs that it stands on."""
        parents = [Run(self.folder.parent / name) for name in self.provenance["parents"]]
        return {
            "run": str(self.folder),
            "notebook": str(self.folder / NOTEBOOK),
            "parameters": str(self.record("params.yaml")),
            "fold": self.params.fold,
            **{key: value for key, value in self.provenance.items() if key != "parents"},
            "parents": [parent.trace() for parent in parents if parent.is_complete],
        }

    def copy_records(self, folder: Path) -> Path:
        """Copy all but the weights and the notebook: enough for tables, too small to tag with."""
        target = folder / self.name
        target.mkdir(parents=True, exist_ok=True)
        for name in (*RECORDS, COMPLETE):
            shutil.copyfile(self.folder / name, target / name)
        return target

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        """Return the weights of a classifier: a branch, or ``fused`` for the whole network."""
        return self._read(f"{name}.safetensors", load_file)

    def _read(self, name: str, read: Callable[[Path], T]) -> T:
        """Read a record, or say that it is not what its name says."""
        path = self.record(name)
        try:
            return read(path)
        except (ValueError, TypeError, EOFError, BadZipFile, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{path}: cannot be read ({reason}): delete the run's folder"
            ) from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes off this run; wait, and say for whom, where one is at it.

        The lock is the operating system's: that of a process that died is free at once.
        """
        with held(self.folder.parent / ".locks" / self.name):
            yield

    def begin(self, params: Params) -> None:
        """Make the folder and write down what is about to run."""
        write_atomically(self.folder / "params.yaml", _to_yaml(params))

    def write_history(self, history: Iterable[Mapping[str, float]]) -> None:
        """Write the epochs so far."""
        table = pd.DataFrame(list(history))
        write_atomically(self.folder / "history.csv", table.to_csv(index=False))

    def finish(
        self,
        *,
        metrics: Mapping[str, Any],
        scores: Mapping[str, np.ndarray],
        weights: Mapping[str, Mapping[str, torch.Tensor]],
        provenance: Mapping[str, Any],
    ) -> None:
        """Write the results, and ``complete.json`` last; the checkpoint is then of no more use."""
        for name, state in weights.items():
            state = {key: tensor.contiguous() for key, tensor in state.items()}
            save_file(state, self.folder / f"{name}.safetensors")
        np.savez_compressed(self.folder / "scores.npz", **scores)
        write_json(self.folder / "metrics.json", metrics)
        write_json(self.folder / "provenance.json", provenance)
        records = [*RECORDS, *(f"{name}.safetensors" for name in weights)]
        digests = {name: file_digest(self.folder / name) for name in records}
        write_json(self.folder / COMPLETE, digests)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock file, beside which it stands who holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, holder = (
        FileLock(path.with_name(path.name + ".lock")),
        path.with_name(path.name + ".holder"),
    )
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = holder.read_text() if holder.exists() else "another process"
        print(f"{path.name}: waiting for {who}", flush=True)
        lock.acquire()
    try:
        holder.write_text(f"process {os.getpid()} on {platform.node()}, since {datetime.now():%c}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    # `numpy.savez` makes a zip; `numpy.load` would take a file for whatever else it looks like.
    with ZipFile(path), np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _to_yaml(params: Params) -> str:
    return yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False)


def write_json(path: Path, value: Any) -> None:
    """Write plain data as JSON for people and programs, atomically."""
    write_atomically(path, json.dumps(value, indent=1) + "\n")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def where_from() -> dict[str, Any]:
    """Return the commit and the package versions that a run happens with."""
    return {"commit": _commit(), "versions": {name: version(name) for name in PACKAGES}}


def _commit() -> str:
    """Return the commit of the project, with ``+`` where files differ from it."""
    root = Path(__file__).resolve().parents[1]
    commands = ["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]
    try:
        answers = [
            subprocess.run(["git", "-C", root, *c], capture_output=True, text=True, check=True)
            for c in commands
        ]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answers[0].stdout.strip() + ("+" if answers[1].stdout.strip() else "")
