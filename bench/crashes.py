"""Stop a miniature grid at every point where it touches a file, go on, and compare to the bit.

The grid is spectrograms, two branches, their pair, the baselines and the table, in a process that
is forked after the imports. Its points are every opening of a file to write, renaming, deletion,
new folder and fsync below its outputs. At a point the process is killed; at every tenth that is
also tried with a half-written file, a full disk and an I/O error. What libraries in C++ and Rust
write between two points is what the half-written file stands for. ``python -m bench.crashes 40``
takes 40 points, evenly; ``all`` takes them all, for 45 minutes at most.
"""

import contextlib
import errno
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

from bench.torture import kept
from fusionkd_lib import experiment, tables
from fusionkd_lib.errors import InputError
from fusionkd_lib.params import make_params
from fusionkd_lib.runs import find_records, runs_root

GRID = {
    "representations": ["logmel", "gammatone"],
    "clips_per_class": 3,
    "n_folds": 3,
    "sample_rate": 8000,
    "duration": 0.5,
    "n_fft": 256,
    "hop_length": 128,
    "n_mels": 32,
    "gammatone_bands": 24,
    "trunk": "squeezenet1_1",
    "head": [16, 8],
    "epochs": 2,
    "batch_size": 16,
    "device": "cpu",
    "threads": 1,
}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
NAMES = {"os.rename": "rename", "os.remove": "remove", "os.mkdir": "mkdir"}
MINUTES = 45
DIED, REFUSED, ODD = -signal.SIGKILL, 1, 2
Way = Callable[[str | None], None]


def kill(path: str | None) -> None:
    """Stop as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def tear(path: str | None) -> None:
    """Stop while half of the file is written."""
    if path and os.path.isfile(path):
        os.truncate(path, os.path.getsize(path) // 2)
    kill(path)


def full(path: str | None) -> None:
    """Have no space left."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def broken(path: str | None) -> None:
    """Have a device that fails."""
    raise OSError(errno.EIO, os.strerror(errno.EIO), path)


WAYS: dict[str, Way] = {"kill": kill, "tear": tear, "full": full, "broken": broken}


class Points:
    """Count the points of this process below a folder, and stop at one of them."""

    def __init__(self, root: Path, stop_at: int | None = None, way: Way = kill) -> None:
        self.root, self.stop_at, self.way, self.met = str(root), stop_at, way, []

    def watch(self) -> None:
        """Begin; a hook of the interpreter stays until the process ends."""
        sys.addaudithook(self._hear)
        fsync = os.fsync

        def told(descriptor: int) -> None:
            self._meet("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
            fsync(descriptor)

        os.fsync = told

    def _hear(self, event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[0], str | os.PathLike):
            if (arguments[2] or 0) & WRITES:
                self._meet("open", os.fspath(arguments[0]))
        elif event in NAMES:
            self._meet(NAMES[event], os.fspath(arguments[0]))

    def _meet(self, what: str, path: str | bytes) -> None:
        if not os.fsdecode(path).startswith(self.root):
            return
        self.met.append(f"{what} {os.path.basename(os.fsdecode(path))}")
        if len(self.met) == self.stop_at:
            self.way(os.fsdecode(path))


def do_grid() -> list[dict]:
    """Do what the grid lacks, and return its tables as plain data."""
    params = make_params(GRID)
    experiment.train_fusion(params)
    experiment.score_baselines(params)
    records, faults = find_records(runs_root())
    if faults:
        raise RuntimeError(f"a run is damaged: {faults[0]}")
    return [table.to_dict() for table in tables.collect(records)]


def warm_up(outputs: Path) -> None:
    """Import what the library imports where it needs it: do the grid once in this process."""
    own = mock.patch.dict(os.environ, FUSIONKD_OUTPUTS=str(outputs))
    with own, contextlib.redirect_stdout(io.StringIO()):
        do_grid()


def in_child(outputs: Path, answer: Path, stop_at: int | None = None, way: Way = kill) -> int:
    """Do the grid in a forked process; return its exit status, or less than 0 as it was killed."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = ODD
    try:
        os.environ["FUSIONKD_OUTPUTS"] = str(outputs)
        os.environ.pop("FUSIONKD_STOP", None)
        points = Points(outputs, stop_at, way)
        nowhere = open(os.devnull, "w")  # noqa: SIM115
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            points.watch()
            found = do_grid()
        answer.write_text(json.dumps({"tables": found, "points": points.met}))
        status = 0
    except (OSError, InputError):  # what the command line says in one sentence
        status = REFUSED
    except BaseException as error:
        answer.write_text(json.dumps(f"{type(error).__name__}: {error}"))
    finally:
        os._exit(status)


def state(outputs: Path, answer: Path) -> dict:
    """Return what must be equal: tables, metrics and weights, and what nobody finished writing."""
    # A checkpoint outlives its finished run where the kill comes before its deletion.
    partials = sorted(path.name for path in outputs.rglob("*.partial"))
    found = json.loads(answer.read_text())["tables"]
    return {"tables": found, "weights": kept(outputs), "partial files": partials}


def try_point(folder: Path, calm: dict, point: int, way: str) -> str:
    """Stop at a point, go on, and say what differs, or nothing."""
    outputs, answer = folder / f"{way}-{point}", folder / f"{way}-{point}.json"
    status = in_child(outputs, answer, point, WAYS[way])
    if status not in (DIED, REFUSED, 0):  # 0: where a failure may be overlooked, as of a cache
        return f"{way} at {point}: ended with {status} ({answer.read_text()[:200]})"
    if in_child(outputs, answer) != 0:
        return f"{way} at {point}: does not go on ({answer.read_text()[:200]})"
    found = state(outputs, answer)
    odd = [key for key in calm if found[key] != calm[key]]
    shutil.rmtree(outputs)
    return f"{way} at {point}: other {', '.join(odd)}" if odd else ""


def crash(
    folder: Path,
    n_points: int | None = None,
    *,
    ways: Sequence[str] = (),
    seconds: float = 60 * MINUTES,
) -> dict:
    """Return how many points there are and were tried, in which ways, and what differed.

    At each point the process is killed, and every tenth one is tried in all ways, unless ways are
    given.
    """
    started = time.monotonic()
    warm_up(folder / "warm")
    if in_child(folder / "calm", folder / "calm.json") != 0:
        raise RuntimeError(f"the grid itself fails: {(folder / 'calm.json').read_text()}")
    calm = state(folder / "calm", folder / "calm.json")
    met = json.loads((folder / "calm.json").read_text())["points"]
    tried, differing = dict.fromkeys(WAYS, 0), []
    for point in spread(len(met), n_points):
        for way in ways or (WAYS if point % 10 == 0 else ["kill"]):
            if time.monotonic() - started > seconds:
                break
            if fault := try_point(folder, calm, point, way):
                differing.append(f"{fault}: {met[point - 1]}")
                print(differing[-1], flush=True)
            tried[way] += 1
    return {"points": len(met), "tried": tried, "differing": differing}


def spread(n_points: int, n_wanted: int | None) -> Sequence[int]:
    """Return points, counted from 1: all, or so many of them evenly."""
    if n_wanted is None or n_wanted >= n_points:
        return range(1, n_points + 1)
    return [1 + i * (n_points - 1) // max(1, n_wanted - 1) for i in range(n_wanted)]


def main() -> None:
    """Try as many points as the first argument says, by default all."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else "all"
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = crash(Path(folder), None if wanted == "all" else int(wanted))
    print(json.dumps(report | {"seconds": round(time.monotonic() - started)}, indent=1))
    sys.exit(1 if report["differing"] else 0)


if __name__ == "__main__":
    main()
