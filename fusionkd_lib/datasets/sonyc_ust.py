"""SONYC-UST as in DCASE 2019 Task 5: 10 s street scenes, 8 coarse and 23 fine tags.

Three volunteers annotated each training clip; the city lab's staff agreed on the truth of each
validation clip (``annotator_id`` 0). A tag is 1, 0, or NaN if it was not annotated.
Layout: ``annotations.csv``, ``dcase-ust-taxonomy.yaml``, ``audio/train``, ``audio/validate``.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from fusionkd_lib.datasets import files, sonyc_labels
from fusionkd_lib.datasets.clips import Clips
from fusionkd_lib.datasets.sonyc_labels import ANNOTATIONS, TAXONOMY
from fusionkd_lib.errors import choose

NAME = "SONYC-UST"
SOURCE = "https://zenodo.org/records/2590742"
LICENCE = "CC BY 4.0"
CITATION = (
    "M. Cartwright, A. E. Mendez Mendez, J. Cramer, V. Lostanlen, G. Dove, H.-H. Wu, J. Salamon, "
    "O. Nov and J. P. Bello, SONYC Urban Sound Tagging (SONYC-UST): A Multilabel Dataset from an "
    "Urban Acoustic Sensor Network, DCASE 2019 Workshop, New York, 2019."
)
# File of the record -> its checksum. We know none for this record: `fetch` stores the SHA-256 of
# each downloaded file, and `check` counts the clips.
ARCHIVES = {"annotations.csv": None, "dcase-ust-taxonomy.yaml": None, "audio.tar.gz": None}
# The archive contains audio/train and audio/validate, without a folder around them.
ARCHIVE_ROOT = ""

N_CLIPS = {"train": 2351, "validate": 443}
# How the volunteers' votes on a clip become one target; two of three are a majority.
VOTES = {
    "any": lambda votes: votes.max(),
    "majority": lambda votes: (votes.mean() > 0.5).astype(float).where(votes.count() > 0),
    "mean": lambda votes: votes.mean(),
}


def clips(
    root: str | Path,
    *,
    level: str = "coarse",
    labels: str = "any",
    coarse_labels: str = "shipped",
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
    allow_partial
        Whether a copy may lack clips; the table then lists those that exist.
    status
        What results on this audio may claim; by default derived from the folder's name
        ("stand-in") and from the clips found.

    Returns
    -------
    Clips
        Training clips first, by name; ``fold`` ``"train"`` or ``"validate"``, ``group`` the
        sensor, targets (n, K) float32 with NaN for a tag that was not annotated.

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
    vote = VOTES[choose("labels", labels, VOTES)]
    annotations = sonyc_labels.read_annotations(root / ANNOTATIONS)
    taxonomy = sonyc_labels.read_taxonomy(root / TAXONOMY)
    tags = {"level": level, "coarse_labels": coarse_labels}
    presence = sonyc_labels.presence_of(annotations, taxonomy, **tags)
    targets = _targets(annotations, presence, vote)
    listed = _listed(annotations, root).loc[targets.index]
    total = sum(N_CLIPS.values())
    present = files.found(listed, total=total, allow_partial=allow_partial, name="sonyc_ust")
    status = status or _status(root, present)
    return Clips(
        dataset=f"{NAME} stand-in" if status == "stand-in" else NAME,
        classes=tuple(presence.columns),
        table=present.reset_index(drop=True),
        targets=targets.loc[present.index].to_numpy(np.float32),
        status=status,
        read=files.reader(present["path"]),
        note=files.note(listed["fold"], present, total=len(listed)),
    )


def expected_files(root: str | Path) -> list[Path]:
    """List the paths of the annotated clips in the archive's layout.

    Raises
    ------
    InputError
        If the annotations are missing or damaged.
    """
    annotations = sonyc_labels.read_annotations(Path(root) / ANNOTATIONS)
    return _listed(annotations, Path(root))["path"].tolist()


def _targets(annotations: pd.DataFrame, presence: pd.DataFrame, vote: Callable) -> pd.DataFrame:
    """Return one row per clip, by file name: the training clips' votes, then the staff's truth."""
    volunteers = (annotations["split"] == "train") & (annotations["annotator_id"] > 0)
    votes = presence[volunteers].groupby(annotations["audio_filename"])
    return pd.concat([vote(votes), sonyc_labels.agreed_truth(annotations, presence)])


def _listed(annotations: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Return one row per clip, by file name; ``path`` is its place in the archive."""
    rows = annotations.drop_duplicates("audio_filename").set_index("audio_filename")
    paths = [root / "audio" / split / name for name, split in rows["split"].items()]
    clips, groups = [path.stem for path in paths], rows["sensor_id"].astype(str)
    columns = {"clip": clips, "fold": rows["split"], "group": groups, "path": paths}
    return pd.DataFrame(columns, index=rows.index)


def _status(root: Path, present: pd.DataFrame) -> str:
    names = f"{root.absolute().name} {root.resolve().name}".lower()  # a link's, and its folder's
    if "standin" in names.replace("-", "").replace("_", ""):
        return "stand-in"
    whole = present["fold"].value_counts().to_dict() == N_CLIPS
    return "real" if whole and not files.reencoded(present["path"]) else "partial"
