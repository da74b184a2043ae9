"""Find the sound files that a dataset's own table lists.

Clips are matched by stem, so that a re-encoded copy works as well; a missing clip is an error
unless the caller allows a partial copy.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd

from fusionkd_lib.audio import index_audio, load_mono, read_header
from fusionkd_lib.errors import InputError, seen
from fusionkd_lib.reading import parse_csv, read_bytes

FETCH = "fetch the file again"


def read_table(path: Path, columns: Sequence[str], *, remedy: str, **options: Any) -> pd.DataFrame:
    """Read a dataset's CSV file and require its columns.

    Parameters
    ----------
    path
        The CSV file.
    columns
        Columns that the file must have; it may have others.
    remedy
        What to do if the file cannot be used; ends the error message.
    options
        As of pandas.

    Raises
    ------
    InputError
        If the file is missing, not a CSV file, empty, or lacks a column.
    """
    content = read_bytes(path, remedy=remedy)
    try:
        table = parse_csv(content, **options)
    except ValueError as error:  # pandas' parser errors are ValueErrors
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read as CSV ({reason}): {remedy}") from error
    table.attrs["source"] = str(path)
    require_columns(table, columns, where=str(path), remedy=remedy)
    if table.empty:
        raise InputError(f"{path}: has no rows: {remedy}")
    return table


def require_columns(table: pd.DataFrame, names: Iterable[str], *, where: str, remedy: str) -> None:
    """Raise an `InputError` that names the first column that a table lacks, and the remedy."""
    for name in names:
        if name not in table:
            raise InputError(f"{where}: lacks the column {name}: {remedy}")


def check_rows(
    path: Path, column: pd.Series, valid: pd.Series, rule: str, *, remedy: str = FETCH
) -> None:
    """Raise an `InputError` that gives the line of the first invalid row, rule and remedy."""
    if not valid.all():
        row = int(np.flatnonzero(~valid)[0])
        place = f"{path}, line {row + 2}: {column.name} is {seen(column.iloc[row])}"
        raise InputError(f"{place}: {rule}; {remedy}")


def check_names(path: Path, column: pd.Series) -> None:
    """Require the plain name of a file in each row, so that nothing outside the dataset is read."""
    # Windows' rules know slashes, backslashes and drives.
    plain = column.map(lambda name: isinstance(name, str) and PureWindowsPath(name).name == name)
    check_rows(path, column, plain, "must be the name of a sound file, without a folder")


def locate(expected: Sequence[Path]) -> list[Path | None]:
    """Find each clip by the stem of its path, in any format; None if it is missing."""
    indices = {folder: index_audio(folder) for folder in {path.parent for path in expected}}
    return [indices[path.parent].get(path.stem) for path in expected]


def found(listed: pd.DataFrame, *, total: int, allow_partial: bool, name: str) -> pd.DataFrame:
    """Return the rows whose clip exists, with ``path`` replaced by the file that was found.

    Parameters
    ----------
    listed
        One row per clip; ``path`` is its place in the published archive.
    total
        Number of clips of the dataset.
    allow_partial
        Whether some may be missing.
    name
        The dataset's name on the command line, for the way out.

    Raises
    ------
    InputError
        If no clip exists, or some are missing and that is not allowed; the message gives their
        number, the first of them, and both ways out.
    """
    paths = pd.Series(locate(listed["path"].tolist()), index=listed.index, dtype=object)
    absent = listed["path"][paths.isna()].tolist()
    rest = f"`fusionkd data fetch {name}` gets the rest"
    if len(absent) == len(listed):
        raise InputError(f"no clip is there, not even {absent[0]}: {rest}")
    if not allow_partial and (absent or len(listed) != total):
        fault = f"{len(listed):,} clips are listed, not {total:,}"
        if absent:
            fault = f"{len(absent):,} of {len(listed):,} clips are missing, the first {absent[0]}"
        raise InputError(f"{fault}: `allow_partial: true` uses a partial copy, or {rest}")
    return listed.assign(path=paths).dropna(subset="path")


def rate_or_fault(root: Path, path: Path) -> tuple[int, str]:
    """Return a sound's rate in Hz and "", or 0 and what is wrong with its header."""
    try:
        return read_header(path)[1], ""
    except InputError as error:
        return 0, str(error).replace(str(path), path.relative_to(root).as_posix(), 1)


def reencoded(paths: Iterable[Path]) -> str:
    """Return ``"; re-encoded (.ogg)"``, naming the suffixes other than ``.wav``, or ""."""
    suffixes = sorted({path.suffix.lower() for path in paths} - {".wav"})
    return f"; re-encoded ({', '.join(suffixes)})" if suffixes else ""


def count(found: int, listed: int) -> str:
    """Return ``"873"`` for a whole part and ``"387 of 925"`` for another."""
    return f"{found:,}" if found == listed else f"{found:,} of {listed:,}"


def count_parts(listed: Iterable, found: Iterable) -> dict[Any, str]:
    """Count the clips of each part, given the part of each clip; fold 10 comes after fold 9."""
    listed, found = Counter(listed), Counter(found)
    parts = sorted(listed, key=lambda part: (len(str(part)), part))
    return {part: count(found[part], listed[part]) for part in parts}


def note(listed: pd.Series, present: pd.DataFrame, *, total: int, part: str = "") -> str:
    """Give the number of clips, in total and in each part, and whether they are re-encoded.

    Parameters
    ----------
    listed, present
        The fold of each clip that is listed; the rows of those that were found.
    total
        Number of clips of the dataset.
    part
        What stands before the name of a fold.
    """
    parts = count_parts(listed, present["fold"])
    counts = ", ".join(f"{part}{name} {number}" for name, number in parts.items())
    return f"{count(len(present), total)} clips: {counts}{reencoded(present['path'])}"


def reader(paths: Iterable[Path]) -> Callable[[int, int], np.ndarray]:
    """Return ``read(index, sample_rate)`` -> (N,) float32, which can go to another process."""
    return partial(_read, tuple(paths))


def _read(paths: tuple[Path, ...], index: int, sample_rate: int) -> np.ndarray:
    return load_mono(paths[index], sample_rate=sample_rate)
