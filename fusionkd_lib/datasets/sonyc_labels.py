"""The labels of SONYC-UST: who heard what, the two levels of tags, and the agreed truth.

One row of the annotations is one annotator's view of a clip: a positive ``annotator_id`` is a
volunteer, a negative one a member of the lab's staff, and 0 the truth on which the staff agreed. A
tag is 1 or 0, or -1 where it was not annotated, which becomes NaN.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from fusionkd_lib.datasets import files
from fusionkd_lib.errors import InputError

ANNOTATIONS = "annotations.csv"
TAXONOMY = "dcase-ust-taxonomy.yaml"
COLUMNS = ("split", "sensor_id", "audio_filename", "annotator_id")
SPLITS = ("train", "validate")
PRESENCE = "_presence"
LEVELS = ("coarse", "fine")
COARSE_LABELS = ("shipped", "recomputed")

REMEDY = (
    f"give the folder that holds {ANNOTATIONS} and audio/, or run `fusionkd data fetch sonyc_ust`"
)


@dataclass(frozen=True)
class Taxonomy:
    """The challenge's two levels of tags.

    Parameters
    ----------
    coarse
        Category number -> name, such as ``1: "engine"``.
    fine
        Category number -> fine identifier -> name, such as ``1: {"1": "small-sounding-engine"}``.
        The identifier ``"X"`` is the incomplete tag: the category is heard, its fine tag unknown.
    """

    coarse: dict[int, str]
    fine: dict[int, dict[str, str]]

    def tags(self, level: str, *, incomplete: bool = False) -> tuple[str, ...]:
        """Return the 8 coarse or 23 fine tags as the annotations spell them; 29 with incomplete."""
        if level == "coarse":
            return tuple(f"{number}_{name}" for number, name in self.coarse.items())
        return tuple(tag for number in self.fine for tag in self.fine_tags(number, incomplete))

    def fine_tags(self, category: int, incomplete: bool = False) -> tuple[str, ...]:
        """Return the fine tags of one category, the incomplete one last if it is wanted."""
        return tuple(
            f"{category}-{identifier}_{name}"
            for identifier, name in self.fine[category].items()
            if incomplete or identifier != "X"
        )


def read_annotations(path: str | Path) -> pd.DataFrame:
    """Read ``annotations.csv``: one row per annotator and clip.

    Returns
    -------
    pandas.DataFrame
        The file's own columns and order; presence is 1, 0, or -1 where it was not annotated.

    Raises
    ------
    InputError
        If the file is missing or damaged, a clip is in both splits, or a split or presence has
        another value.
    """
    path = Path(path)
    annotations = files.read_table(path, COLUMNS, remedy=REMEDY)
    splits = annotations["split"].isin(SPLITS)
    files.check_rows(path, annotations, "split", splits, "must be train or validate")
    # Read as text where a single row is no number.
    annotators = pd.to_numeric(annotations["annotator_id"], errors="coerce")
    files.check_rows(path, annotations, "annotator_id", annotators.notna(), "must be a number")
    sensors = annotations["sensor_id"].notna()
    files.check_rows(path, annotations, "sensor_id", sensors, "must be a sensor's number")
    files.check_names(path, annotations, "audio_filename")
    first_split = annotations.groupby("audio_filename")["split"].transform("first")
    one_split = annotations["split"] == first_split
    files.check_rows(path, annotations, "audio_filename", one_split, "a clip has one split")
    for column in annotations.columns[annotations.columns.str.endswith(PRESENCE)]:
        known = pd.to_numeric(annotations[column], errors="coerce").isin([-1, 0, 1])
        files.check_rows(path, annotations, column, known, "must be 1, 0 or -1")
    return annotations


def read_taxonomy(path: str | Path) -> Taxonomy:
    """Read ``dcase-ust-taxonomy.yaml``.

    Raises
    ------
    InputError
        If the file is missing, not YAML, or lacks the coarse or the fine level of a category.
    """
    path = Path(path)
    content = files.read_bytes(path, remedy=REMEDY)
    try:
        levels = yaml.safe_load(content)
        coarse = {int(number): str(name) for number, name in levels["coarse"].items()}
        fine = {
            int(number): {str(identifier): str(name) for identifier, name in tags.items()}
            for number, tags in levels["fine"].items()
        }
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{path}: is not the challenge's taxonomy: fetch it again") from None
    if not coarse or set(coarse) != set(fine):
        raise InputError(f"{path}: its coarse and fine categories differ: fetch it again")
    return Taxonomy(coarse, {number: fine[number] for number in coarse})


def ground_truth(
    annotations: pd.DataFrame,
    taxonomy: Taxonomy,
    *,
    level: str = "coarse",
    coarse_labels: str = "shipped",
) -> pd.DataFrame:
    """Return the truth on which the staff agreed, for the validation clips.

    Parameters
    ----------
    annotations, taxonomy
        From `read_annotations` and `read_taxonomy`.
    level
        ``"coarse"``: 8 columns; ``"fine"``: 29, the incomplete tags included.
    coarse_labels
        ``"shipped"`` or ``"recomputed"``, as for `clips`.

    Returns
    -------
    pandas.DataFrame
        Index ``audio_filename``, sorted; one column per tag; 1.0, 0.0 or NaN (not annotated).

    Raises
    ------
    InputError
        If a tag has no column, or a validation clip has no truth or several.
    """
    presence = presence_of(
        annotations, taxonomy, level=level, coarse_labels=coarse_labels, incomplete=True
    )
    return agreed_truth(annotations, presence)


def choose(parameter: str, value: str, allowed: Collection[str]) -> None:
    """Raise an `InputError` that names the parameter unless its value is allowed."""
    if value not in allowed:
        raise InputError(f"{parameter}={value!r}: must be one of {', '.join(allowed)}")


def presence_of(
    annotations: pd.DataFrame,
    taxonomy: Taxonomy,
    *,
    level: str,
    coarse_labels: str,
    incomplete: bool,
) -> pd.DataFrame:
    """Return one float column per tag, rows as in the annotations, NaN where not annotated."""
    choose("level", level, LEVELS)
    choose("coarse_labels", coarse_labels, COARSE_LABELS)
    if level == "coarse" and coarse_labels == "recomputed":
        return pd.DataFrame(
            {
                tag: _columns(annotations, taxonomy.fine_tags(category, True)).max(axis=1)
                for category, tag in zip(taxonomy.coarse, taxonomy.tags("coarse"), strict=True)
            }
        )
    return _columns(annotations, taxonomy.tags(level, incomplete=incomplete))


def _columns(annotations: pd.DataFrame, tags: tuple[str, ...]) -> pd.DataFrame:
    missing = [tag for tag in tags if tag + PRESENCE not in annotations]
    if missing:
        raise InputError(
            f"the annotations lack the column {missing[0]}{PRESENCE}: fetch {ANNOTATIONS} again"
        )
    columns = annotations[[tag + PRESENCE for tag in tags]].astype(float)
    return columns.where(columns >= 0).set_axis(list(tags), axis=1)


def agreed_truth(annotations: pd.DataFrame, presence: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of annotator 0 in ``validate``, one per clip, by file name."""
    validating = annotations["split"] == "validate"
    agreed = validating & (annotations["annotator_id"] == 0)
    truth = presence[agreed].set_axis(annotations["audio_filename"][agreed], axis=0).sort_index()
    expected = sorted(annotations["audio_filename"][validating].unique())
    if truth.index.tolist() != expected:
        raise InputError(
            f"the annotations hold {len(truth):,} agreed truths (annotator_id 0) for "
            f"{len(expected):,} validation clips, not one per clip: fetch {ANNOTATIONS} again"
        )
    return truth
