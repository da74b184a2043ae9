"""One run: its name, its folder, what it keeps, where it came from, and when it is finished.

A run's folder is named after the parameters that decide its result, so that what is done is found
again and what two pairs share is trained once. Without ``complete.json`` a run is unfinished.
"""

import os
import platform
import resource
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from safetensors.torch import save_file

from fusionkd_lib import records
from fusionkd_lib.catalogue import BASELINES, DATASETS, REPRESENTATIONS
from fusionkd_lib.errors import InputError
from fusionkd_lib.params import SHORTCUTS, Params
from fusionkd_lib.records import COMPLETE, Provenance, Record, TestClips
from fusionkd_lib.speed import WITHOUT_TRACE, resolve, resolve_device
from fusionkd_lib.storage import digest, file_digest, held, replacing, write_json, write_text

CHECKPOINT = "checkpoint.pt"
NOTEBOOK = "notebook.ipynb"
# Environment variable that names a file: once it exists, runs stop after their epoch.
STOP_FILE = "FUSIONKD_STOP"

# What says where a run happens, not what comes out of it.
PLACE_KEYS = {"data_root", "device", "branch"}
# What the joint phase alone has.
JOINT_KEYS = {
    *("representations", "joint_epochs", "tap", "fusion", "kd_weight", "kd_loss", "temperature"),
    *("teacher", "views", "detach_teacher", "ramp_epochs", "fused_weight"),
}
# What baselines have, beside the settings of their clips and representations.
CLIP_KEYS = {
    *("fold", "train_folds", "drop_leaked", "data_folder"),
    *("sample_rate", "duration", "hop_length", "pad"),
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


def runs_root() -> Path:
    """Return the folder of runs."""
    return outputs_root() / "runs"


def settle(params: Params) -> Params:
    """Return parameters whose shortcuts are those that are taken on this machine."""
    device = resolve_device(params.device if params.shortcuts == "all" else "cpu")
    return params.replace(shortcuts=resolve(params.shortcuts, device))


def identity(params: Params, *, branch: str | None = None) -> dict[str, Any]:
    """Return the parameters that decide a result, where they differ from the defaults.

    Parameters
    ----------
    branch
        Names the branch whose pretraining is meant, or `BASELINES`; else the fusion run is.
    """
    params = settle(params) if params.shortcuts == "all" else params
    named = params.representations if branch in (None, BASELINES) else (branch,)
    used = _settings(DATASETS, [params.dataset]) | _settings(REPRESENTATIONS, named) | CLIP_KEYS
    used |= {"data_root"} if DATASETS[params.dataset].own else set()  # another place: other clips
    every = _settings(DATASETS, DATASETS) | _settings(REPRESENTATIONS, REPRESENTATIONS)
    unused = (set(Params.model_fields) if branch == BASELINES else every) - used | PLACE_KEYS - used
    unused |= JOINT_KEYS if branch else set()
    kept = params.model_dump(mode="json", exclude_defaults=True, exclude=unused)
    kept |= {"dataset": params.dataset, "representations": list(named)}
    traced = {"float16_store"} if branch == BASELINES else set(SHORTCUTS) - set(WITHOUT_TRACE)
    return kept | {"shortcuts": [name for name in params.shortcuts if name in traced]}


def _settings(entries: Mapping[str, Any], names: Iterable[str]) -> set[str]:
    """Return the parameters that entries of the catalogue have."""
    return set().union(*(entries[name].settings for name in names))


def run_name(params: Params, *, branch: str | None = None) -> str:
    """Return the folder name of a branch run, of the baselines, or of the fusion run."""
    kind, seed, what = "fusion", f"seed{params.seed}", "+".join(params.representations)
    if branch == BASELINES:  # of which nothing is drawn by the seed
        kind = seed = BASELINES
    elif branch:
        kind, what = "branch", branch
    name = digest([kind, identity(params, branch=branch)])[:8]
    return f"{params.dataset}-fold{params.fold}-{seed}-{what}-{name}"


@dataclass(frozen=True)
class Run:
    """A run's folder and, once it is complete, its records."""

    folder: Path

    @classmethod
    def of(cls, params: Params, *, branch: str | None = None) -> "Run":
        """Return the branch run, baselines, or fusion run that these parameters describe."""
        return cls(runs_root() / run_name(params, branch=branch))

    @property
    def name(self) -> str:
        """The folder's name, which is the run's."""
        return self.folder.name

    @property
    def is_complete(self) -> bool:
        """Whether every record of the run is written."""
        return (self.folder / COMPLETE).exists()

    @property
    def record(self) -> Record:
        """What the finished run left behind, checked.

        Raises
        ------
        InputError
            As `read_record`; also where the folder is a copy under another name, or the branches
            that the run stands on have changed since.
        """
        record = records.read_record(self.folder)
        params, kind, parents = record.params, record.provenance.kind, record.provenance.parents
        branches = [run_name(params, branch=branch) for branch in params.representations]
        part = {"branch": params.representations[0], "fusion": None}.get(kind, kind)
        name = run_name(params, branch=part)
        if name != self.name:
            raise InputError(f"{self.folder}: this is the run {name} under another name: delete it")
        wanted = branches if kind == "fusion" else []
        files = {self.folder.parent / branch / COMPLETE: parents.get(branch) for branch in wanted}
        # A branch may be gone, as from a copy of the pair alone; else it must be that of then.
        changed = [path for path in files if path.is_file() and file_digest(path) != files[path]]
        if list(parents) != wanted or changed:
            raise InputError(
                f"{self.folder}: the branches that it stands on are others or have changed since: "
                "delete the folder, and the run is done again"
            )
        return record

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes off this run; wait, and say for whom, where one is at it.

        The checkpoint of a run that is finished at the end goes, whoever finished it.
        """
        with held(self.folder.parent / ".locks" / self.name):
            yield
            if self.is_complete:
                (self.folder / CHECKPOINT).unlink(missing_ok=True)

    def begin(self, params: Params) -> None:
        """Make the folder and write down what is about to run."""
        text = yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False)
        write_text(self.folder / "params.yaml", text)

    def write_history(self, history: Iterable[Mapping[str, float]]) -> None:
        """Write the epochs so far; baselines have none."""
        table = pd.DataFrame(list(history) or {"epoch": []})
        write_text(self.folder / "history.csv", table.to_csv(index=False))

    def finish(
        self, *, metrics: dict, scores: dict, weights: dict, provenance: Provenance, test: TestClips
    ) -> None:
        """Write the results, and ``complete.json`` last.

        Parameters
        ----------
        metrics, scores, weights
            Classifier -> its metrics, its scores (n, K) of the test clips, its network's tensors.
        """
        for name, state in weights.items():
            state = {key: tensor.contiguous() for key, tensor in state.items()}
            with replacing(self.folder / f"{name}.safetensors") as partial:
                save_file(state, partial)
        records.write_arrays(self.folder / "scores.npz", scores)
        test.write(self.folder.parent)
        write_json(self.folder / "metrics.json", metrics)
        write_json(self.folder / "provenance.json", provenance.model_dump(mode="json"))
        names = [*records.FILES, *(f"{name}.safetensors" for name in weights)]
        digests = {name: file_digest(self.folder / name) for name in names}
        write_json(self.folder / COMPLETE, {"version": records.VERSION, "files": digests})


def find_records(root: Path) -> tuple[list[Record], list[str]]:
    """Return the records below a folder, by name, and the faults of those that are damaged.

    Returns
    -------
    records : list of Record
    faults : list of str
        One sentence per run that cannot be used.
    """
    found, faults = [], []
    for path in sorted(root.glob(f"*/{COMPLETE}")):
        try:
            found.append(Run(path.parent).record)
        except (InputError, OSError) as error:
            faults.append(str(error))
    return found, faults


def trace(record: Record) -> dict[str, Any]:
    """Return where a run comes from, down to the runs that it stands on."""
    provenance = record.provenance.model_dump(mode="json")
    parents = [Run(record.folder.parent / name) for name in provenance.pop("parents")]
    settings = {"fold", "seed", "threads", "shortcuts"}
    return {
        "run": str(record.folder),
        "notebook": str(record.folder / NOTEBOOK),
        "parameters": str(record.folder / "params.yaml"),
        **record.params.model_dump(mode="json", include=settings),
        "provenance": provenance,
        "parents": [trace(parent.record) for parent in parents if parent.is_complete],
    }


def where_from() -> dict[str, Any]:
    """Return commit, package versions, processor and peak memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "commit": _commit(),
        "versions": {name: version(name) for name in PACKAGES},
        "processor": _processor(),
        "peak_mebibytes": round(peak, 1),
    }


def _processor() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def _commit() -> str:
    """Return the commit of the project, with ``+`` where files differ from it."""
    command = ["git", "-C", Path(__file__).resolve().parents[1], "describe", "--always"]
    command += ["--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
