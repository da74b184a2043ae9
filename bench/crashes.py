"""Stop a miniature grid at every point where it changes a file, go on, and compare to the bit.

The grid is spectrograms, two branches, their pair, the baselines and the table, in a process that
is forked after the imports; its points are those of `bench.points`. At each one the process is
killed, and every tenth one is also tried with half a block written, a full disk and an I/O error.
Then the grid is done again in the same folder, as a person would do it, and must end in the tables,
metrics and weights of one that nothing disturbed, with the same files and none beside them.
``python -m bench.crashes 40`` takes 40 points, evenly; ``all`` takes them all, for 45 minutes at
most, and writes ``outputs/bench/crashes/<processor>.json`` as it goes.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from unittest import mock

from bench.points import WAYS, Points
from bench.record import Record, place_of, shared
from bench.torture import kept
from fusionkd_lib import experiment, metrics, tables
from fusionkd_lib.datasets import urban_synth
from fusionkd_lib.errors import InputError
from fusionkd_lib.params import make_params
from fusionkd_lib.runs import find_records, runs_root

GRID = {
    "representations": ["logmel", "gammatone"],
    "clips_per_class": 2,
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
MINUTES = 45
LONGEST = 600  # seconds of one grid: one that waits for ever is a fault
DIED, REFUSED, ODD = -signal.SIGKILL, 1, 2
# A memory file system keeps what a kill leaves as a disk does, and is not waited for.
FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


SOUND = cache(urban_synth._read)


# What takes long and changes no file: each sound is made once, before all forks, and intervals are
# of few resamples.
@mock.patch.object(urban_synth, "_read", lambda places, *which: SOUND(tuple(places), *which))
@mock.patch.object(metrics, "bootstrap", partial(metrics.bootstrap, n_resamples=20))
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


def in_child(outputs: Path, answer: Path, begin: Callable[[], Points | None]) -> int:
    """Do the grid in a forked process; return its exit status, or less than 0 as it was killed.

    Parameters
    ----------
    answer
        File of the tables and points, or of the error where nobody foresaw it.
    begin
        What the process does first; returns the points that it then counts.
    """
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = ODD
    try:
        signal.alarm(LONGEST)
        os.environ["FUSIONKD_OUTPUTS"] = str(outputs)
        os.environ.pop("FUSIONKD_STOP", None)
        nowhere = open(os.devnull, "w")  # noqa: SIM115
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            points = begin()
            found = do_grid()
        answer.write_text(json.dumps({"tables": found, "points": points.met if points else []}))
        status = 0
    except (OSError, InputError) as error:  # what the command line says in one sentence
        answer.write_text(json.dumps(str(error)))
        status = REFUSED
    except BaseException as error:
        answer.write_text(json.dumps(f"{type(error).__name__}: {error}"))
    finally:
        os._exit(status)


def counting(outputs: Path, stop_at: int | None = None, way: str = "kill") -> Callable[[], Points]:
    """Return what counts the points below a folder from then on, and stops at one."""

    def begin() -> Points:
        points = Points(outputs, stop_at, way)
        points.watch()
        return points

    return begin


def state(outputs: Path, answer: Path) -> dict:
    """Return what must be equal: tables, metrics and weights, and which files there are."""
    files = sorted(path.relative_to(outputs).as_posix() for path in outputs.rglob("*"))
    tables = json.loads(answer.read_text())["tables"]
    return {"tables": tables, "metrics and weights": kept(outputs), "files": files}


def differs(outputs: Path, answer: Path, calm: dict) -> str:
    """Go on with a grid that was stopped, and say what differs from a calm one, or nothing."""
    if status := in_child(outputs, answer, lambda: None):
        return f"does not go on: {status} ({told(answer)})"
    found = state(outputs, answer)
    odd = [key for key in calm if found[key] != calm[key]]
    more = set(found["files"]) ^ set(calm["files"])
    return f"other {', '.join(odd)} {' '.join(sorted(more))}" if odd else ""


def told(answer: Path) -> str:
    """Return what a grid said at its end."""
    return answer.read_text()[:300] if answer.exists() else "nothing"


def try_point(folder: Path, calm: dict, point: int, way: str) -> str:
    """Stop at a point, go on, and say what differs, or nothing."""
    outputs, answer = folder / f"{way}-{point}", folder / f"{way}-{point}.json"
    try:
        status = in_child(outputs, answer, counting(outputs, point, way))
        if status not in (DIED, REFUSED, 0):  # 0: where a failure may be overlooked, as of a cache
            return f"ended with {status} ({told(answer)})"
        return differs(outputs, answer, calm)
    finally:
        shutil.rmtree(outputs, ignore_errors=True)
        answer.unlink(missing_ok=True)


def calm_grid(folder: Path) -> tuple[dict, list[str]]:
    """Return the state of a grid that nothing disturbs, and its points."""
    warm_up(folder / "warm")
    outputs, answer = folder / "calm", folder / "calm.json"
    if in_child(outputs, answer, counting(outputs)):
        raise RuntimeError(f"the grid itself fails: {told(answer)}")
    return state(outputs, answer), json.loads(answer.read_text())["points"]


def crash(
    folder: Path,
    n_points: int | None = None,
    *,
    ways: Sequence[str] = (),
    workers: int = 1,
    record: Record | None = None,
) -> dict:
    """Return how many points there are and were tried, in which ways, and what differed.

    At each point the process is killed, and every tenth one is tried in all ways, unless ways are
    given.
    """
    record = record or Record()
    calm, met = calm_grid(folder)
    tasks = [
        (folder, calm, point, way)
        for place, point in enumerate(spread(len(met), n_points))
        for way in ways or (WAYS if place % 10 == 0 else ["kill"])
    ]
    kinds = Counter(point.split()[0] for point in met)
    record.tell(points=len(met), points_by_kind=kinds, to_try=len(tasks))
    tried, differing = dict.fromkeys(WAYS, 0), []
    for (*_, point, way), fault in shared(try_point, tasks, workers=workers):
        tried[way] += 1
        if fault:
            differing.append(f"{way} at {point}, {met[point - 1]}: {fault}")
            print(differing[-1], flush=True)
        record.tell(tried=tried, differing=differing)
        if record.seconds > 60 * MINUTES:
            break
    return record.tell(now=True)


def spread(n_points: int, n_wanted: int | None) -> Sequence[int]:
    """Return points, counted from 1: all, or so many of them evenly."""
    if n_wanted is None or n_wanted >= n_points:
        return range(1, n_points + 1)
    return [1 + i * (n_points - 1) // max(1, n_wanted - 1) for i in range(n_wanted)]


def main() -> None:
    """Try as many points as are asked for, by default all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("points", nargs="?", default="all", help="how many; by default all")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    wanted = parser.parse_args()
    n_points = None if wanted.points == "all" else int(wanted.points)
    record = Record(place_of("crashes") if n_points is None else None)
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        report = crash(Path(folder), n_points, workers=wanted.workers, record=record)
    print(json.dumps(report, indent=1))
    if (n_tried := sum(report["tried"].values())) < report["to_try"]:
        sys.exit(f"{MINUTES} minutes were enough for {n_tried} of {report['to_try']} tries")
    sys.exit(1 if report["differing"] else 0)


if __name__ == "__main__":
    main()
