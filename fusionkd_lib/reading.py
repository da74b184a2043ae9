"""The one door for text that others wrote: YAML, JSON and CSV, small and unambiguous, or refused.

Only regular files are read, and no more of them than is sensible. What the three formats leave open
is closed: no aliases or merge keys, no key or column twice, nothing deeply nested, no number of
endless digits. Faults are `ValueError`, a sentence without the file, which the caller knows.
"""

import json
import os
import stat
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import yaml

from fusionkd_lib.errors import InputError, seen

MOST_BYTES, MOST_BYTES_OF_YAML = 2**26, 2**16  # YAML is slow, and our longest file has 2 KiB
DEEPEST, LONGEST = 20, 1000  # levels; characters of a value


def open_regular(path: str | Path, *, remedy: str = "check the path") -> BinaryIO:
    """Open a file to read, unless it is a pipe or a device, which may never end.

    Parameters
    ----------
    remedy
        What to do if there is no such file; ends the error message.

    Raises
    ------
    InputError
        If the file is missing, no regular one, or the system does not let it be read.
    """
    # Without O_NONBLOCK a pipe that nobody writes to would be waited for.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        file = open(path, "rb", opener=lambda name, _: os.open(name, flags))  # noqa: SIM115
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: does not exist: {remedy}") from None
    except OSError as error:
        raise cannot_open(path, error) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InputError(f"{path}: is no regular file: {remedy}")
    return file


def cannot_open(path: str | Path, error: OSError) -> InputError:
    """Return the error of a file that the system does not open; it may be a good one."""
    return InputError(f"{path}: cannot be opened ({error.strerror}): fix that and try again")


def read_bytes(path: str | Path, *, remedy: str, most: int = MOST_BYTES) -> bytes:
    """Read a regular file whole; one of more than `most` bytes is an `InputError` too."""
    with open_regular(path, remedy=remedy) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise InputError(f"{path}: has more than {most:,} bytes: {remedy}")
    return content


class _Loader(yaml.SafeLoader):
    """Plain YAML without what can be read in two ways, or grows as it is read."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        self.depth += 1
        if self.check_event(yaml.AliasEvent) or self.depth > DEEPEST:
            raise _odd("an alias, or too many levels", self.peek_event())
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node.id == "scalar" and (len(node.value) > LONGEST or not node.value.isprintable()):
            raise _odd("too long a value, or a character that is no text", node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        values: dict[Any, Any] = {}
        for key_node, value in node.value:
            key = self.construct_object(key_node, deep=True)  # refuses a merge key
            if key in values:
                raise _odd(f"'{seen(key)}' stands twice", key_node)
            values[key] = self.construct_object(value, deep=deep)
        return values


def _odd(problem: str, place: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def parse_yaml(content: bytes) -> Any:
    """Return the plain data of a YAML document; a `ValueError` says what is wrong with it."""
    if len(content) > MOST_BYTES_OF_YAML:
        raise ValueError(f"has more than {MOST_BYTES_OF_YAML:,} bytes: write less")
    try:
        return yaml.load(content, _Loader)
    except (yaml.YAMLError, ValueError, TypeError) as error:  # an encoding, a 13th month
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1} ({seen(error.problem)})" if mark else ""
        raise ValueError(f"is not YAML{where}: write one key: value a line") from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a file of parameters as a mapping, not yet validated.

    Raises
    ------
    InputError
        If the file cannot be read, is no YAML mapping, or can be read in two ways.
    """
    content = read_bytes(path, remedy="check the path")
    try:
        values = parse_yaml(content)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no parameters: write one key: value a line")
    return values


def parse_json(content: bytes) -> Any:
    """Return the plain data of a JSON document, whose keys are unique.

    Raises
    ------
    ValueError, RecursionError
        If a key stands twice, or a number or the nesting has no end.
    """
    return json.loads(content, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(values := dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return values


def parse_csv(content: bytes, **options: Any) -> pd.DataFrame:
    """Return the table of a CSV document, whose columns are named once; options as of pandas."""
    # Where rows are longer than their header, pandas would take the first column for names of rows.
    first = pd.read_csv(BytesIO(content), header=None, nrows=2, dtype=str)
    if first.iloc[0].duplicated().any():
        raise ValueError("not every column has a name of its own")
    # One pass over the whole file, so that a column of mixed content gets one type.
    return pd.read_csv(BytesIO(content), low_memory=False, **options)
