"""Hashing, atomic writing, locks and the reading of YAML.

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

import yaml
from filelock import FileLock, Timeout

from fusionkd_lib.errors import InputError


def digest(value: object) -> str:
    """Return a short name, 16 hexadecimal digits, of plain data.

    >>> digest({"a": 1}) == digest({"a": 1}), digest({"a": 1}) == digest({"a": 2})
    (True, False)
    """
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to, whose file then takes the place of another in one step.

    Whatever happens, the file is the old one or the whole new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}-{get_ident()}.partial")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
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


class _Loader(yaml.SafeLoader):
    """Plain YAML, but a key may not stand twice in a mapping, where YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        known: dict[str, yaml.ScalarNode] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and known.setdefault(key.value, key) is not key:
                where = f"{self.name}: '{key.value}' in line {key.start_mark.line + 1}"
                raise InputError(f"{where} stands twice: keep one")
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a file of parameters as a mapping, not yet validated.

    Raises
    ------
    InputError
        If the file cannot be read, is no YAML mapping, or holds a key twice.
    """
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.load(file, _Loader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # an encoding, a 13th month
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f" in line {line + 1}" if line is not None else ""
        raise InputError(f"{path}: is not YAML{where}: write one key: value a line") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no parameters: write one key: value a line")
    return values
