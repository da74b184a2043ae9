"""The points at which what is on a disk can differ: counted in this process, and stopped at.

A point is an operation that changes what is below a folder, or makes it last: a file that is made
or emptied, a block that is written, a size that is set or set aside, an fsync, a renaming, a
deletion, a new folder. What changes nothing is none: a file that is opened to read, a lock, a
folder that is there already. Python's own operations are heard by the interpreter's audit hook; its
files are given a `write` that tells of each block that leaves the process. What torch and
safetensors write in C++ and Rust goes through such a file too, in blocks of 128 KiB: their own are
smaller, and would add thousands of points that differ in nothing but the length of a file that is
not finished. A process that counts is forked for it and ends with it: nothing is put back.
"""

import builtins
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.torch
import torch

from fusionkd_lib import runs

CHANGES = {
    "os.rename": "rename",
    "os.remove": "remove",
    "os.rmdir": "remove",
    "os.mkdir": "mkdir",
    "os.truncate": "truncate",
    "os.link": "link",
    "os.symlink": "link",
}
NEEDS_SPACE = ("open", "write", "mkdir", "allocate", "truncate", "link")
WAYS = ("kill", "tear", "full", "broken")
BLOCK, BLOCK_OF_TENSORS = 8192, 2**17  # bytes


class Points:
    """Count the points below a folder, and stop at one of them.

    Parameters
    ----------
    stop_at
        Which point, counted from 1; None only counts.
    way
        ``kill``: the process is killed before the operation, as by a power cut. ``tear``: at the
        next block that is written, half of it is written, then the process is killed. ``full``:
        from there on nothing that needs space gets any. ``broken``: the operation fails, once, with
        an I/O error.
    """

    def __init__(self, root: Path, stop_at: int | None = None, way: str = "kill") -> None:
        self.root, self.stop_at, self.way = os.path.abspath(root).rstrip("/"), stop_at, way
        self.met: list[str] = []

    def watch(self) -> None:
        """Begin; it stays until the process ends."""
        self.listen()
        self._open = builtins.open
        builtins.open = io.open = self.opened
        self._tell(os, "fsync", "fsync", lambda descriptor: path_of(descriptor))
        self._tell(os, "posix_fallocate", "allocate", lambda descriptor, *_: path_of(descriptor))
        self._tell(np.memmap, "flush", "flush", lambda array: array.filename)
        self._write_in_python()

    def listen(self) -> None:
        """Begin with what the interpreter tells of itself: no blocks, no fsync."""
        sys.addaudithook(self._hear)

    def meet(self, what: str, path: str, tear: Callable[[], object] | None = None) -> None:
        """Count a point, and stop there where it is the one."""
        if not self.holds(path):
            return
        self.met.append(f"{what} {name_of(path, self.root)}")
        n, at = len(self.met), self.stop_at or sys.maxsize
        if self.way == "tear" and n >= at and tear:
            tear()
        if (self.way == "kill" and n == at) or (self.way == "tear" and n >= at and tear):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.way == "full" and n >= at and what in NEEDS_SPACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if self.way == "broken" and n == at:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    def holds(self, path: object) -> bool:
        """Say whether something is a path below the folder."""
        is_path = isinstance(path, str | os.PathLike)
        return is_path and f"{os.path.abspath(path)}/".startswith(f"{self.root}/")

    def _hear(self, event: str, arguments: tuple) -> None:
        if event == "open" and self.holds(arguments[0]):
            if changes_by_opening(path := os.fspath(arguments[0]), arguments[2] or 0):
                self.meet("open", path)
        elif event in CHANGES and not isinstance(arguments[0], int):
            path = os.fspath(arguments[0])
            if os.path.lexists(path) != (event == "os.mkdir"):  # else it only fails
                self.meet(CHANGES[event], path)

    def _tell(self, owner: object, name: str, what: str, path: Callable[..., str]) -> None:
        """Have a function tell of itself before it does anything."""
        real = getattr(owner, name)

        def told(*arguments: object) -> object:
            self.meet(what, os.fspath(path(*arguments)))
            return real(*arguments)

        setattr(owner, name, told)

    def opened(
        self,
        file: object,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        **others: Any,
    ) -> IO:
        """Open a file as `open` does; one that is written below the folder tells of each block."""
        if not (self.holds(file) and set(mode) & set("wax+")):
            return self._open(file, mode, buffering, encoding, errors, newline, **others)
        raw = TellingFile(file, mode.replace("b", "").replace("t", ""), **others)
        raw.points = self
        if buffering == 0:
            return raw
        kind = io.BufferedRandom if "+" in mode else io.BufferedWriter
        buffered = kind(raw, buffering if buffering > 1 else BLOCK)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    def _write_in_python(self) -> None:
        save = torch.save

        def torch_save(value: object, path: Path) -> None:
            with open(path, "wb", BLOCK_OF_TENSORS) as file:
                save(value, file)

        def save_file(tensors: dict, path: Path) -> None:
            content = memoryview(safetensors.torch.save(tensors))
            with open(path, "wb", 0) as file:
                for start in range(0, len(content), BLOCK_OF_TENSORS):
                    file.write(content[start : start + BLOCK_OF_TENSORS])

        torch.save, runs.save_file = torch_save, save_file


class TellingFile(io.FileIO):
    """A file that tells of each block before it is written."""

    points: Points

    def write(self, block: bytes) -> int:
        """Write a block."""
        half = memoryview(block).cast("B")
        half = half[: len(half) // 2]
        self.points.meet("write", self.name, lambda: super(TellingFile, self).write(half))
        return super().write(block)


def changes_by_opening(path: str, flags: int) -> bool:
    """Say whether a file is made, or emptied, by opening it."""
    made = flags & os.O_CREAT and not os.path.lexists(path)
    return bool(made or (flags & os.O_TRUNC and os.path.exists(path) and os.path.getsize(path)))


def path_of(descriptor: int) -> str:
    """Return the path of an open file."""
    return os.readlink(f"/proc/self/fd/{descriptor}")


def name_of(path: str, root: str) -> str:
    """Return a path below a folder, without the process that a partial file is named after."""
    return re.sub(r"\.[^./]+-\d+-\d+\.partial$", ".partial", os.path.relpath(path, root or "/"))
