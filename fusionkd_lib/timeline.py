"""Tagged recordings as text: JSON lines, a CSV table of windows, label tracks for Audacity.

Each function takes what `tagging.tag_file` returns with ``windows``, as plain data.
"""

import csv
import io
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from fusionkd_lib.audio import SUFFIXES
from fusionkd_lib.errors import seen

STANDARD_INPUT = Path("-")


def as_json(result: dict[str, Any]) -> str:
    """Return one line, in ASCII, since the name of a file may hold what a terminal obeys."""
    return json.dumps(result)


def csv_header(labels: Sequence[str]) -> str:
    """Return the first line of a CSV table of windows."""
    return _csv([["file", "start_seconds", "end_seconds", *labels]])


def as_csv(result: dict[str, Any]) -> str:
    """Return a row for each window: file, start and end in seconds, the score of each label.

    >>> window = {"start_seconds": 0.0, "end_seconds": 0.5, "scores": {"dog": 0.75, "siren": 0.25}}
    >>> as_csv({"file": "a, b.wav", "windows": [window]})
    '"a, b.wav",0.0,0.5,0.75,0.25'
    """
    name = seen(result["file"], most=10_000)  # whole: no system has longer ones
    rows = [
        [name, window["start_seconds"], window["end_seconds"], *window["scores"].values()]
        for window in result["windows"]
    ]
    return _csv(rows)


def as_audacity(result: dict[str, Any]) -> str:
    """Return a line for each stretch of a tag: start, end, label, as Audacity imports labels.

    Windows that touch or overlap and have the same tag are one stretch.

    >>> spans = [(0, 1, ["dog"]), (1, 2, ["dog", "siren"]), (2, 3, ["siren"])]
    >>> windows = [{"start_seconds": a, "end_seconds": b, "tags": tags} for a, b, tags in spans]
    >>> print(as_audacity({"windows": windows}))
    0.000000	2.000000	dog
    1.000000	3.000000	siren
    """
    stretches, open_now = [], {}
    for window in result["windows"]:
        open_now = {tag: open_now[tag] for tag in window["tags"] if tag in open_now}
        for tag in window["tags"]:
            if tag not in open_now:
                open_now[tag] = [window["start_seconds"], None, tag]
                stretches.append(open_now[tag])
            open_now[tag][1] = window["end_seconds"]
    return "\n".join(f"{start:.6f}\t{end:.6f}\t{tag}" for start, end, tag in sorted(stretches))


FORMATS = {"json": as_json, "csv": as_csv, "audacity": as_audacity}


def sounds_in(paths: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Yield sounds and their names: those given, all below a folder, standard input."""
    for path in paths:
        if path == STANDARD_INPUT:
            # A sound is read to and fro: on disk, so that memory does not grow with it.
            with NamedTemporaryFile(prefix="standard-input-") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
                file.flush()
                yield "-", Path(file.name)
        elif path.is_dir():
            found = sorted(x for x in path.rglob("*") if x.suffix.lower() in SUFFIXES)
            # One that holds none is refused as a file would be, and stops no other.
            yield from ((str(sound), sound) for sound in found or [path])
        else:
            yield str(path), path


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().rstrip("\n")
