"""Your own sounds: a folder with a table, ``clips.csv``, or with one folder of sounds per class.

The table has one row per sound: its ``path`` in the folder; its ``label``, or several with ``;``
between them; its ``fold`` (1, 2, ...) or its ``split`` (train, validation or test); and, where that
is not the file itself, the ``recording`` that it was cut from. Without a table, the fold of a sound
is drawn from its path, so that no other sound moves it.
"""

from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd

from fusionkd_lib.audio import SUFFIXES
from fusionkd_lib.catalogue import DATASETS
from fusionkd_lib.datasets import files
from fusionkd_lib.datasets.clips import Clips
from fusionkd_lib.errors import InputError, seen
from fusionkd_lib.storage import digest

TABLE, N_FOLDS = "clips.csv", 5  # so many where there is no table
FOLDS = {str(fold): fold for fold in range(1, DATASETS["folder"].n_folds + 1)}
# With the defaults, `fold: 1` and `validation: next_fold`, each word means what it says.
SIDES = {"fold": FOLDS, "split": {"test": 1, "validation": 2, "train": 3}}
REMEDY = "write path, label, and fold or split, a row per sound"


def clips(root: str | Path, *, status: str | None = None) -> Clips:
    """List the sounds of a folder.

    Parameters
    ----------
    root
        The folder, with ``clips.csv`` or with one folder per class.
    status
        What results on these sounds may claim; by default ``"real"``.

    Returns
    -------
    Clips
        In the order of the table, or of the paths. ``clip`` is the stem of a file, or its path
        where two have one stem; classes are sorted; targets are (n, K) where a sound has several
        labels, else (n,). ``note`` says it where recordings are not known.

    Raises
    ------
    InputError
        If there are no sounds, a row of the table cannot be used, or a label cannot be both
        learned and tested.
    """
    found = _listed(Path(root), status or "real")
    if faults := _faults_of_labels(found):
        raise InputError(f"{root}: {faults[0]}")
    return found


def check(root: str | Path) -> dict[str, Any]:
    """Look for what is wrong with a folder, and read every header.

    Returns
    -------
    dict
        Plain data: ``root``; ``note``, as of `clips`; ``labels``, label -> its numbers of clips,
        recordings and folds; sentences, ``faults`` and, on what does no harm, ``remarks``;
        ``whole``, whether there is no fault.

    Raises
    ------
    InputError
        As `clips`, but for the faults of labels.
    """
    found = _listed(root := Path(root), "real")
    n_folds = found.table.groupby("group")["fold"].nunique()
    on_two = "is on two sides: give all of its clips one fold"
    split = [f"recording {seen(group)} {on_two}" for group in n_folds.index[n_folds > 1]]
    headers = [files.rate_or_fault(root, path) for path in found.table["path"]]
    rates = {rate for rate, fault in headers if not fault}
    faults = _faults_of_labels(found) + [fault for _, fault in headers if fault] + split
    mixed = f"the rates {', '.join(map(str, sorted(rates)))} Hz are mixed: all become sample_rate"
    told = {"root": str(root), "note": found.note, "labels": _spread(found).to_dict("index")}
    return told | {"faults": faults, "remarks": [mixed] * (len(rates) > 1), "whole": not faults}


def describe(report: dict[str, Any]) -> str:
    """Say on a few lines what `check` found."""
    labels = pd.DataFrame(report["labels"]).T.rename(seen).to_string()
    told = [f"{kind[:-1]}: {line}" for kind in ("faults", "remarks") for line in report[kind]]
    return "\n".join([f"{report['root']}: {report['note']}", labels, *told])


def _listed(root: Path, status: str) -> Clips:
    sounds, path = _sounds(root), root / TABLE
    listed = _read_table(path, sounds) if path.exists() else _by_folder(root, sounds)
    names, groups, paths = listed["path"], listed["group"], [root / x for x in listed["path"]]
    stems = pd.Series([path.stem for path in paths])
    table = listed[["fold", "group"]].assign(path=paths)
    table.insert(0, "clip", stems if stems.is_unique else names)
    tags = listed["label"].str.replace(r" *; *", ";", regex=True).str.strip().str.get_dummies(";")
    targets, single = tags.to_numpy(np.float32), tags.sum(axis=1).max() < 2
    targets = targets.argmax(axis=1) if single else targets
    note = f"{len(table):,} clips, {groups.nunique():,} recordings, {table['fold'].nunique()} folds"
    note += "; recordings are not named: one may be on two sides" * bool((groups == names).all())
    title, read = f"folder {seen(root.absolute().name)}", files.reader(paths)
    return Clips(title, tuple(tags), table, targets, status, read, note)


def _sounds(root: Path) -> list[str]:
    """Return the sounds inside a folder, but for what archivers and editors leave behind."""
    paths = [path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() in SUFFIXES]
    found = [str(path) for path in paths if not any(part[0] == "." for part in path.parts)]
    if not found or not all(map(str.isprintable, found)):
        fault = "holds no sounds, or one whose name is no text"
        raise InputError(f"{root}: {fault}: give it sounds in a folder per class, or {TABLE} too")
    return sorted(found)


def _read_table(path: Path, sounds: list[str]) -> pd.DataFrame:
    """Return the rows with ``path`` in POSIX style, ``label``, ``fold`` and ``group``, checked."""
    text = {"dtype": str, "keep_default_na": False}  # NA and 007 are labels
    listed = files.read_table(path, ("path", "label"), remedy=REMEDY, **text).fillna("")
    if len(side := [name for name in SIDES if name in listed]) != 1:
        raise InputError(f"{path}: needs either the column fold or the column split: {REMEDY}")
    check_that, given = partial(files.check_rows, path, remedy="mend that row"), listed["path"]
    names = given.map(lambda name: PureWindowsPath(name).as_posix())
    check_that(given, names.isin(sounds), "must be a sound inside the folder")
    check_that(given, ~names.duplicated(), "appears twice")
    labels, (folds, words) = listed["label"].str.strip("; "), (listed[side[0]], SIDES[side[0]])
    is_one = (labels != "") | labels.str.contains(";").any()
    check_that(listed["label"], is_one, "must be a label, since no sound has several")
    check_that(folds, folds.isin(words), f"must be one of {seen(', '.join(words), most=30)}")
    groups = listed.get("recording", names).where(lambda group: group != "", names)
    return listed.assign(path=names, fold=folds.map(words), group=groups)


def _by_folder(root: Path, sounds: list[str]) -> pd.DataFrame:
    """Return what `_read_table` does, of a folder whose folders are its labels."""
    if loose := [name for name in sounds if "/" not in name]:
        raise InputError(f"{root / loose[0]}: has no class: put it in a folder, or write {TABLE}")
    labels = [name.partition("/")[0] for name in sounds]
    folds = [int(digest(name), 16) % N_FOLDS + 1 for name in sounds]
    return pd.DataFrame({"path": sounds, "label": labels, "fold": folds, "group": sounds})


def _spread(found: Clips) -> pd.DataFrame:
    """Return the numbers of clips, recordings and folds of each label."""
    tags = found.targets if found.multi_label else np.eye(len(found.classes))[found.targets]
    rows, labels = np.nonzero(tags)
    of_label = found.table.iloc[rows].groupby(np.array(found.classes, object)[labels])
    counts = of_label[["clip", "group", "fold"]].nunique()
    return counts.set_axis(["clips", "recordings", "folds"], axis=1)


def _faults_of_labels(found: Clips) -> list[str]:
    counts = _spread(found).rename(seen)
    if len(counts) == 1:
        return [f"every sound has the label {counts.index[0]}: a tagger needs two labels"]
    few = counts[counts.min(axis=1) < 2]
    way_out = "to be learned and tested it takes two in two; add some, or leave it out"
    return [f"{x} has recordings: {n}, in folds: {m}: {way_out}" for x, _, n, m in few.itertuples()]
