"""SONYC-UST as in DCASE 2019 Task 5: 10 s street scenes, 8 coarse and 23 fine tags.

Three volunteers annotated each training clip; the city lab's staff agreed on the truth of each
validation clip (``annotator_id`` 0). A tag is 1, 0, or -1 where it was not annotated, which becomes
NaN. Layout: ``annotations.csv``, ``dcase-ust-taxonomy.yaml``, ``audio/train``, ``audio/validate``.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from fusionkd_lib.datasets import files
from fusionkd_lib.datasets.clips import Clips
from fusionkd_lib.datasets.sonyc_labels import (
    ANNOTATIONS,
    TAXONOMY,
    Taxonomy,
    agreed_truth,
    choose,
    ground_truth,
    presence_of,
    read_annotations,
    read_taxonomy,
)

__all__ = [
    "Taxonomy",
    "clips",
    "expected_files",
    "ground_truth",
    "read_annotations",
    "read_taxonomy",
]

NAME = "SONYC-UST"
SOURCE = "https://zenodo.org/records/2590742"
LICENCE = "CC BY 4.0"
CITATION = (
    "M. Cartwright, A. E. Mendez Mendez, J. Cramer, V. Lostanlen, G. Dove, H.-H. Wu, J. Salamon, "
    "O. Nov and J. P. Bello, SONYC Urban Sound Tagging (SONYC-UST): A Multilabel Dataset from an "
    "Urban Acoustic Sensor Network, DCASE 2019 Workshop, New York, 2019."
)
# File of the record -> its checksum. None is known to us for this record: what is fetched is
# recorded with the SHA-256 found, and `check` counts what it holds.
ARCHIVES = {"annotations.csv": None, "dcase-ust-taxonomy.yaml": None, "audio.tar.gz": None}
# The archive makes audio/train and audio/validate, with no folder around them.
ARCHIVE_ROOT = ""

N_CLIPS = {"train": 2351, "validate": 443}
# How volunteers' votes on a clip become one target. Two of three are a majority.
VOTES = {
    "any": lambda votes: votes.max(),
    "majority": lambda votes: (votes.mean() > 0.5).astype(float).where(votes.count() > 0),
    "mean": lambda votes: votes.mean(),
}
STATUSES = ("real", "partial", "stand-in", "synthetic")


def clips(
    root: str | Path,
    *,
    level: str = "coarse",
    labels: str = "any",
    coarse_labels: str = "shipped",
    incomplete: bool = False,
    allow_partial: bool = False,
    status: str | None = None,
) -> Clips:
    """List the clips of a copy of SONYC-UST, or of a stand-in that carries its labels.

    Parameters
    ----------
    root
        The folder that holds the annotations, the taxonomy and ``audio``.
    level
        ``"coarse"``: 8 tags; ``"fine"``: 23.
    labels
        Training targets from the volunteers: ``"any"`` of them, the ``"majority"``, or the
        ``"mean"`` vote in [0, 1]. Validation targets are the staff's agreed truth in any case.
    coarse_labels
        ``"shipped"``: the coarse columns of the challenge, where 2_machinery-impact is 1 for
        3-1_non-machinery-impact as well (482 rows are wrong); ``"recomputed"``: any fine tag of
        the category, the incomplete one included.
    incomplete
        Whether the fine level has the 6 incomplete tags too: 29.
    allow_partial
        Whether a copy may lack clips; those that are there make the table.
    status
        What may be claimed of the audio; else told from the folder's name ("stand-in") and from
        what is there.

    Returns
    -------
    Clips
        Training clips first, by name; ``fold`` ``"train"`` or ``"validate"``, ``group`` the
        sensor, targets (n, K) float32 with NaN where a tag was not annotated.

    Raises
    ------
    InputError
        If a parameter is none of the above, the folder is not the dataset, its annotations are
        damaged, or clips are missing and ``allow_partial`` is False.

    Source
    ------
    M. Cartwright et al., SONYC Urban Sound Tagging, DCASE 2019 Workshop; Task 5 of the challenge.
    """
    root = Path(root)
    choose("labels", labels, VOTES)
    annotations = read_annotations(root / ANNOTATIONS)
    taxonomy = read_taxonomy(root / TAXONOMY)
    presence = presence_of(
        annotations, taxonomy, level=level, coarse_labels=coarse_labels, incomplete=incomplete
    )
    truth = agreed_truth(annotations, presence)
    names = annotations["audio_filename"]
    volunteers = (annotations["split"] == "train") & (annotations["annotator_id"] > 0)
    votes = presence[volunteers].groupby(names[volunteers])
    targets = pd.concat([VOTES[labels](votes), truth])
    table, expected = _table(annotations, root, order=targets.index)
    files.require(
        expected,
        table["path"].tolist(),
        n_clips=sum(N_CLIPS.values()),
        allow_partial=allow_partial,
        fetch="sonyc_ust",
    )
    there = table["path"].notna().to_numpy()
    present = table[there].reset_index(drop=True)
    status = _status(root, present, status)
    return Clips(
        dataset=f"{NAME} stand-in" if status == "stand-in" else NAME,
        classes=tuple(presence.columns),
        table=present,
        targets=targets.to_numpy(np.float32)[there],
        status=status,
        read=files.reader(present["path"].tolist()),
        note=_note(table, present),
    )


def expected_files(root: str | Path) -> list[Path]:
    """List where the annotations say that the clips are, as the archive has them.

    Raises
    ------
    InputError
        If the annotations are missing or damaged.
    """
    root = Path(root)
    rows = read_annotations(root / ANNOTATIONS).drop_duplicates("audio_filename")
    return _expected(rows["split"], rows["audio_filename"], root)


def _table(
    annotations: pd.DataFrame, root: Path, *, order: pd.Index
) -> tuple[pd.DataFrame, list[Path]]:
    """Return one row a clip, in that order of file names, and where its file should be."""
    rows = annotations.drop_duplicates("audio_filename").set_index("audio_filename").loc[order]
    expected = _expected(rows["split"], order, root)
    table = pd.DataFrame(
        {
            "clip": [path.stem for path in expected],
            "fold": rows["split"].to_numpy(),
            "group": rows["sensor_id"].astype(str).to_numpy(),
            "path": pd.Series(files.locate(expected), dtype=object),  # None where it is missing
        }
    )
    return table, expected


def _expected(splits: Iterable[str], names: Iterable[str], root: Path) -> list[Path]:
    pairs = zip(splits, names, strict=True)
    return [root / "audio" / split / name for split, name in pairs]


def _status(root: Path, present: pd.DataFrame, status: str | None) -> str:
    if status is not None:
        choose("status", status, STATUSES)
        return status
    names = f"{root.absolute().name} {root.resolve().name}".lower()  # a link's, and its folder's
    if "standin" in names.replace("-", "").replace("_", ""):
        return "stand-in"
    whole = present["fold"].value_counts().to_dict() == N_CLIPS
    return "real" if whole and not files.reencoded(present["path"].tolist()) else "partial"


def _note(table: pd.DataFrame, present: pd.DataFrame) -> str:
    """Say how many clips of which split are there, and what they are."""
    parts = ", ".join(
        f"{split} {files.count((present['fold'] == split).sum(), (table['fold'] == split).sum())}"
        for split in N_CLIPS
    )
    total = f"{files.count(len(present), len(table))} clips: {parts}"
    return "; ".join(filter(None, [total, files.reencoded(present["path"].tolist())]))
