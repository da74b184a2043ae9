"""Fill a small file system with a miniature grid, make room, go on, and compare to the bit.

What `bench.crashes` raises is Python's; here the system refuses, whichever library writes, in C++
or to a mapped file. The grid is that of `bench.crashes`, its output folder a memory file system
that takes from nothing to more than all of it. The grid must end in one sentence, and once there is
room in the state of one that nothing disturbed. The file system is mounted where nobody else sees
it, in a namespace of its own, which most Linux systems allow everyone; where not, that is said and
nothing is done. ``python -m bench.small_disk 40`` tries 40 sizes, and with ``--keep`` writes
``outputs/bench/small_disk/<processor>.json``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.crashes import FAST, REFUSED, calm_grid, differs, in_child, told
from bench.record import Record, place_of, shared

ALONE = ("unshare", "--map-root-user", "--mount")
SMALLEST = 2**14  # bytes; a page for each folder
MORE = 3  # times the size of the end: a checkpoint is larger than weights, and there may be two


def mount(options: str, folder: Path) -> None:
    """Mount a memory file system, or change it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


def try_size(folder: Path, calm: dict, n_bytes: int) -> tuple[str, str]:
    """Do the grid in so many bytes, make room, go on; return what became of it, and faults."""
    outputs, answer = folder / f"disk-{n_bytes}", folder / f"disk-{n_bytes}.json"
    outputs.mkdir()
    mount(f"size={n_bytes}", outputs)
    try:
        status = in_child(outputs, answer, lambda: None)
        if status not in (REFUSED, 0):
            return "fault", f"ended with {status} ({told(answer)})"
        mount("remount,size=1g", outputs)
        return "full" if status else "enough", differs(outputs, answer, calm)
    finally:
        subprocess.run(["umount", outputs], check=True)


def fill(folder: Path, n_sizes: int, *, workers: int = 1, record: Record | None = None) -> dict:
    """Try sizes, spread evenly; return how many were too small, and what differed."""
    record = record or Record()
    calm, _ = calm_grid(folder)
    files = [path for path in (folder / "calm").rglob("*") if path.is_file()]
    largest = MORE * sum(path.stat().st_size for path in files)
    steps = [place / max(1, n_sizes - 1) for place in range(n_sizes)]
    sizes = [round(SMALLEST + step * (largest - SMALLEST)) for step in steps]
    tried, differing = Counter(), []
    tasks = [(folder, calm, size) for size in sizes]
    for (*_, size), (became, fault) in shared(try_size, tasks, workers=workers):
        tried[became] += 1
        if fault:
            differing.append(f"{size:,} bytes: {fault}")
            print(differing[-1], flush=True)
        record.tell(largest=round(largest), tried=tried, differing=differing)
    return record.tell(now=True)


def main() -> None:
    """Try as many sizes as are asked for, by default 40."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="?", type=int, default=40)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--keep", action="store_true", help="keep the record in outputs/bench")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if not wanted.alone:
        probe = [*ALONE, "mount", "-t", "tmpfs", "tmpfs", tempfile.gettempdir()]
        if subprocess.run(probe, capture_output=True).returncode:
            print("Skipped: this system lets nobody mount a small file system")
            return
        os.execvp(ALONE[0], [*ALONE, *sys.orig_argv, "--alone"])
    record = Record(place_of("small_disk") if wanted.keep else None)
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        report = fill(Path(folder), wanted.sizes, workers=wanted.workers, record=record)
    print(json.dumps(report, indent=1))
    sys.exit(1 if report["differing"] else 0)


if __name__ == "__main__":
    main()
