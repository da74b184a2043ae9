"""Evaluate predictions as DCASE 2019 Task 5 does: its files in, its scores out."""

from pathlib import Path

import numpy as np
import pandas as pd

from fusionkd_lib.auprc import Counts, area, count, count_fine, pool
from fusionkd_lib.datasets.files import read_table, require_columns
from fusionkd_lib.datasets.sonyc_labels import Taxonomy, agreed_truth, presence_of
from fusionkd_lib.errors import InputError, seen


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read a file in the challenge's submission format: ``audio_filename`` and one column per tag.

    Raises
    ------
    InputError
        If the file is missing, not a CSV file, empty, or names no clips.
    """
    remedy = "give a CSV file with audio_filename and one column per tag"
    return read_table(Path(path), ("audio_filename",), remedy=remedy)


def evaluate_sonyc(
    predictions: pd.DataFrame, annotations: pd.DataFrame, taxonomy: Taxonomy, level: str = "coarse"
) -> dict:
    """Evaluate predictions of the validation clips as the challenge does.

    Parameters
    ----------
    predictions
        From `read_predictions`: ``audio_filename``, with any suffix or none, and one column per
        tag, in [0, 1]. The columns of the other level may be absent; so may those of the incomplete
        tags, which count as 0.
    annotations, taxonomy
        From `sonyc_labels.read_annotations` and `sonyc_labels.read_taxonomy`.
    level
        ``"coarse"`` or ``"fine"``.

    Returns
    -------
    dict
        ``micro_auprc`` and ``macro_auprc`` in [0, 1], and ``per_category``: coarse tag -> AUPRC.

    Raises
    ------
    InputError
        If a column or a clip is missing, a clip is not in the split or appears twice, or a score is
        not a number in [0, 1].

    Source
    ------
    DCASE 2019 Task 5, Urban Sound Tagging.
    """
    presence = presence_of(annotations, taxonomy, level=level, incomplete=True)
    truth = agreed_truth(annotations, presence)
    scores = _align(predictions, truth, taxonomy.tags(level))
    if level == "coarse":
        categories = [count(truth[tag].to_numpy(), scores[tag].to_numpy()) for tag in truth]
    else:
        categories = [_category(truth, scores, taxonomy, number) for number in taxonomy.coarse]
    areas = [area(counts) for counts in categories]
    return {
        "micro_auprc": area(pool(categories), rising=True),
        "macro_auprc": float(np.mean(areas)),
        "per_category": dict(zip(taxonomy.tags("coarse"), areas, strict=True)),
    }


def _category(truth: pd.DataFrame, scores: pd.DataFrame, taxonomy: Taxonomy, number: int) -> Counts:
    complete = list(taxonomy.fine_tags(number))
    incomplete = [tag for tag in taxonomy.fine_tags(number, True) if tag not in complete]
    # Sums over one column, or over none: then 0.
    truth_x, scores_x = truth[incomplete].sum(axis=1, skipna=False), scores[incomplete].sum(axis=1)
    tables = truth[complete], truth_x, scores[complete], scores_x
    return count_fine(*(table.to_numpy() for table in tables))


def _align(predictions: pd.DataFrame, truth: pd.DataFrame, needed: tuple[str, ...]) -> pd.DataFrame:
    """Return the scores of the truth's clips and tags, in its order."""
    columns, where = ("audio_filename", *needed), predictions.attrs.get("source", "the predictions")
    require_columns(predictions, columns, where=where, remedy="add it")
    names = pd.Index(Path(str(name)).stem for name in predictions["audio_filename"])
    clips = pd.Index(Path(name).stem for name in truth.index)
    faults = {"lacks clips": clips.difference(names)}
    faults |= {"holds clips twice": names[names.duplicated()]}
    faults |= {"holds clips that are not of the split": names.difference(clips)}
    for fault, found in faults.items():
        if len(found):
            told = f"{where}: {fault}: {len(found):,} of them, the first {seen(found[0])}"
            raise InputError(f"{told}; predict each clip of the split once")
    tags = [tag for tag in truth.columns if tag in predictions]
    scores = predictions[tags].apply(pd.to_numeric, errors="coerce").set_axis(names, axis=0)
    for tag in tags:
        outside = predictions[tag][~scores[tag].between(0, 1).to_numpy()]
        if len(outside):
            value = seen(outside.iloc[0])
            raise InputError(f"{where}: {tag} has {value}: must be a number in [0, 1]")
    return scores.reindex(index=clips, columns=truth.columns, fill_value=0.0)
