"""The labels of SONYC-UST: annotators' votes, two levels of tags, and the agreed truth.

One row of the annotations is one annotator's view of a clip: a positive ``annotator_id`` is a
volunteer, a negative one a member of the lab's staff, and 0 the truth on which the staff agreed. A
tag is 1, 0, or -1 if it was not annotated; -1 becomes NaN.
"""

from functools import partial
from pathlib import Path

import pandas as pd
from pydantic.dataclasses import dataclass

from fusionkd_lib.datasets import files
from fusionkd_lib.errors import InputError, choose
from fusionkd_lib.reading import parse_yaml, read_bytes

ANNOTATIONS = "annotations.csv"
TAXONOMY = "dcase-ust-taxonomy.yaml"
COLUMNS = ("split", "sensor_id", "audio_filename", "annotator_id")
PRESENCE = "_presence"
LEVELS = ("coarse", "fine")

REMEDY = f"give the folder with {ANNOTATIONS} and audio/, or run `fusionkd data fetch sonyc_ust`"


@dataclass(frozen=True, config={"coerce_numbers_to_str": True})
class Taxonomy:
    """The challenge's two levels of tags.

    Parameters
    ----------
    coarse
        Category number -> name, such as ``1: "engine"``.
    fine
        Category number -> fine identifier -> name, such as ``1: {"1": "small-sounding-engine"}``.
        The identifier ``"X"`` is the incomplete tag: the category is audible, its fine tag unknown.
    """

    coarse: dict[int, str]
    fine: dict[int, dict[str, str]]

    def tags(self, level: str, *, incomplete: bool = False) -> tuple[str, ...]:
        """Return the 8 coarse or 23 fine tags as the annotations spell them; 29 with incomplete."""
        if level == "coarse":
            return tuple(f"{number}_{name}" for number, name in self.coarse.items())
        return tuple(tag for number in self.coarse for tag in self.fine_tags(number, incomplete))

    def fine_tags(self, category: int, incomplete: bool = False) -> tuple[str, ...]:
        """Return the fine tags of one category, the incomplete one last if it is wanted."""
        tags = self.fine[category].items()
        return tuple(f"{category}-{key}_{name}" for key, name in tags if incomplete or key != "X")


def read_annotations(path: str | Path) -> pd.DataFrame:
    """Read ``annotations.csv``: one row per annotator and clip.

    Returns
    -------
    pandas.DataFrame
        The file's own columns and order; presence is 1, 0, or -1 if it was not annotated.

    Raises
    ------
    InputError
        If the file is missing or damaged, a clip is in both splits, or a split or presence has
        another value.
    """
    path = Path(path)
    annotations = files.read_table(path, COLUMNS, remedy=REMEDY)
    check = partial(files.check_rows, path)
    split, sensor, clip, annotator = (annotations[column] for column in COLUMNS)
    check(split, split.isin(["train", "validate"]), "must be train or validate")
    # Read as text where a single row is no number.
    check(annotator, pd.to_numeric(annotator, errors="coerce").notna(), "must be a number")
    check(sensor, sensor.notna(), "must be the number of a sensor")
    files.check_names(path, clip)
    check(clip, split == split.groupby(clip).transform("first"), "a clip has one split")
    for column in annotations.columns[annotations.columns.str.endswith(PRESENCE)]:
        presence = pd.to_numeric(annotations[column], errors="coerce")
        check(annotations[column], presence.isin([-1, 0, 1]), "must be 1, 0 or -1")
    return annotations


def read_taxonomy(path: str | Path) -> Taxonomy:
    """Read ``dcase-ust-taxonomy.yaml``.

    Raises
    ------
    InputError
        If the file is missing, not YAML, or lacks the coarse or the fine level of a category.
    """
    path = Path(path)
    content = read_bytes(path, remedy=REMEDY)
    try:
        levels = parse_yaml(content)
        taxonomy = Taxonomy(levels["coarse"], levels["fine"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: is not the challenge's taxonomy: fetch it again") from None
    if not taxonomy.coarse or set(taxonomy.coarse) != set(taxonomy.fine):
        raise InputError(f"{path}: its coarse and fine categories differ: fetch it again")
    return taxonomy


def presence_of(
    annotations: pd.DataFrame,
    taxonomy: Taxonomy,
    *,
    level: str = "coarse",
    coarse_labels: str = "shipped",
    incomplete: bool = False,
) -> pd.DataFrame:
    """Return the tags that each annotator heard: one row per annotation, one column per tag.

    Parameters
    ----------
    annotations, taxonomy
        From `read_annotations` and `read_taxonomy`.
    level, coarse_labels
        As for `sonyc_ust.clips`.
    incomplete
        Whether the fine level has the 6 incomplete tags too: 29.

    Returns
    -------
    pandas.DataFrame
        The annotations' index; 1.0, 0.0, or NaN for a tag that was not annotated.

    Raises
    ------
    InputError
        If a parameter has another value, or a tag has no column.
    """
    choose("level", level, LEVELS)
    choose("coarse_labels", coarse_labels, ("shipped", "recomputed"))
    if level == "fine" or coarse_labels == "shipped":
        return _columns(annotations, taxonomy.tags(level, incomplete=incomplete))
    categories = zip(taxonomy.tags("coarse"), taxonomy.coarse, strict=True)
    fine = {tag: taxonomy.fine_tags(number, True) for tag, number in categories}
    return pd.DataFrame({tag: _columns(annotations, fine[tag]).max(axis=1) for tag in fine})


def _columns(annotations: pd.DataFrame, tags: tuple[str, ...]) -> pd.DataFrame:
    names = [tag + PRESENCE for tag in tags]
    remedy = f"fetch {ANNOTATIONS} again"
    files.require_columns(
        annotations, names, where=annotations.attrs.get("source", "the annotations"), remedy=remedy
    )
    columns = annotations[names].astype(float)
    return columns.where(columns >= 0).set_axis(list(tags), axis=1)


def agreed_truth(annotations: pd.DataFrame, presence: pd.DataFrame) -> pd.DataFrame:
    """Return the truth on which the staff agreed, for the validation clips.

    Parameters
    ----------
    annotations, presence
        From `read_annotations` and `presence_of`.

    Returns
    -------
    pandas.DataFrame
        Index ``audio_filename``, sorted; one column per tag; 1.0, 0.0 or NaN (not annotated).

    Raises
    ------
    InputError
        If a validation clip has no truth or several.
    """
    validating, names = annotations["split"] == "validate", annotations["audio_filename"]
    agreed = validating & (annotations["annotator_id"] == 0)
    truth = presence[agreed].set_axis(names[agreed], axis=0).sort_index()
    expected = sorted(names[validating].unique())
    if truth.index.tolist() != expected:
        held = f"{len(truth):,} agreed truths (annotator_id 0) for {len(expected):,}"
        where = annotations.attrs.get("source", "the annotations")
        fault = f"{where}: hold {held} validation clips, not one per clip"
        raise InputError(f"{fault}: fetch {ANNOTATIONS} again")
    return truth
