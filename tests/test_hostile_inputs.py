"""Hostile inputs: each one gives one sentence that names it and a way out, and runs nothing of it.

Every table reads ``what it is: (how to make it, what the sentence must say)``. An input that a
command takes is handed to that command as well: exit status 1, one line on stderr, no traceback.
"""

import functools
import http.server
import io
import json
import os
import pickle
import re
import struct
import tarfile
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from click.testing import CliRunner
from miniature import COARSE_TAGS, FINE_TAGS, make_sonyc_ust, make_urbansound8k
from safetensors.torch import save_file

from fusionkd_lib import experiment, features, representations
from fusionkd_lib.audio import load_mono
from fusionkd_lib.cli import main
from fusionkd_lib.datasets import sonyc_ust, urbansound8k
from fusionkd_lib.datasets.unpacking import extract
from fusionkd_lib.errors import InputError
from fusionkd_lib.models import Normalise
from fusionkd_lib.params import load_params, make_params
from fusionkd_lib.runs import Run, file_digest, write_json
from fusionkd_lib.tagging import load_tagger
from fusionkd_lib.training import load_checkpoint

NAN, INF = float("nan"), float("inf")


def table(cases: dict) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("make", "says"), cases.values(), ids=cases.keys())


def sentence_of(act, *arguments, **options) -> str:
    """Return the one sentence with which something is refused."""
    with pytest.raises(InputError) as caught:
        act(*arguments, **options)
    return str(caught.value)


def refused(*arguments) -> str:
    """Return the one line with which a command refuses something."""
    answer = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert isinstance(answer.exception, SystemExit), answer.exception  # not a traceback
    assert answer.exit_code == 1, answer.output
    assert answer.stderr.startswith("Error: ")
    return answer.stderr.removeprefix("Error: ").removesuffix("\n")


def check(sentence: str, *says: str) -> None:
    assert "\n" not in sentence
    assert len(sentence) < 700
    for words in says:
        assert words in sentence, sentence


class Payload:
    """What makes a folder at the moment when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def pickled(path: Path) -> bytes:
    """Pickle a payload that would make ``executed`` beside the file."""
    return pickle.dumps(Payload(path.parent / "executed"), protocol=2)  # torch's own


def assert_nothing_was_executed(folder: Path) -> None:
    assert not list(folder.rglob("executed"))


# Sounds


def tone(seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * 8000)) / 8000)


def written(samples, rate: int = 8000, **options):
    return lambda path: soundfile.write(path, samples, rate, **options)


def holding(content: bytes):
    return lambda path: path.write_bytes(content)


def cut(share: float, **options):
    def make(path: Path) -> None:
        soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 8000), 8000, **options)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return make


def wav_header(*, channels: int = 1, rate: int = 8000, declared: int = 4) -> bytes:
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * 2 * channels, 2 * channels, 16)
    chunks = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", declared)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks) + declared) + b"WAVE" + chunks + b"\1\0\2\0"


def unreadable(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    soundfile.write(path, tone(), 8000)
    path.chmod(0)


def with_sample(value: float) -> np.ndarray:
    samples = tone()
    samples[1234] = value
    return samples


FETCH, CONVERT = "fetch it again", "convert it to WAV"
SOUNDS = {
    "a file that is not there": (lambda path: None, ("x.wav", "does not exist")),
    "a link to nothing": (lambda path: path.symlink_to("gone.wav"), ("x.wav", "does not exist")),
    "an empty file": (holding(b""), ("x.wav", "is empty", FETCH)),
    "a folder": (Path.mkdir, ("x.wav", "is a folder", "name a sound file in it")),
    "a file that may not be read": (unreadable, ("x.wav", "cannot be opened")),
    "a text": (holding(b"no sound, but words\n" * 9), ("x.wav", "as audio", CONVERT)),
    "a picture": (holding(b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(99)), ("x.wav", CONVERT)),
    "a web page of an error": (
        holding(b"<!DOCTYPE html><html><title>404</title></html>"),
        ("x.ogg", "as audio", FETCH),
    ),
    "a pointer of git-lfs": (
        holding(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 352844\n"),
        ("x.wav", "as audio", FETCH),
    ),
    "an archive": (holding(b"PK\3\4" + bytes(200)), ("x.wav", "as audio", CONVERT)),
    "AAC of a telephone": (
        holding(b"\0\0\0\x1cftypM4A \0\0\0\0M4A mp42isom" + bytes(200)),
        ("x.m4a", CONVERT),
    ),
    "noise for an MP3": (
        holding(np.random.default_rng(1).bytes(4000)),
        ("x.mp3", "as audio", CONVERT),
    ),
    "samples without a header": (holding(bytes(4000)), ("x.raw", "as audio", CONVERT)),
    "a WAV cut to half": (cut(0.5), ("x.wav", "is truncated", FETCH)),
    "a WAV cut within its header": (cut(0.002), ("x.wav", "as audio", FETCH)),
    "a FLAC cut to half": (cut(0.5, format="FLAC"), ("x.flac", "is truncated", FETCH)),
    "an Ogg cut to half": (cut(0.5, format="OGG"), ("x.ogg", "is truncated", FETCH)),
    "an AIFF cut to half": (cut(0.5, format="AIFF"), ("x.aiff", "is truncated", FETCH)),
    "a WAV that declares a gigabyte": (
        holding(wav_header(declared=10**9)),
        ("x.wav", "is truncated", "4 of 1,000,000,000 bytes"),
    ),
    "a WAV of no channels": (holding(wav_header(channels=0)), ("x.wav", "as audio", CONVERT)),
    "a WAV of rate 0": (holding(wav_header(rate=0)), ("x.wav", CONVERT)),
    "a WAV of no samples": (written(np.zeros(0)), ("x.wav", "no samples", FETCH)),
    "a WAV of one sample at 192 kHz": (
        written(np.full(1, 0.5), 192000),
        ("x.wav", "1 samples", "too short"),
    ),
    "silence": (written(np.zeros(4000)), ("x.wav", "is silent", "leave it out")),
    "silence in stereo": (written(np.zeros((4000, 2))), ("x.flac", "is silent", "leave it out")),
    "a sample that is NaN": (
        written(with_sample(NAN), subtype="FLOAT"),
        ("x.wav", "NaN", "write it anew"),
    ),
    "a sample that is infinite": (
        written(with_sample(-INF), subtype="FLOAT"),
        ("x.wav", "infinite", "write it anew"),
    ),
    "a sample of 1e30": (
        written(with_sample(1e30), subtype="FLOAT"),
        ("x.wav", "1e+30", "write it anew"),
    ),
}


def tiny_run(folder: Path, *, head: tuple[int, int] = (8, 8)) -> Run:
    """Write a finished branch run that was never trained."""
    params = make_params(
        {
            "representations": ["logmel"],
            "sample_rate": 8000,
            "duration": 0.25,
            "n_fft": 256,
            "n_mels": 32,
            "width": 0.25,
            "head": list(head),
        }
    )
    run, classes = Run(folder), ["dog", "siren"]
    run.begin(params)
    run.write_history([{"epoch": 1, "loss": 1.0}])
    branch = experiment.build_branch(params, "logmel", len(classes), Normalise())
    run.finish(
        metrics={"logmel": {"accuracy": 0.5, "thresholds": [0.5, 0.5]}},
        scores={"clips": np.array(["a"]), "logmel": np.full((1, 2), 0.5)},
        weights={"logmel": branch.state_dict()},
        provenance={"kind": "branch", "classes": classes, "data_status": "synthetic"},
    )
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("finished") / "run")


@table(SOUNDS)
def test_a_sound_that_cannot_be_used(tmp_path, finished, make, says):
    path = tmp_path / says[0]
    make(path)
    sentence = sentence_of(load_mono, path, sample_rate=8000)
    check(sentence, *says)
    assert refused("tag", finished.folder, path) == sentence


def test_a_sound_by_another_extension_is_read(tmp_path):
    soundfile.write(tmp_path / "x.wav", tone(), 8000, format="FLAC")
    assert load_mono(tmp_path / "x.wav", sample_rate=8000).shape == (4000,)


# Tables of UrbanSound8K


def changed(change):
    """Make a change to a table, however it is spelled in the file."""

    def make(path: Path) -> None:
        change(pd.read_csv(path, dtype=object)).to_csv(path, index=False)

    return make


def cell(column: str, value, *, row: int = 1):
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        rows.loc[row, column] = value
        return rows

    return changed(change)


def without(column: str):
    return changed(lambda rows: rows.drop(columns=column))


def text(change):
    return lambda path: path.write_text(change(path.read_text()))


FETCH_FILE = "fetch the file again"
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
        ("lack the column 2_machinery-impact_presence", "fetch annotations.csv again"),
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


def score(labels: Path, predictions: Path, level: str = "coarse") -> tuple:
    return (
        *("score", "sonyc-ust", "--predictions", predictions, "--level", level),
        *("--annotations", labels / "annotations.csv"),
        *("--taxonomy", labels / "dcase-ust-taxonomy.yaml"),
    )


def write_predictions(path: Path) -> Path:
    tags = dict.fromkeys([*FINE_TAGS, *COARSE_TAGS], 0.5)
    rows = pd.DataFrame({"audio_filename": ["00_000001.wav", "03_000001.wav"]} | tags)
    rows.to_csv(path, index=False)
    return path


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
    sentence = sentence_of(sonyc_ust.read_taxonomy, root / "dcase-ust-taxonomy.yaml")
    check(sentence, "dcase-ust-taxonomy.yaml", *says)
    assert refused(*score(root, write_predictions(tmp_path / "p.csv"))) == sentence
    assert_nothing_was_executed(tmp_path)


# Predictions

PREDICTIONS = {
    "no file": (Path.unlink, ("p.csv", "does not exist", "give a CSV file")),
    "an empty file": (holding(b""), ("p.csv", "as CSV", "give a CSV file")),
    "a header alone": (changed(lambda rows: rows[:0]), ("p.csv", "no rows", "give a CSV file")),
    "a spreadsheet": (holding(b"PK\3\4\x14\0\6\0" + bytes(range(256))), ("p.csv", "give a CSV")),
    "semicolons": (text(lambda t: t.replace(",", ";")), ("p.csv", "audio_filename", "give a CSV")),
    "no names": (without("audio_filename"), ("p.csv", "lacks the column audio_filename")),
    "a tag without a column": (without("1_engine"), ("lack the column 1_engine", "add it")),
    "a clip too few": (
        changed(lambda rows: rows[:1]),
        ("lack 1 of 2 clips", "03_000001", "predict the whole split"),
    ),
    "a clip of another split": (
        changed(lambda rows: pd.concat([rows, rows[:1].assign(audio_filename="01_000001.wav")])),
        ("1 clips that are not of the split", "01_000001", "leave them out"),
    ),
    "a clip twice": (
        changed(lambda rows: pd.concat([rows, rows[:1]])),
        ("00_000001 twice", "keep one row"),
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


# Parameter files

UNKNOWN = "unknown key"
PARAMETERS = {
    "no file": (Path.unlink, ("cannot be read: No such file",)),
    "a folder": (lambda path: path.unlink() or path.mkdir(), ("cannot be read: Is a directory",)),
    "an empty file": (holding(b""), ("holds no parameters", "key: value")),
    "comments alone": (holding(b"# epochs: 3\n"), ("holds no parameters", "key: value")),
    "one word": (holding(b"logmel\n"), ("holds no parameters", "key: value")),
    "a list": (holding(b"- epochs: 3\n"), ("holds no parameters", "key: value")),
    "bytes": (holding(np.random.default_rng(4).bytes(300)), ("is not YAML", "key: value")),
    "a bracket that never closes": (holding(b"head: [1280, 512\n"), ("is not YAML in line",)),
    "a tab for an indent": (holding(b"grid:\n\tfold: [1, 2]\n"), ("is not YAML in line 2",)),
    "a key twice": (holding(b"epochs: 3\nlr: 0.1\nepochs: 9\n"), ("'epochs'", "line 3", "twice")),
    "a key that is a number": (holding(b"1: 2\n"), ("not text", "key: value")),
    "an object of Python": (
        holding(b"epochs: !!python/object/apply:os.mkdir [executed]\n"),
        ("is not YAML in line 1",),
    ),
    "a typo": (holding(b"epoch: 3\n"), (UNKNOWN, "'epoch'", "did you mean 'epochs'")),
    "another library's key": (holding(b"learning_rate: 1\n"), (UNKNOWN, "did you mean 'lr'")),
    "a key of nobody": (holding(b"qqqq: 3\n"), (UNKNOWN, "'qqqq'")),
    "a key of the wrong case": (holding(b"Epochs: 3\n"), (UNKNOWN, "did you mean 'epochs'")),
    "a number in words": (holding(b"epochs: ten\n"), ("epochs = 'ten'", "valid integer")),
    "half an epoch": (holding(b"epochs: 1.5\n"), ("epochs = 1.5", "valid integer")),
    "an epoch of yes": (holding(b"epochs: yes\n"), ("epochs = True", "valid integer")),
    "no value": (holding(b"epochs:\n"), ("epochs = None", "valid integer")),
    "no epochs": (holding(b"epochs: 0\n"), ("epochs = 0", "greater than 0")),
    "a rate that YAML reads as text": (holding(b"lr: 1e-3\n"), ("lr = '1e-3'", "1.0e-3")),
    "a rate of 0": (holding(b"lr: 0\n"), ("lr = 0", "greater than 0")),
    "a rate that is NaN": (holding(b"lr: .nan\n"), ("lr = nan", "finite")),
    "a rate that is infinite": (holding(b"lr: .inf\n"), ("lr = inf", "finite")),
    "a decimal comma": (holding(b"duration: 4,0\n"), ("duration = '4,0'", "valid number")),
    "no duration": (holding(b"duration: 0\n"), ("duration = 0", "greater than or equal")),
    "an endless duration": (holding(b"duration: .inf\n"), ("duration = inf", "finite")),
    "clips shorter than a bark": (holding(b"duration: 0.1\n"), ("duration = 0.1", "0.25")),
    "a batch of one": (holding(b"batch_size: 1\n"), ("batch_size = 1", "equal to 2")),
    "a negative seed": (holding(b"seed: -1\n"), ("seed = -1", "equal to 0")),
    "fold 0": (holding(b"fold: 0\n"), ("fold = 0", "greater than 0")),
    "fold 6 of five": (holding(b"fold: 6\n"), ("fold = 6", "folds 1 to 5")),
    "fold 11 of ten": (holding(b"dataset: urbansound8k\nfold: 11\n"), ("fold = 11", "1 to 10")),
    "fold 2 of one": (holding(b"dataset: sonyc_ust\nfold: 2\n"), ("fold = 2", "folds 1 to 1")),
    "an unknown dataset": (holding(b"dataset: esc50\n"), ("dataset = 'esc50'", "'urban_synth'")),
    "a dataset with a typo": (
        holding(b"dataset: urbansound8\n"),
        ("dataset = 'urbansound8'", "did you mean 'urbansound8k'"),
    ),
    "a root for clips that are made": (holding(b"data_root: /x\n"), ("synthesised", "data_root")),
    "an unknown representation": (
        holding(b"representations: [mfcc, cqt]\n"),
        ("representations = 'mfcc'", "'logmel'"),
    ),
    "one representation, no list": (
        holding(b"representations: logmel\n"),
        ("representations = 'logmel'", "valid list"),
    ),
    "no representation": (holding(b"representations: []\n"), ("representations = []", "at least")),
    "a representation twice": (
        holding(b"representations: [cqt, cqt]\n"),
        ("representations", "names one twice"),
    ),
    "a branch of another run": (
        holding(b"representations: [logmel, cqt]\nbranch: gammatone\n"),
        ("branch = 'gammatone'", "use one of logmel, cqt"),
    ),
    "an unknown trunk": (holding(b"trunk: resnet\n"), ("trunk = 'resnet'", "'mobilenet_v2'")),
    "a trunk of another width": (
        holding(b"trunk: shufflenet_v2\nwidth: 0.25\n"),
        ("width = 0.25", "comes in width 0.5 and 1.0"),
    ),
    "pretrained weights of a narrow trunk": (
        holding(b"weights: imagenet\nwidth: 0.5\n"),
        ("width = 0.5", "for width 1.0 alone"),
    ),
    "a head of three layers": (holding(b"head: [8, 8, 8]\n"), ("head", "at most 2 items")),
    "a head of no neurons": (holding(b"head: [0, 8]\n"), ("head = 0", "greater than 0")),
    "a tap from the front": (holding(b"tap: 3\n"), ("tap = 3", "less than 0")),
    "a tap beyond the trunk": (holding(b"tap: -99\n"), ("tap = -99", "19 feature layers")),
    "a rate that nothing is made at": (holding(b"sample_rate: 4000\n"), ("sample_rate = 4000",)),
    "a CQT above Nyquist": (
        holding(b"representations: [logmel, cqt]\nsample_rate: 8000\n"),
        ("cqt_bins=84", "Nyquist", "use at most"),
    ),
    "a mel range above Nyquist": (holding(b"fmax: 30000\n"), ("fmax=30000", "Nyquist")),
    "a mel range upside down": (holding(b"fmin: 900\nfmax: 800\n"), ("fmin=900", "[0, fmax)")),
    "an odd transform": (holding(b"n_fft: 1023\n"), ("n_fft=1023", "even")),
    "a grid of one value": (holding(b"grid:\n  fold: 3\n"), ("grid", "a list of values")),
    "a grid of nothing": (holding(b"grid:\n"), ("grid = None", "a list of values")),
    "a grid that is a list": (holding(b"grid: [1, 2]\n"), ("grid = [1, 2]", "a list of values")),
    "a grid with an empty list": (holding(b"grid:\n  fold: []\n"), ("grid", "a list of values")),
    "a grid with a typo": (holding(b"grid:\n  flod: [1]\n"), (UNKNOWN, "did you mean 'fold'")),
    "a grid with an impossible run": (
        holding(b"grid:\n  fold: [1, 9]\n"),
        ("fold = 9", "folds 1 to 5"),
    ),
    "a key alone and in the grid": (
        holding(b"fold: 1\ngrid:\n  fold: [1, 2]\n"),
        ("'fold' stands both alone and in the grid", "keep one"),
    ),
    "a grid with a key twice": (
        holding(b"grid:\n  fold: [1]\n  fold: [2]\n"),
        ("'fold'", "line 3", "twice"),
    ),
}
# Found when the run is planned, where the file is no longer known.
PLANNED = {"a CQT above Nyquist", "a mel range above Nyquist", "a mel range upside down"}
PLANNED |= {"an odd transform"}


@pytest.mark.parametrize("what", PARAMETERS)
def test_parameters_that_cannot_be_used(tmp_path, monkeypatch, what):
    make, says = PARAMETERS[what]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.yaml"
    path.touch()
    make(path)
    sentence = refused("run", path, "--dry-run")
    check(sentence, *says)
    if what not in PLANNED:
        check(sentence, "run.yaml")
        assert sentence_of(load_params, path) == sentence
    assert_nothing_was_executed(tmp_path)


# Roots that are not the dataset


def moved_away(root: Path) -> Path:
    return root.rename(root.with_name("elsewhere")) and root


def emptied(root: Path) -> Path:
    for path in (root / "audio").rglob("*.wav"):
        path.unlink()
    return root


ROOTS = {
    "a folder that is not there": (moved_away, ("UrbanSound8K.csv does not exist", "data fetch")),
    "the folder above": (lambda root: root.parent, ("does not exist", "give the folder")),
    "the folder of the clips": (lambda root: root / "audio", ("does not exist", "give the folder")),
    "the table itself": (
        lambda root: root / "metadata" / "UrbanSound8K.csv",
        ("does not exist", "give the folder"),
    ),
    "another dataset": (
        lambda root: make_sonyc_ust(root.parent / "sonyc"),
        ("UrbanSound8K.csv does not exist", "data fetch urbansound8k"),
    ),
    "a table without a clip": (emptied, ("No clip is there", "data fetch urbansound8k")),
    "a part of the dataset": (
        lambda root: (root / "audio" / "fold2" / "1002-8-0-0.wav").unlink() or root,
        ("1 of 4 clips are missing", "1002-8-0-0.wav", "allow_partial: true"),
    ),
}


@table(ROOTS)
def test_a_root_that_is_not_the_dataset(tmp_path, make, says):
    root = make(make_urbansound8k(tmp_path / "UrbanSound8K"))
    params = make_params({"dataset": "urbansound8k", "data_root": str(root)})
    check(sentence_of(experiment.open_clips, params), *says)


def test_no_root_at_all(monkeypatch):
    monkeypatch.delenv("FUSIONKD_DATA", raising=False)
    sentence = sentence_of(experiment.open_clips, make_params({"dataset": "sonyc_ust"}))
    check(sentence, "sonyc_ust", "set data_root", "FUSIONKD_DATA", "SONYC-UST")


# Representations that cannot be

REPRESENTATIONS = {
    "a CQT above Nyquist": (
        {"name": "cqt", "sample_rate": 16000, "cqt_bins": 113},
        ("cqt_bins=113", "Nyquist frequency 8000 Hz", "use at most"),
    ),
    "a CQT that begins above Nyquist": ({"name": "cqt", "cqt_fmin": 9000.0}, ("cqt_fmin=9000",)),
    "a CQT that begins at 0 Hz": ({"name": "cqt", "cqt_fmin": 0.0}, ("cqt_fmin=0",)),
    "no bins": ({"name": "cqt", "cqt_bins": 0}, ("cqt_bins=0", "whole number")),
    "half a band": ({"name": "logmel", "n_mels": 12.5}, ("n_mels=12.5", "whole number")),
    "bands above Nyquist": ({"name": "gammatone", "fmax": 9000.0}, ("fmax=9000", "Nyquist")),
    "a negative frequency": ({"name": "logmel", "fmin": -1.0}, ("fmin=-1", "[0, fmax)")),
    "an odd transform": ({"name": "stft", "n_fft": 1023}, ("n_fft=1023", "even")),
    "no hop": ({"name": "stft", "hop_length": 0}, ("hop_length=0", "whole number")),
    "an unknown name": ({"name": "mfcc"}, ("'mfcc'", "one of stft, logmel, cqt, gammatone")),
}


@table(REPRESENTATIONS)
def test_a_representation_that_cannot_be(make, says):
    settings = {"sample_rate": 16000, "hop_length": 512} | make
    check(sentence_of(representations.build, **settings), *says)


WAVEFORMS = {
    "one clip, no batch": (torch.zeros(8000), ("(8000,)", "batch (B, N)")),
    "no clips": (torch.zeros(0, 8000), ("(0, 8000)", "non-empty")),
    "clips of no samples": (torch.zeros(2, 0), ("(2, 0)", "non-empty")),
    "whole numbers": (torch.ones(1, 8000, dtype=torch.int16), ("torch.int16", "floating-point")),
}


@table(WAVEFORMS)
def test_waveforms_that_cannot_be_seen(make, says):
    logmel = representations.build("logmel", sample_rate=16000, hop_length=512)
    check(sentence_of(logmel, make), "waveforms", *says)


# Stores of spectrograms


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


STORES = {
    "no spectrograms": (Path.unlink, ("cannot be read", "delete the folder")),
    "an empty file": (holding(b""), ("cannot be read", "delete the folder")),
    "bytes": (holding(b"\x93NUMPY" + bytes(99)), ("cannot be read", "delete the folder")),
    "a cut file": (truncated, ("cannot be read", "delete the folder")),
    "a pickle": (lambda path: path.write_bytes(pickled(path)), ("cannot be read", "delete the")),
    "an array of pickled objects": (
        lambda path: np.save(path, np.array([Payload(path.parent / "executed")], dtype=object)),
        ("cannot be read", "delete the folder"),
    ),
    "the spectrograms of fewer clips": (
        lambda path: np.save(path, np.load(path)[1:]),
        ("of 29 clips, not of 30", "delete the folder"),
    ),
}
SYNTHETIC = {"n_folds": 3, "clips_per_class": 1, "sample_rate": 8000, "duration": 0.25}


@table(STORES)
def test_a_store_that_cannot_be_used(tmp_path, make, says):
    params = make_params(SYNTHETIC | {"representations": ["stft"], "n_fft": 64})
    clips = experiment.open_clips(params)
    features.load_spectrograms(clips, params, tmp_path)
    (path,) = tmp_path.rglob("spectrograms.npy")
    make(path)
    sentence = sentence_of(features.load_spectrograms, clips, params, tmp_path)
    check(sentence, "spectrograms.npy", *says)
    assert_nothing_was_executed(tmp_path)


@pytest.mark.parametrize("make", [Path.unlink, truncated, holding(b"")])
def test_a_filling_that_lost_its_spectrograms_begins_anew(tmp_path, make):
    params = make_params(SYNTHETIC | {"representations": ["stft"], "n_fft": 64})
    clips = experiment.open_clips(params)
    before = features.load_spectrograms(clips, params, tmp_path)["stft"].copy()
    (store,) = (path.parent for path in tmp_path.rglob("spectrograms.npy"))
    np.save(store / "done.npy", np.ones(len(clips), dtype=bool))
    make(store / "spectrograms.npy")
    store.rename(f"{store}.partial")
    after = features.load_spectrograms(clips, params, tmp_path)["stft"]
    np.testing.assert_array_equal(after, before)


def test_a_damaged_cache_of_digests_is_made_anew(tmp_path):
    root = make_urbansound8k(tmp_path / "UrbanSound8K")
    clips = urbansound8k.clips(root, allow_partial=True)
    name = features.fingerprint(clips, cache=tmp_path / "digests.json")
    for content in (b"", b"{", b"[]", b"\xff\xfe"):
        (tmp_path / "digests.json").write_bytes(content)
        assert features.fingerprint(clips, cache=tmp_path / "digests.json") == name


# Checkpoints


def network() -> torch.nn.Module:
    return torch.nn.Linear(2, 3)


def saved(value):
    return lambda path: torch.save(value(path), path)


CHECKPOINTS = {
    "an empty file": (holding(b""), ("EOFError",)),
    "bytes": (holding(np.random.default_rng(5).bytes(500)), ("cannot be gone on from",)),
    "a cut file": (
        lambda path: (saved(lambda _: {"model": network().state_dict()})(path), truncated(path)),
        ("cannot be gone on from",),
    ),
    "a list": (saved(lambda _: [1, 2, 3]), ("TypeError",)),
    "weights without their history": (
        saved(lambda _: {"model": network().state_dict()}),
        ("KeyError",),
    ),
    "another network's": (
        saved(lambda _: {"model": torch.nn.Linear(5, 7).state_dict()}),
        ("RuntimeError",),
    ),
    "a pickle": (lambda path: path.write_bytes(pickled(path)), ("UnpicklingError",)),
    "a pickle within torch's own format": (
        saved(lambda path: {"model": Payload(path.parent / "executed")}),
        ("UnpicklingError",),
    ),
}


@table(CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_gone_on_from(tmp_path, make, says):
    path = tmp_path / "checkpoint.pt"
    make(path)
    sentence = sentence_of(load_checkpoint, path, {"model": network()})
    check(sentence, "checkpoint.pt", "delete it", "begins anew", *says)
    assert_nothing_was_executed(tmp_path)


# Runs and their records


def copied(run: Run, folder: Path) -> Run:
    folder.mkdir()
    for path in run.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return Run(folder)


def seal(folder: Path) -> None:
    """Make every record, whatever became of it, the run's own."""
    names = json.loads((folder / "complete.json").read_text())
    write_json(folder / "complete.json", {name: file_digest(folder / name) for name in names})


def record(name: str, make, *, sealed: bool = False):
    def damage(folder: Path) -> Path:
        make(folder / name)
        if sealed:
            seal(folder)
        return folder

    return damage


def foreign_weights(path: Path) -> None:
    save_file({"head.0.weight": torch.zeros(2, 2)}, path)


DELETE = "delete the run's folder"
RUNS = {
    "a folder that is not there": (
        lambda folder: folder / "gone",
        ("no such run", "give a folder"),
    ),
    "a file": (lambda folder: folder / "params.yaml", ("params.yaml", "no such run")),
    "an empty folder": (
        lambda folder: (folder / "new").mkdir() or folder / "new",
        ("there is no such run", "give a folder, or a run of"),
    ),
    "a run that was stopped": (record("complete.json", Path.unlink), ("not finished", "again")),
    "a damaged seal": (
        record("complete.json", holding(b"{")),
        ("complete.json", "damaged", DELETE),
    ),
    "a seal that is a list": (
        record("complete.json", holding(b"[1]")),
        ("complete.json", "damaged", DELETE),
    ),
    "no parameters": (record("params.yaml", Path.unlink), ("params.yaml", "missing", DELETE)),
    "changed parameters": (
        record("params.yaml", text(lambda t: t.replace("seed: 0", "seed: 1"))),
        ("params.yaml", "changed", DELETE),
    ),
    "parameters of another version": (
        record("params.yaml", text(lambda t: t + "warmup: 3\n"), sealed=True),
        ("params.yaml", "unknown key 'warmup'"),
    ),
    "changed figures": (
        record("metrics.json", text(lambda t: t.replace("0.5", "0.9"))),
        ("metrics.json", "changed", DELETE),
    ),
    "figures that are no JSON": (
        record("metrics.json", holding(b"{"), sealed=True),
        ("metrics.json", "cannot be read", DELETE),
    ),
    "a past that is no JSON": (
        record("provenance.json", holding(b"\xff"), sealed=True),
        ("provenance.json", "cannot be read", DELETE),
    ),
    "no weights": (
        record("logmel.safetensors", Path.unlink),
        ("logmel.safetensors", "missing", DELETE),
    ),
    "changed weights": (
        record("logmel.safetensors", truncated),
        ("logmel.safetensors", "changed", DELETE),
    ),
    "cut weights": (
        record("logmel.safetensors", truncated, sealed=True),
        ("logmel.safetensors", "cannot be read", DELETE),
    ),
    "weights of no bytes": (
        record("logmel.safetensors", holding(b""), sealed=True),
        ("logmel.safetensors", "cannot be read", DELETE),
    ),
    "weights of noise": (
        record("logmel.safetensors", holding(np.random.default_rng(6).bytes(999)), sealed=True),
        ("logmel.safetensors", "cannot be read", DELETE),
    ),
    "weights with a header of exabytes": (
        record("logmel.safetensors", holding(b"\xff" * 7 + b"\x0f{}"), sealed=True),
        ("logmel.safetensors", "cannot be read", DELETE),
    ),
    "weights that are a pickle": (
        record("logmel.safetensors", lambda path: path.write_bytes(pickled(path)), sealed=True),
        ("logmel.safetensors", "cannot be read", DELETE),
    ),
    "weights of torch's own format": (
        record("logmel.safetensors", saved(lambda path: Payload(path)), sealed=True),
        ("logmel.safetensors", "cannot be read", DELETE),
    ),
    "weights of another network": (
        record("logmel.safetensors", foreign_weights, sealed=True),
        ("logmel.safetensors", "another network", "differs", "use the run"),
    ),
}


@table(RUNS)
def test_a_run_that_cannot_tag(tmp_path, finished, make, says):
    folder = make(copied(finished, tmp_path / "run").folder)
    sentence = sentence_of(load_tagger, folder)
    check(sentence, *says)
    soundfile.write(tmp_path / "x.wav", tone(), 8000)
    assert refused("tag", folder, tmp_path / "x.wav") == sentence
    assert_nothing_was_executed(tmp_path)


def objects(path: Path) -> None:
    np.savez(path, logmel=np.array([Payload(path.parent / "executed")], dtype=object))


SCORES = {
    "no scores": (record("scores.npz", Path.unlink), ("missing", DELETE)),
    "changed scores": (record("scores.npz", truncated), ("changed", DELETE)),
    "scores of another run": (
        record("scores.npz", lambda path: np.savez(path, logmel=np.ones((1, 2)))),
        ("changed", DELETE),
    ),
    "cut scores": (record("scores.npz", truncated, sealed=True), ("cannot be read", DELETE)),
    "scores of no bytes": (
        record("scores.npz", holding(b""), sealed=True),
        ("cannot be read", DELETE),
    ),
    "scores that are a pickle": (
        record("scores.npz", lambda path: path.write_bytes(pickled(path)), sealed=True),
        ("cannot be read", DELETE),
    ),
    "scores of pickled objects": (
        record("scores.npz", objects, sealed=True),
        ("cannot be read", DELETE),
    ),
}


@table(SCORES)
def test_scores_that_cannot_be_used(tmp_path, finished, make, says):
    run = copied(finished, tmp_path / "run")
    make(run.folder)
    check(sentence_of(lambda: run.scores), "scores.npz", *says)
    assert_nothing_was_executed(tmp_path)


# Archives


def tar(*members: tuple[str, bytes, str]):
    """Make a tar of (name, type, target of a link)."""

    def make(path: Path) -> None:
        with tarfile.open(path, "w:gz") as archive:
            for name, kind, target in members:
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, target
                member.size = 5 if kind == tarfile.REGTYPE else 0
                archive.addfile(member, io.BytesIO(b"hello"))

    return make


def file_named(name: str):
    return tar((name, tarfile.REGTYPE, ""))


OUT, UNSAFE, AGAIN = "leads out of", "unsafe", "delete it and fetch it again"
ARCHIVES = {
    "a tar that climbs out": (file_named("../out.wav"), ("a.tar.gz", UNSAFE, AGAIN)),
    "a tar that climbs out from within": (
        file_named("audio/../../out.wav"),
        ("a.tar.gz", UNSAFE, AGAIN),
    ),
    "a tar with an absolute name": (file_named("/tmp/fusionkd-out.wav"), ("a.tar.gz", "out")),
    "a tar with a drive": (file_named("C:/out.wav"), ("a.tar.gz", OUT, AGAIN)),
    "a tar with backslashes": (file_named("..\\out.wav"), ("a.tar.gz", OUT, AGAIN)),
    "a tar with a symbolic link": (
        tar(("audio", tarfile.SYMTYPE, ".."), ("audio/out.wav", tarfile.REGTYPE, "")),
        ("a.tar.gz", "'audio' is a link", AGAIN),
    ),
    "a tar with a symbolic link to a secret": (
        tar(("audio/a.wav", tarfile.SYMTYPE, "/etc/passwd")),
        ("a.tar.gz", "'audio/a.wav' is a link", AGAIN),
    ),
    "a tar with a hard link": (
        tar(("audio/a.wav", tarfile.LNKTYPE, "/etc/passwd")),
        ("a.tar.gz", "'audio/a.wav' is a link", AGAIN),
    ),
    "a tar with a disk": (tar(("audio", tarfile.BLKTYPE, "")), ("a.tar.gz", UNSAFE, AGAIN)),
    "a tar with a terminal": (tar(("audio", tarfile.CHRTYPE, "")), ("a.tar.gz", UNSAFE, AGAIN)),
    "a tar with a pipe": (tar(("audio", tarfile.FIFOTYPE, "")), ("a.tar.gz", UNSAFE, AGAIN)),
    "an empty tar": (holding(b""), ("a.tar.gz", "damaged", "fetch it again")),
    "a web page": (holding(b"<html>404</html>"), ("a.tar.gz", "damaged", "fetch it again")),
    "a zip": (holding(b"PK\3\4" + bytes(99)), ("a.zip", "damaged", AGAIN)),
    "a cut tar": (
        lambda path: (file_named("a.wav")(path), path.write_bytes(path.read_bytes()[:-20])),
        ("a.tar.gz", "damaged", AGAIN),
    ),
    "an archive that is not there": (lambda path: None, ("a.tar.gz", "No such file")),
}


@table(ARCHIVES)
def test_an_archive_that_cannot_be_trusted(tmp_path, make, says):
    archive = tmp_path / says[0]
    make(archive)
    check(sentence_of(extract, archive, tmp_path / "data"), *says)
    outside = [path for path in tmp_path.iterdir() if path not in (archive, tmp_path / "data")]
    assert not outside
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink() or path.is_fifo()]
    assert not Path("/tmp/fusionkd-out.wav").exists()


# Fetching


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Serve a folder on this machine as the record of UrbanSound8K."""
    folder = tmp_path / "record" / "files"
    folder.mkdir(parents=True)
    handler = functools.partial(Silent, directory=str(folder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setattr(urbansound8k, "SOURCE", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder
        server.shutdown()
        thread.join()


def refused_fetch(root: Path) -> str:
    answer = CliRunner().invoke(main, ["data", "fetch", "urbansound8k", "--root", str(root)])
    assert isinstance(answer.exception, SystemExit), answer.exception
    assert answer.exit_code == 1
    # After the bar.
    return re.search(r"^Error: (.*)\n\Z", answer.stderr, re.MULTILINE)[1]


def test_a_download_with_a_wrong_checksum(tmp_path, served):
    (served / "UrbanSound8K.tar.gz").write_bytes(b"another file")
    sentence = refused_fetch(tmp_path / "data")
    check(sentence, "UrbanSound8K.tar.gz", "does not have the checksum md5:9aa69802", FETCH)
    assert not list((tmp_path / "data").iterdir())


def test_a_download_that_is_not_there(tmp_path, served):
    check(refused_fetch(tmp_path / "data"), "UrbanSound8K.tar.gz", "answers 404", "try again")


def test_a_server_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(urbansound8k, "SOURCE", "http://127.0.0.1:9")
    check(refused_fetch(tmp_path / "data"), "UrbanSound8K.tar.gz", "cannot be reached", "network")


def test_a_root_that_is_a_file(tmp_path, served):
    (tmp_path / "data").write_text("")
    check(refused_fetch(tmp_path / "data"), "data cannot be written", "choose another")


def test_a_damaged_record_of_an_earlier_fetch(tmp_path, served):
    (tmp_path / "fetched.json").write_text("{")
    check(refused_fetch(tmp_path), "fetched.json", "is damaged", "delete it")


# Usage

USAGE = {
    "no such command": (["tagg"], "No such command 'tagg'"),
    "no such option": (["table", "--jsno"], "No such option"),
    "tag nothing": (["tag", "run"], "Missing argument 'AUDIO...'"),
    "run nothing": (["run"], "Missing argument 'FILES...'"),
    "score no such challenge": (["score", "esc50"], "No such command 'esc50'"),
    "score without predictions": (["score", "sonyc-ust"], "Missing option '--predictions'"),
    "fetch no such dataset": (["data", "fetch", "esc50", "--root", "."], "'esc50' is not one of"),
    "fetch to nowhere": (["data", "fetch", "sonyc-ust"], "give --root, or set FUSIONKD_DATA"),
    "check nothing": (["data", "check"], "Missing argument 'NAME'"),
}


@pytest.mark.parametrize(("arguments", "says"), USAGE.values(), ids=USAGE.keys())
def test_a_command_that_is_not_one(arguments, says):
    answer = CliRunner().invoke(main, arguments)
    assert answer.exit_code == 2
    assert says in answer.stderr
    assert "Usage: " in answer.stderr
