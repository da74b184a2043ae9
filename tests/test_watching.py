"""Progress: each epoch of each run is told once in a log, and each node when it has ended."""

import contextlib
import os
import pty

import pytest

from fusionkd_lib.engine import watching
from fusionkd_lib.engine.batch import Outcome
from fusionkd_lib.engine.graph import Graph, plan


class Running:
    """A future that ends when it is told to."""

    def __init__(self, name: str) -> None:
        self.outcome, self.has_ended = Outcome(name, "done", seconds=3.4), False

    def done(self) -> bool:
        return self.has_ended

    def result(self) -> Outcome:
        return self.outcome


@pytest.fixture
def batch(tiny, monkeypatch) -> tuple[Graph, dict[str, Running]]:
    """Return a branch whose store is there, which trains an epoch in every second look."""
    graph = plan([tiny(representations=["logmel"], epochs=3)])
    _, branch = graph.values()
    future, rows, looks = Running(branch.name), [], []

    def next_look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) % 2:
            rows.append({"epoch": len(rows) + 1, "loss": 1.5 - len(rows), "seconds": 50.0})
            rows[-1]["val_loss"] = (0.75, 0.25, 0.5)[len(rows) - 1]
            branch.run.write_history(rows)
        elif len(rows) == 3:
            future.has_ended = True

    monkeypatch.setattr(watching.time, "sleep", next_look)
    return graph, {branch.name: future}


def test_a_log_tells_each_epoch_once_and_each_end(batch, capsys):
    graph, futures = batch
    store, branch = graph
    before = {store: Outcome(store, "done", "before")}
    found = watching.watch(futures, graph, before)
    assert found == before | {branch: futures[branch].outcome}
    assert capsys.readouterr().out.splitlines() == [
        f"  {branch}: epoch 1/3, loss 1.500, best validation 0.750, 1:40 left",
        f"  {branch}: epoch 2/3, loss 0.500, best validation 0.250, 0:50 left",
        f"  {branch}: epoch 3/3, loss -0.500, best validation 0.250, 0:00 left",
        f"(2/2) {branch}: done in 3 s",
    ]


def test_a_terminal_shows_what_runs_in_place(batch, monkeypatch):
    graph, futures = batch
    store, branch = graph
    leader, follower = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with os.fdopen(follower, "w") as terminal, contextlib.redirect_stdout(terminal):
        watching.watch(futures, graph, {store: Outcome(store, "done", "before")})
    told = ""
    with contextlib.suppress(OSError):  # how a terminal that was closed ends
        while part := os.read(leader, 100_000):
            told += part.decode()
    os.close(leader)
    assert "\x1b[2K" in told  # a line is wiped and written anew
    assert f"(2/2) {branch}: done in 3 s" in told
    assert "2 of 2 nodes finished" in told


def test_a_run_that_was_skipped_tells_why(batch, capsys):
    graph, futures = batch
    store, branch = graph
    futures[branch].outcome = Outcome(branch, "skipped", f"needs {store}")
    watching.watch(futures, graph, {store: Outcome(store, "failed", "no clips")})
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"(2/2) {branch}: skipped: needs {store}"
