"""Hostile datasets: tables of UrbanSound8K, annotations and taxonomies of SONYC-UST, and roots."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hostile import (
    FETCH,
    FETCH_FILE,
    assert_nothing_was_executed,
    cell,
    changed,
    check,
    holding,
    refused,
    score,
    sentence_of,
    table,
    text,
    without,
    write_predictions,
)
from miniature import make_sonyc_ust, make_urbansound8k

from fusionkd_lib import experiment
from fusionkd_lib.datasets import sonyc_labels, sonyc_ust, urbansound8k
from fusionkd_lib.params import make_params

# Tables of UrbanSound8K

ANY_TABLE = {
    "no file": (Path.unlink, ("does not exist", "fusionkd data fetch")),
    "an empty file": (holding(b""), ("cannot be read as CSV", "No columns", "data fetch")),
    "a header alone": (changed(lambda rows: rows[:0]), ("has no rows", "data fetch")),
    "bytes": (holding(np.random.default_rng(2).bytes(3000)), ("as CSV", "data fetch")),
    "UTF-16 of a spreadsheet": (
        lambda path: path.write_bytes(path.read_text().encode("utf-16")),
        ("cannot be read as CSV", "data fetch"),
    ),
    "a web page": (
        holding(b"<!DOCTYPE html>\n<html>\n<title>Zenodo</title>\n"),
        ("lacks the column", "data fetch"),
    ),
    "semicolons": (text(lambda t: t.replace(",", ";")), ("lacks the column", "data fetch")),
    "tabs": (text(lambda t: t.replace(",", "\t")), ("lacks the column", "data fetch")),
    "a row with too many fields": (text(lambda t: t + "1,2" * 30), ("as CSV", "data fetch")),
    "a quote that never ends": (
        text(lambda t: t.replace("\n", '\n"', 1)),
        ("cannot be read as CSV", "data fetch"),
    ),
}
METADATA = {
    **ANY_TABLE,
    "no column of folds": (without("fold"), ("lacks the column fold", "data fetch")),
    "no column of recordings": (without("fsID"), ("lacks the column fsID", "data fetch")),
    "no column of classes": (without("classID"), ("lacks the column classID", "data fetch")),
    "no column of names": (without("slice_file_name"), ("lacks the column slice_file_name",)),
    "fold 11": (cell("fold", 11), ("line 3", "fold is 11", "1 to 10")),
    "fold 0": (cell("fold", 0), ("line 3", "fold is 0", "1 to 10")),
    "fold 1.5": (cell("fold", 1.5), ("line 3", "fold is 1.5", "1 to 10")),
    "a fold in words": (cell("fold", "one"), ("line 3", "fold is one", "1 to 10")),
    "no fold": (cell("fold", None), ("line 3", "fold is nan", "1 to 10")),
    "class 10": (cell("classID", 10), ("line 3", "classID is 10", "0 to 9")),
    "a class in words": (cell("classID", "dog"), ("line 3", "classID is dog", "0 to 9")),
    "a class by another name": (cell("class", "cat"), ("line 3", "class is cat", "classID")),
    "no recording": (cell("fsID", None), ("line 3", "fsID is nan", FETCH_FILE)),
    "a clip twice": (
        cell("slice_file_name", "1001-3-0-0.wav"),
        ("line 3", "1001-3-0-0.wav", "twice"),
    ),
    "no name": (cell("slice_file_name", None), ("line 3", "slice_file_name is nan", FETCH_FILE)),
    "a name that climbs out": (
        cell("slice_file_name", "../../../x.wav"),
        ("line 3", "../../../x.wav", FETCH_FILE),
    ),
    "an absolute name": (
        cell("slice_file_name", "/etc/x.wav"),
        ("line 3", "/etc/x.wav", FETCH_FILE),
    ),
}


@table(METADATA)
def test_metadata_that_cannot_be_used(tmp_path, make, says):
    root = make_urbansound8k(tmp_path / "UrbanSound8K")
    make(root / "metadata" / "UrbanSound8K.csv")
    sentence = sentence_of(urbansound8k.clips, root, allow_partial=True)
    check(sentence, "UrbanSound8K.csv", *says)
    assert refused("data", "check", "urbansound8k", "--root", root) == sentence


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes()),
        lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n")),
    ],
    ids=["a byte-order mark", "line ends of Windows"],
)
def test_metadata_that_look_odd_and_can_be_used(tmp_path, make):
    root = make_urbansound8k(tmp_path / "UrbanSound8K")
    make(root / "metadata" / "UrbanSound8K.csv")
    assert len(urbansound8k.clips(root, allow_partial=True)) == 4


# Annotations and taxonomies of SONYC-UST

TRUTH_ROWS = (8, 9)  # of `miniature.SONYC_ROWS`
ANNOTATIONS = {
    **ANY_TABLE,
    "no column of splits": (without("split"), ("lacks the column split", "data fetch")),
    "no column of sensors": (without("sensor_id"), ("lacks the column sensor_id", "data fetch")),
    "no column of annotators": (without("annotator_id"), ("lacks the column annotator_id",)),
    "no column of a tag": (
        without("2_machinery-impact_presence"),
        ("lacks the column 2_machinery-impact_presence", "fetch annotations.csv again"),
    ),
    "a presence of 3": (
        cell("1_engine_presence", 3),
        ("line 3", "1_engine_presence is 3", "1, 0 or -1"),
    ),
    "a presence in words": (cell("1_engine_presence", "yes"), ("line 3", "yes", "1, 0 or -1")),
    "no presence": (cell("1_engine_presence", None), ("line 3", "nan", "1, 0 or -1")),
    "an unknown split": (cell("split", "test"), ("line 3", "split is test", "train or validate")),
    "no sensor": (cell("sensor_id", None), ("line 3", "sensor_id is nan", FETCH_FILE)),
    "an annotator in words": (cell("annotator_id", "Eve"), ("line 3", "annotator_id is Eve")),
    "no clip": (cell("audio_filename", None), ("line 3", "audio_filename is nan", FETCH_FILE)),
    "a name that climbs out": (
        cell("audio_filename", "../x.wav"),
        ("line 3", "../x.wav", FETCH_FILE),
    ),
    "a clip in both splits": (
        cell("audio_filename", "00_000001.wav"),
        ("00_000001.wav", "a clip has one split", FETCH_FILE),
    ),
    "no agreed truth": (
        changed(lambda rows: rows.drop(index=list(TRUTH_ROWS))),
        ("annotations", "0 agreed truths", "fetch annotations.csv again"),
    ),
    "a truth that stands twice": (
        changed(lambda rows: pd.concat([rows, rows.loc[[9]]])),
        ("annotations", "3 agreed truths", "fetch annotations.csv again"),
    ),
}


@table(ANNOTATIONS)
def test_annotations_that_cannot_be_used(tmp_path, make, says):
    root = make_sonyc_ust(tmp_path / "SONYC-UST")
    make(root / "annotations.csv")
    sentence = sentence_of(sonyc_ust.clips, root, allow_partial=True)
    check(sentence, "annotations", *says)
    assert refused(*score(root, write_predictions(tmp_path / "p.csv"))) == sentence


TAXONOMY = {
    "no file": (Path.unlink, ("does not exist", "data fetch")),
    "an empty file": (holding(b""), ("not the challenge's taxonomy", FETCH)),
    "bytes": (holding(np.random.default_rng(3).bytes(300)), ("not the challenge's", FETCH)),
    "no YAML": (holding(b"coarse: [1: 2"), ("not the challenge's", FETCH)),
    "a list": (holding(b"- engine\n- dog\n"), ("not the challenge's", FETCH)),
    "no coarse level": (text(lambda t: t[: t.index("coarse")]), ("not the challenge's", FETCH)),
    "no fine level": (text(lambda t: t[t.index("coarse") :]), ("not the challenge's", FETCH)),
    "a level that is a list": (holding(b"coarse: [a]\nfine: [b]\n"), ("the challenge's", FETCH)),
    "a category in words": (text(lambda t: t.replace("1:", "one:")), ("the challenge's", FETCH)),
    "a category of one level alone": (
        text(lambda t: t + "    9: aeroplane\n"),
        ("coarse and fine categories differ", FETCH),
    ),
    "an object of Python": (
        lambda path: path.write_text(f"!!python/object/apply:os.mkdir [{path.parent}/executed]"),
        ("not the challenge's", FETCH),
    ),
}


@table(TAXONOMY)
def test_a_taxonomy_that_cannot_be_used(tmp_path, make, says):
    root = make_sonyc_ust(tmp_path / "SONYC-UST")
    make(root / "dcase-ust-taxonomy.yaml")
    sentence = sentence_of(sonyc_labels.read_taxonomy, root / "dcase-ust-taxonomy.yaml")
    check(sentence, "dcase-ust-taxonomy.yaml", *says)
    assert refused(*score(root, write_predictions(tmp_path / "p.csv"))) == sentence
    assert_nothing_was_executed(tmp_path)


# Roots that are not the dataset


def moved_away(root: Path) -> Path:
    return root.rename(root.with_name("elsewhere")) and root


def emptied(root: Path) -> Path:
    for path in (root / "audio").rglob("*.wav"):
        path.unlink()
    return root


ROOTS = {
    "a folder that is not there": (moved_away, ("UrbanSound8K.csv: does not exist", "data fetch")),
    "the folder above": (lambda root: root.parent, ("does not exist", "give the folder")),
    "the folder of the clips": (lambda root: root / "audio", ("does not exist", "give the folder")),
    "the table itself": (
        lambda root: root / "metadata" / "UrbanSound8K.csv",
        ("does not exist", "give the folder"),
    ),
    "another dataset": (
        lambda root: make_sonyc_ust(root.parent / "sonyc"),
        ("UrbanSound8K.csv: does not exist", "data fetch urbansound8k"),
    ),
    "a table without a clip": (emptied, ("no clip is there", "data fetch urbansound8k")),
    "a part of the dataset": (
        lambda root: (root / "audio" / "fold2" / "1002-8-0-0.wav").unlink() or root,
        ("1 of 4 clips are missing", "1002-8-0-0.wav", "allow_partial: true"),
    ),
}


@table(ROOTS)
def test_a_root_that_is_not_the_dataset(tmp_path, make, says):
    root = make(make_urbansound8k(tmp_path / "UrbanSound8K"))
    params = make_params({"dataset": "urbansound8k", "data_root": str(root)})
    check(sentence_of(experiment.clips_of, params), *says)


def test_no_root_at_all(monkeypatch):
    monkeypatch.delenv("FUSIONKD_DATA", raising=False)
    sentence = sentence_of(experiment.clips_of, make_params({"dataset": "sonyc_ust"}))
    check(sentence, "sonyc_ust", "set data_root", "FUSIONKD_DATA", "SONYC-UST")
