"""UrbanSound8K: 8,732 clips of at most 4 s, ten classes, ten official folds.

The folds keep the clips of a recording together, with five exceptions (152 clips); they are never
reshuffled. Layout: ``metadata/UrbanSound8K.csv`` and ``audio/fold1`` to ``audio/fold10``.
"""

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
MD5 = "9aa69802bbf37fb986f71ec1483a196e"
# File of the record -> its checksum.
ARCHIVES = {"UrbanSound8K.tar.gz": f"md5:{MD5}"}
# The folder that the archive makes around the layout above.
ARCHIVE_ROOT = "UrbanSound8K"

# In the order of the metadata's class identifiers.
CLASSES = (
    "air_conditioner",
    "car_horn",
    "children_playing",
    "dog_bark",
    "drilling",
    "engine_idling",
    "gun_shot",
    "jackhammer",
    "siren",
    "street_music",
)
FOLDS = tuple(range(1, 11))
N_CLIPS = 8732
METADATA = "metadata/UrbanSound8K.csv"
COLUMNS = ("slice_file_name", "fsID", "fold", "classID", "class")

REMEDY = (
    "give the folder that holds metadata/ and audio/, or run `fusionkd data fetch urbansound8k`"
)


def clips(root: str | Path, *, allow_partial: bool = False, status: str | None = None) -> Clips:
    """List the clips of a copy of UrbanSound8K.

    Parameters
    ----------
    root
        The folder that holds ``metadata`` and ``audio``.
    allow_partial
        Whether a copy may lack clips; those that are there make the table.
    status
        What may be claimed of the audio; else told from what is there.

    Returns
    -------
    Clips
        In the metadata's order; ``fold`` 1 to 10, ``group`` the Freesound recording, targets
        (n,) int64. ``status`` is ``"real"`` of the whole dataset in its own ``.wav`` files, else
        ``"partial"``; ``note`` counts.

    Raises
    ------
    InputError
        If the folder is not the dataset, its metadata are damaged, or clips are missing and
        ``allow_partial`` is False.
    """
    metadata = read_metadata(Path(root) / METADATA)
    expected = _expected(metadata, Path(root))
    paths = files.locate(expected)
    files.require(
        expected, paths, n_clips=N_CLIPS, allow_partial=allow_partial, fetch="urbansound8k"
    )
    present = metadata.assign(path=paths).dropna(subset="path").reset_index(drop=True)
    found = present["path"].tolist()
    whole = len(present) == N_CLIPS and not files.reencoded(found)
    return Clips(
        dataset=NAME,
        classes=CLASSES,
        table=pd.DataFrame(
            {
                "clip": [Path(name).stem for name in present["slice_file_name"]],
                "fold": present["fold"],
                "group": present["fsID"].astype(str),
                "path": present["path"],
            }
        ),
        targets=present["classID"].to_numpy(np.int64),
        status=status or ("real" if whole else "partial"),
        read=files.reader(found),
        note=_note(metadata, present),
    )


def expected_files(root: str | Path) -> list[Path]:
    """List where the metadata say that the clips are, as the archive has them.

    Raises
    ------
    InputError
        If the metadata are missing or damaged.
    """
    return _expected(read_metadata(Path(root) / METADATA), Path(root))


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
    # Read as text where a single row is no number.
    folds = pd.to_numeric(metadata["fold"], errors="coerce")
    classes = pd.to_numeric(metadata["classID"], errors="coerce")
    files.check_rows(path, metadata, "fold", folds.isin(FOLDS), "must be 1 to 10")
    known = classes.isin(range(len(CLASSES)))
    files.check_rows(path, metadata, "classID", known, "must be 0 to 9")
    metadata = metadata.assign(fold=folds.astype(int), classID=classes.astype(int))
    named = metadata["class"] == [CLASSES[index] for index in metadata["classID"]]
    files.check_rows(path, metadata, "class", named, "must be the name of its classID")
    files.check_rows(path, metadata, "fsID", metadata["fsID"].notna(), "must be a recording's number")
    files.check_names(path, metadata, "slice_file_name")
    once = ~metadata["slice_file_name"].duplicated()
    files.check_rows(path, metadata, "slice_file_name", once, "appears twice")
    return metadata


def _expected(metadata: pd.DataFrame, root: Path) -> list[Path]:
    rows = zip(metadata["fold"], metadata["slice_file_name"], strict=True)
    return [root / "audio" / f"fold{fold}" / name for fold, name in rows]


def _note(metadata: pd.DataFrame, present: pd.DataFrame) -> str:
    """Say how many clips of which folds are there, and what they are."""
    if len(present) == N_CLIPS:
        parts = f"{N_CLIPS:,} clips in 10 official folds"
    else:
        listed, found = metadata["fold"].value_counts(), present["fold"].value_counts()
        folds = [
            f"fold {fold} {files.count(found[fold], listed[fold])}" for fold in sorted(found.index)
        ]
        parts = f"{len(present):,} of {N_CLIPS:,} clips: {', '.join(folds)}"
    return "; ".join(filter(None, [parts, files.reencoded(present["path"].tolist())]))
