"""The record of a long test, and the processes that share its work.

A record is a JSON file: the command, the date, the processor, the seconds, and what was tried and
found. It is written anew every few seconds, so that a test which is interrupted leaves what it did.
"""

import json
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from fusionkd_lib.runs import where_from

FOLDER = Path("outputs/bench")
EVERY = 10.0  # seconds


class Record:
    """What a test tells of itself, in a file where it has one."""

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.started, self.written = path, time.monotonic(), 0.0
        origin = where_from()
        self.told: dict[str, Any] = {
            "command": " ".join(["python -m", *sys.orig_argv[2:]]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "processor": f"{origin['processor']}, {os.cpu_count()} cores",
            "commit": origin["commit"],
        }

    @property
    def seconds(self) -> int:
        """Seconds since the test began."""
        return round(time.monotonic() - self.started)

    def tell(self, *, now: bool = False, **found: Any) -> dict[str, Any]:
        """Add what was found, write it where the last time is a while ago, and return it all."""
        self.told |= {"seconds": self.seconds} | found
        if self.path and (now or time.monotonic() - self.written > EVERY):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_suffix(".partial")
            partial.write_text(json.dumps(self.told, indent=1) + "\n")
            os.replace(partial, self.path)
            self.written = time.monotonic()
        return self.told


def place_of(test: str) -> Path:
    """Return where the record of a test on this machine is kept."""
    machine = re.sub(r"\W+", "-", where_from()["processor"]).strip("-").lower()
    return FOLDER / test / f"{machine}.json"


def shared(
    work: Callable[..., Any],
    tasks: Iterable[tuple],
    *,
    workers: int,
    begin: Callable[..., None] | None = None,
    given: tuple = (),
) -> Iterator[tuple[tuple, Any]]:
    """Yield tasks and what came of them, as worker processes that are forked from here end them.

    Parameters
    ----------
    work
        Called with a task's values; in this process where there is one worker.
    begin, given
        What each worker does first, and with what.
    """
    if workers == 1:
        if begin:
            begin(*given)
        yield from ((task, work(*task)) for task in tasks)
        return
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, fork, begin, given) as pool:
        waiting, doing = iter(tasks), {}
        # Two for each at a time: whoever stops to listen leaves little to be done.
        while True:
            for task in islice(waiting, 2 * workers - len(doing)):
                doing[pool.submit(work, *task)] = task
            if not doing:
                return
            for future in wait(doing, return_when=FIRST_COMPLETED).done:
                yield doing.pop(future), future.result()
