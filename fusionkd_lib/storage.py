"""Hashing, atomic writing and locks.

Whoever is interrupted, a file is the old one or the whole new one.
"""

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from threading import get_ident
from typing import Any

import psutil
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from fusionkd_lib.errors import seen
from fusionkd_lib.reading import open_regular


def digest(value: object) -> str:
    """Return a short name, 16 hexadecimal digits, of plain data.

    >>> digest({"a": 1}) == digest({"a": 1}), digest({"a": 1}) == digest({"a": 2})
    (True, False)
    """
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to, whose file then takes the place of another in one step.

    Whatever happens, the file is the old one or the whole new one. What writers that were killed
    on this machine left in the folder is deleted.

    Raises
    ------
    OSError
        Whatever the library that writes says of a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    host = platform.node()
    for left in path.parent.glob(f"*.{host}-*-*.partial"):
        if not psutil.pid_exists(int(left.name.split("-")[-2])):
            left.unlink(missing_ok=True)
    partial = path.with_name(f"{path.name}.{host}-{os.getpid()}-{get_ident()}.partial")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (RuntimeError, SafetensorError) as error:  # torch and safetensors hide the system's
        raise OSError(f"{path}: cannot be written ({seen(error)})") from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write plain data as JSON for people and programs, atomically."""
    write_text(path, json.dumps(value, indent=1) + "\n")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock file; wait, and say for whom, where another process holds it.

    The lock is the operating system's: that of a process that died is free at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(path.name + ".lock"))
    holder = path.with_name(path.name + ".holder")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = "another process"
        with suppress(FileNotFoundError):  # where it is just being taken or given back
            who = holder.read_text()
        print(f"{path.name}: waiting for {who}", flush=True)
        lock.acquire()
    try:
        holder.write_text(f"process {os.getpid()} on {platform.node()}, since {datetime.now():%c}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
