"""UrbanSound8K: 8,732 clips of at most 4 s, ten classes, ten official folds.

The folds keep the clips of a recording together, with five exceptions (152 clips); they are never
reshuffled. Layout: ``metadata/UrbanSound8K.csv`` and ``audio/fold1`` to ``audio/fold10``.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from fusionkd_lib.datasets import files
from fusionkd_lib.datasets.clips import Clips

NAME = "UrbanSound8K"
SOURCE = "https://zenodo.org/records/1203745"
LICENCE = "CC BY-NC 3.0"
CITATION = (
    "J. Salamon, C. Jacoby and J. P. Bello, A Dataset and Taxonomy for Urban Sound Research, "
    "22nd ACM International Conference on Multimedia, Orlando, 2014."
)
# File of the record -> its checksum, and its bytes.
ARCHIVES = {"UrbanSound8K.tar.gz": "md5:9aa69802bbf37fb986f71ec1483a196e"}
SIZES = {"UrbanSound8K.tar.gz": 6_023_741_708}
# The archive's top folder, around the layout above.
ARCHIVE_ROOT = "UrbanSound8K"

# In the order of the metadata's class identifiers.
CLASSES = ("air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling")
CLASSES += ("engine_idling", "gun_shot", "jackhammer", "siren", "street_music")
N_CLIPS = 8732
METADATA = "metadata/UrbanSound8K.csv"
COLUMNS = ("slice_file_name", "fsID", "fold", "classID", "class")

REMEDY = "give the folder with metadata/ and audio/, or run `fusionkd data fetch urbansound8k`"


def clips(root: str | Path, *, allow_partial: bool = False, status: str | None = None) -> Clips:
    """List the clips of a copy of UrbanSound8K.

    Parameters
    ----------
    root
        The folder that holds ``metadata`` and ``audio``.
    allow_partial
        Whether a copy may lack clips; the table then lists those that exist.
    status
        What results on this audio may claim; by default derived from the clips found.

    Returns
    -------
    Clips
        In the metadata's order; ``fold`` 1 to 10, ``group`` the Freesound recording, targets
        (n,) int64. ``status`` is ``"real"`` for the whole dataset in its own ``.wav`` files,
        otherwise ``"partial"``; ``note`` gives the numbers of clips.

    Raises
    ------
    InputError
        If the folder is not the dataset, its metadata are damaged, or clips are missing and
        ``allow_partial`` is False.
    """
    listed = _listed(Path(root))
    present = files.found(listed, total=N_CLIPS, allow_partial=allow_partial, name="urbansound8k")
    reencoded = files.reencoded(present["path"])
    if len(present) == N_CLIPS:
        note = f"{N_CLIPS:,} clips in 10 official folds{reencoded}"
    else:
        folds = listed["fold"][listed["fold"].isin(present["fold"])]
        note = files.note(folds, present, total=N_CLIPS, part="fold ")
    whole = len(present) == N_CLIPS and not reencoded
    return Clips(
        dataset=NAME,
        classes=CLASSES,
        table=present[["clip", "fold", "group", "path"]].reset_index(drop=True),
        targets=present["classID"].to_numpy(np.int64),
        status=status or ("real" if whole else "partial"),
        read=files.reader(present["path"]),
        note=note,
    )


def expected_files(root: str | Path) -> list[Path]:
    """List the paths of the clips in the archive's layout.

    Raises
    ------
    InputError
        If the metadata are missing or damaged.
    """
    return _listed(Path(root))["path"].tolist()


def read_metadata(path: str | Path) -> pd.DataFrame:
    """Read ``UrbanSound8K.csv`` and check every fold and class.

    Returns
    -------
    pandas.DataFrame
        The file's own columns and order.

    Raises
    ------
    InputError
        If the file is missing or damaged, or a fold or class is not one of the dataset's.
    """
    path = Path(path)
    metadata = files.read_table(path, COLUMNS, remedy=REMEDY)
    check = partial(files.check_rows, path)
    # Read as text where a single row is no number.
    folds = pd.to_numeric(metadata["fold"], errors="coerce")
    classes = pd.to_numeric(metadata["classID"], errors="coerce")
    named, names = classes.map(dict(enumerate(CLASSES))), metadata["slice_file_name"]
    check(metadata["fold"], folds.isin(range(1, 11)), "must be 1 to 10")
    check(metadata["classID"], named.notna(), "must be 0 to 9")
    check(metadata["class"], metadata["class"] == named, "must be the name of its classID")
    check(metadata["fsID"], metadata["fsID"].notna(), "must be the number of a recording")
    files.check_names(path, names)
    check(names, ~names.duplicated(), "appears twice")
    return metadata.assign(fold=folds.astype(int), classID=classes.astype(int))


def _listed(root: Path) -> pd.DataFrame:
    """Return the metadata with the clip table's columns; ``path`` is its place in the archive."""
    metadata = read_metadata(root / METADATA)
    rows = zip(metadata["fold"], metadata["slice_file_name"], strict=True)
    paths = [root / "audio" / f"fold{fold}" / name for fold, name in rows]
    clips, groups = [path.stem for path in paths], metadata["fsID"].astype(str)
    return metadata.assign(clip=clips, group=groups, path=paths)
