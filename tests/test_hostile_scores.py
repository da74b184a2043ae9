"""Hostile predictions: `fusionkd score` refuses them."""

from pathlib import Path

import pandas as pd
from hostile import (
    cell,
    changed,
    check,
    holding,
    refused,
    score,
    table,
    text,
    without,
    write_predictions,
)
from miniature import make_sonyc_ust

PREDICTIONS = {
    "no file": (Path.unlink, ("p.csv", "does not exist", "give a CSV file")),
    "an empty file": (holding(b""), ("p.csv", "as CSV", "give a CSV file")),
    "a header alone": (changed(lambda rows: rows[:0]), ("p.csv", "no rows", "give a CSV file")),
    "a spreadsheet": (holding(b"PK\3\4\x14\0\6\0" + bytes(range(256))), ("p.csv", "give a CSV")),
    "semicolons": (text(lambda t: t.replace(",", ";")), ("p.csv", "audio_filename", "give a CSV")),
    "no names": (without("audio_filename"), ("p.csv", "lacks the column audio_filename")),
    "a tag without a column": (without("1_engine"), ("lacks the column 1_engine", "add it")),
    "a clip too few": (
        changed(lambda rows: rows[:1]),
        ("lacks clips: 1 of", "03_000001", "predict each clip of the split"),
    ),
    "a clip of another split": (
        changed(lambda rows: pd.concat([rows, rows[:1].assign(audio_filename="01_000001.wav")])),
        ("clips that are not of the split", "01_000001", "predict each clip"),
    ),
    "a clip twice": (
        changed(lambda rows: pd.concat([rows, rows[:1]])),
        ("clips twice", "00_000001", "of the split once"),
    ),
    "a score above 1": (cell("1_engine", 1.2), ("1_engine has 1.2", "in [0, 1]")),
    "a score in percent": (cell("1_engine", "97%"), ("1_engine has 97%", "in [0, 1]")),
    "a logit": (cell("1_engine", -3.7), ("1_engine has -3.7", "in [0, 1]")),
    "no score": (cell("1_engine", None), ("1_engine has nan", "in [0, 1]")),
    "a score in words": (cell("1_engine", "loud"), ("1_engine has loud", "in [0, 1]")),
}


@table(PREDICTIONS)
def test_predictions_that_cannot_be_used(tmp_path, make, says):
    root = make_sonyc_ust(tmp_path / "SONYC-UST")
    make(write_predictions(tmp_path / "p.csv"))
    check(refused(*score(root, tmp_path / "p.csv")), *says)
