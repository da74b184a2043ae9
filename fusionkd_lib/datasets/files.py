"""From the rows of a dataset's own table to the sound files that are there.

A clip is found by its stem, so that a re-encoded copy serves as well; a missing clip is an error
unless the caller allows a partial copy.
"""

from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path, PureWindowsPath

import numpy as np
import pandas as pd

from fusionkd_lib.audio import cannot_open, index_audio, load_mono
from fusionkd_lib.errors import InputError


def read_bytes(path: Path, *, remedy: str) -> bytes:
    """Read a file of a dataset.

    Parameters
    ----------
    path
        The file.
    remedy
        The way out where there is no such file, as the end of the error's sentence.

    Raises
    ------
    InputError
        If the file is missing, or the system does not let it be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise InputError(f"{path}: does not exist: {remedy}") from None
    except OSError as error:
        raise cannot_open(path, error) from error


def read_table(path: Path, columns: Sequence[str], *, remedy: str) -> pd.DataFrame:
    """Read a dataset's CSV file and require its columns.

    Parameters
    ----------
    path
        The CSV file.
    columns
        Names that the file must have; it may have others.
    remedy
        The way out where the file cannot be used, as the end of the error's sentence.

    Raises
    ------
    InputError
        If the file is missing, not a CSV file, empty, or lacks a column.
    """
    content = BytesIO(read_bytes(path, remedy=remedy))
    try:
        # One pass over the whole file, so that a column of mixed content gets one type.
        table = pd.read_csv(content, low_memory=False)
    except ValueError as error:  # pandas' parser errors are ValueErrors
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read as CSV ({reason}): {remedy}") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(f"{path}: lacks the column {missing[0]}: {remedy}")
    if table.empty:
        raise InputError(f"{path}: has no rows: {remedy}")
    return table


def check_rows(path: Path, table: pd.DataFrame, column: str, valid: pd.Series, rule: str) -> None:
    """Raise an `InputError` that gives the line of the first invalid row, and the rule."""
    if valid.all():
        return
    row = int(np.flatnonzero(~valid)[0])
    raise InputError(
        f"{path}, line {row + 2}: {column} is {table[column].iloc[row]!s}: {rule}; fetch the file "
        "again"
    )


def check_names(path: Path, table: pd.DataFrame, column: str) -> None:
    """Require the plain name of a file in each row, so that nothing outside the dataset is read."""
    # Windows' rules know slashes, backslashes and drives.
    plain = [isinstance(name, str) and PureWindowsPath(name).name == name for name in table[column]]
    rule = "must be the name of a sound file, without a folder"
    check_rows(path, table, column, pd.Series(plain, index=table.index), rule)


def locate(expected: Sequence[Path]) -> list[Path | None]:
    """Find each clip by the stem of its path, in any format; None where it is missing."""
    indices = {folder: index_audio(folder) for folder in {path.parent for path in expected}}
    return [indices[path.parent].get(path.stem) for path in expected]


def require(
    expected: Sequence[Path],
    found: Sequence[Path | None],
    *,
    n_clips: int,
    allow_partial: bool,
    fetch: str,
) -> None:
    """Refuse a copy without any clip, and one that lacks some unless that is allowed.

    Parameters
    ----------
    expected, found
        Where each listed clip should be, and what `locate` found.
    n_clips
        Number of clips of the dataset.
    allow_partial
        Whether some may be missing.
    fetch
        The dataset's name on the command line, for the way out.

    Raises
    ------
    InputError
        Gives the number of missing clips, the first of them, and both ways out.
    """
    absent = [path for path, there in zip(expected, found, strict=True) if there is None]
    rest = f"`fusionkd data fetch {fetch}` gets the rest"
    if len(absent) == len(expected):
        raise InputError(f"no clip is there, not even {absent[0]}: {rest}")
    ways_out = f"`allow_partial: true` uses a partial copy, or {rest}"
    if absent and not allow_partial:
        raise InputError(
            f"{len(absent):,} of {len(expected):,} clips are missing, the first {absent[0]}: "
            f"{ways_out}"
        )
    if len(expected) != n_clips and not allow_partial:
        raise InputError(f"{len(expected):,} clips are listed, not {n_clips:,}: {ways_out}")


def reencoded(paths: Sequence[Path]) -> str:
    """Return ``"re-encoded (.ogg)"``, naming the suffixes other than the ``.wav``, or ""."""
    suffixes = sorted({path.suffix.lower() for path in paths} - {".wav"})
    return f"re-encoded ({', '.join(suffixes)})" if suffixes else ""


def count(found: int, listed: int) -> str:
    """Return ``"873"`` for a whole part and ``"387 of 925"`` for another."""
    return f"{found:,}" if found == listed else f"{found:,} of {listed:,}"


def reader(paths: Sequence[Path]) -> Callable[[int, int], np.ndarray]:
    """Return ``read(index, sample_rate)`` -> (N,) float32, which can go to another process."""
    return partial(_read, tuple(paths))


def _read(paths: tuple[Path, ...], index: int, sample_rate: int) -> np.ndarray:
    return load_mono(paths[index], sample_rate=sample_rate)
