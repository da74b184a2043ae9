"""Crashes: a grid that is stopped at a point where it touches a file ends as an undisturbed one."""

import os

import pytest

from bench import crashes


def test_a_grid_stopped_at_eight_of_its_points_ends_in_the_same_tables_and_weights(tmp_path):
    report = crashes.crash(tmp_path, 8, ways=["kill"])
    assert report["points"] > 100
    assert report["tried"]["kill"] == 8
    assert report["differing"] == []


@pytest.mark.slow
def test_a_full_disk_and_half_a_file_are_gone_on_from_too(tmp_path):
    tried = crashes.crash(tmp_path, 8, ways=("tear", "full", "broken"))
    assert tried["differing"] == []
    assert set(tried["tried"].values()) == {0, 8}


def test_points_are_counted_and_the_process_is_stopped_at_the_one_that_was_asked_for(tmp_path):
    def child() -> None:
        points = crashes.Points(tmp_path, 3)
        points.watch()
        for name in ("a", "b", "c"):
            (tmp_path / name).write_text("x")

    if process := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == crashes.DIED
        assert sorted(os.listdir(tmp_path)) == ["a", "b"]  # the hook is heard before the file opens
    else:
        child()
        os._exit(0)


def test_points_are_spread_from_the_first_to_the_last():
    assert list(crashes.spread(5, None)) == [1, 2, 3, 4, 5]
    assert crashes.spread(101, 3) == [1, 51, 101]
    assert list(crashes.spread(2, 8)) == [1, 2]
