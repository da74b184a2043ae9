"""Crashes: a grid that is stopped where it changes a file ends as one that nothing disturbed."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bench import crashes
from bench.points import Points
from bench.record import Record, shared
from fusionkd_lib import runs


@pytest.mark.slow
def test_a_grid_stopped_at_eight_of_its_points_ends_in_the_same_tables_and_weights(tmp_path):
    report = crashes.crash(tmp_path, 8, ways=["kill"])
    assert report["points"] >= 1000
    assert report["tried"]["kill"] == 8
    assert report["differing"] == []


@pytest.mark.slow
def test_a_full_disk_and_half_a_block_are_gone_on_from_too(tmp_path):
    tried = crashes.crash(tmp_path, 8, ways=("tear", "full", "broken"), workers=2)
    assert tried["differing"] == []
    assert set(tried["tried"].values()) == {0, 8}


def in_child(work) -> int:
    """Do something in a forked process, and return its exit status."""
    if process := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        work()
        os._exit(0)
    except OSError as error:
        os._exit(error.errno)
    finally:
        os._exit(99)


def writing(folder: Path, *, stop_at: int | None = None, way: str = "kill"):
    """Return work of 9 points: three files of two blocks, each made first."""

    def work() -> None:
        points = Points(folder, stop_at, way)
        points.watch()
        for name in ("a", "b", "c"):
            with open(folder / name, "wb", buffering=0) as file:
                file.write(b"1234")
                file.write(b"5678")
        (folder / "a").read_text()  # none
        (folder / "sub").mkdir()
        (folder / "sub").mkdir(exist_ok=True)  # none, as it is there
        (folder / "a").unlink()
        (folder / "a").unlink(missing_ok=True)  # none, as it is gone
        os.rename(folder / "b", folder / "sub" / "b")
        (folder.parent / "points.txt").write_text("\n".join(points.met))

    return work


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_what_changes_the_disk_is_a_point_and_nothing_else(tmp_path):
    (tmp_path / "x").mkdir()
    assert in_child(writing(tmp_path / "x")) == 0
    met = (tmp_path / "points.txt").read_text().splitlines()
    files = [f"{what} {name}" for name in "abc" for what in ("open", "write", "write")]
    assert met == [*files, "mkdir sub", "remove a", "rename b"]


STOPS = {
    # way, point: exit status, what is on the disk
    ("kill", 1): (crashes.DIED, {}),
    ("kill", 3): (crashes.DIED, {"a": "1234"}),
    ("kill", 7): (crashes.DIED, {"a": "12345678", "b": "12345678"}),
    ("tear", 3): (crashes.DIED, {"a": "123456"}),
    ("tear", 4): (crashes.DIED, {"a": "12345678", "b": "12"}),  # the next block
    ("full", 5): (28, {"a": "12345678", "b": ""}),
    ("broken", 5): (5, {"a": "12345678", "b": ""}),
}


@pytest.mark.parametrize(("stop", "left"), STOPS.items(), ids=map(str, STOPS))
def test_a_process_is_stopped_at_the_point_and_in_the_way_that_was_asked_for(tmp_path, stop, left):
    (folder := tmp_path / "x").mkdir()
    way, point = stop
    assert (in_child(writing(folder, stop_at=point, way=way)), contents(folder)) == left


def test_a_disk_that_is_full_stays_so(tmp_path):
    def work() -> None:
        Points(tmp_path / "x", 1, "full").watch()
        for name in ("a", "b"):
            try:
                (tmp_path / "x" / name).touch()
            except OSError as error:
                (tmp_path / name).write_text(str(error.errno))

    assert in_child(work) == 0
    assert contents(tmp_path) == {"a": "28", "b": "28"}


def test_tensors_are_written_as_they_would_be_and_in_blocks(tmp_path):
    tensors = {"x": torch.arange(10**6), "y": torch.ones(3)}

    def work() -> None:
        (points := Points(tmp_path)).watch()
        torch.save(tensors, tmp_path / "x.pt")
        runs.save_file(tensors, tmp_path / "x.safetensors")
        (tmp_path / "met").write_text("\n".join(points.met))

    assert in_child(work) == 0
    for found in (torch.load(tmp_path / "x.pt"), load_file(tmp_path / "x.safetensors")):
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    counts = Counter((tmp_path / "met").read_text().splitlines())
    assert counts["write x.safetensors"] == -(-(tmp_path / "x.safetensors").stat().st_size // 2**17)
    assert counts["write x.pt"] >= 2


def test_points_are_spread_from_the_first_to_the_last():
    assert list(crashes.spread(5, None)) == [1, 2, 3, 4, 5]
    assert crashes.spread(101, 3) == [1, 51, 101]
    assert list(crashes.spread(2, 8)) == [1, 2]


def test_work_that_is_shared_is_all_done_once_and_one_who_stops_listening_stops_it():
    tasks = [(i, 2) for i in range(20)]
    for workers in (1, 2):
        assert dict(shared(pow, tasks, workers=workers)) == {task: task[0] ** 2 for task in tasks}
    assert (
        len([task for task, _ in zip(shared(pow, tasks, workers=2), range(3), strict=False)]) == 3
    )


def test_a_record_says_what_ran_where_and_what_was_found_so_far(tmp_path):
    record = Record(tmp_path / "sub" / "x.json")
    told = record.tell(tried=3)
    assert told.keys() == {"command", "date", "processor", "commit", "seconds", "tried"}
    assert '"tried": 3' in (tmp_path / "sub" / "x.json").read_text()
    record.tell(tried=4)  # too soon
    assert '"tried": 3' in (tmp_path / "sub" / "x.json").read_text()
    record.tell(now=True)
    assert '"tried": 4' in (tmp_path / "sub" / "x.json").read_text()


@pytest.mark.slow
def test_a_small_disk_that_the_system_refuses_to_fill_further_is_gone_on_from():
    command = [sys.executable, "-m", "bench.small_disk", "3"]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if answer.stdout.startswith("Skipped"):
        pytest.skip(answer.stdout)
    assert answer.returncode == 0, answer.stdout
    report = json.loads(answer.stdout)
    # How many of the sizes are enough depends on the machine.
    assert sum(report["tried"].values()) == 3
    assert report["tried"]["full"] >= 1
    assert report["differing"] == []
