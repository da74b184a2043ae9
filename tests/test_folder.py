"""A folder of one's own sounds: any layout gives an honest table, and what is wrong is said."""

import hashlib
import json
from pathlib import Path

import miniature
import numpy as np
import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner
from hostile import cell, changed, check, holding, refused, sentence_of, table, without
from miniature import make_urbansound8k, write_tone

from fusionkd_lib import experiment
from fusionkd_lib.cli import main
from fusionkd_lib.datasets import folder, splits, urbansound8k
from fusionkd_lib.runs import find_records, run_name, runs_root
from fusionkd_lib.tables import collect
from fusionkd_lib.tagging import load_tagger, tag_file

COLUMNS = ("path", "label", "fold", "recording")
ROWS = (
    ("a/1.wav", "low", 1, "a"),
    ("a/2.wav", "low", 1, "a"),
    ("b.wav", "low", 2, "b"),
    ("c.wav", "low", 3, "c"),
    ("d.wav", "high", 1, "d"),
    ("e.wav", "high", 2, "e"),
    ("f.wav", "high", 3, "f"),
)


def make_folder(root: Path, rows=ROWS, columns=COLUMNS) -> Path:
    """Write tones and their table; those of `high` last longer than those of `low`."""
    listed = pd.DataFrame(rows, columns=list(columns))
    for path, label in zip(listed["path"], listed["label"], strict=True):
        write_tone(root / path, seconds=0.2 if label == "high" else 0.1)
    listed.to_csv(root / "clips.csv", index=False)
    return root


def make_classes(root: Path, names: dict[str, int]) -> Path:
    """Write one folder per class, with so many tones."""
    for label, number in names.items():
        for i in range(number):
            write_tone(root / label / f"{i:02d}.wav")
    return root


def as_csv(clips, root: Path) -> None:
    """Write a loader's own table as a stranger would, with paths below a folder."""
    rows = {
        "path": [path.relative_to(root).as_posix() for path in clips.table["path"]],
        "label": [clips.classes[k] for k in clips.targets],
        "fold": clips.table["fold"],
        "recording": clips.table["group"],
    }
    pd.DataFrame(rows).to_csv(root / "clips.csv", index=False)


def assert_same(found, expected) -> None:
    assert found.classes == expected.classes
    for column in ("clip", "fold", "group", "path"):
        assert found.table[column].tolist() == expected.table[column].tolist()
    assert found.table.columns.tolist() == expected.table.columns.tolist()
    np.testing.assert_array_equal(found.targets, expected.targets)
    assert found.targets.dtype == expected.targets.dtype


# Layouts


def test_urbansound8k_as_a_table_is_urbansound8k(tmp_path, monkeypatch):
    rows = [
        (1000 + 10 * fold + k, n, fold, k, name)
        for k, name in enumerate(urbansound8k.CLASSES)
        for fold in (2, 1, 10)
        for n in range(2)
    ]
    monkeypatch.setattr(miniature, "URBANSOUND8K_ROWS", rows)
    monkeypatch.setattr(urbansound8k, "N_CLIPS", len(rows))
    expected = urbansound8k.clips(root := make_urbansound8k(tmp_path / "UrbanSound8K"))
    as_csv(expected, root)
    found = folder.clips(root)
    assert_same(found, expected)
    assert found.status == "real"
    assert found.note == "60 clips, 30 recordings, 3 folds"
    np.testing.assert_array_equal(found.read(7, 8000), expected.read(7, 8000))


def test_the_real_clips_as_a_table_are_the_loaders(shared_data, tmp_path):
    expected = urbansound8k.clips(shared_data / "UrbanSound8K", allow_partial=True)
    places = [tmp_path / path.parent.name / path.name for path in expected.table["path"]]
    for path, place in zip(expected.table["path"], places, strict=True):
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(path)
    expected.table["path"] = places
    as_csv(expected, tmp_path)
    assert_same(folder.clips(tmp_path), expected)


def test_a_folder_per_class_is_split_by_a_hash_of_the_path_that_no_other_file_moves(tmp_path):
    root = make_classes(tmp_path / "sounds", {"siren": 12, "dog": 12})
    (root / "dog" / ".ipynb_checkpoints").mkdir()
    write_tone(root / "dog" / ".ipynb_checkpoints" / "00.wav")
    (root / "dog" / "licence.txt").write_text("CC0")
    found = folder.clips(root)
    assert found.classes == ("dog", "siren")
    assert len(found) == 24
    assert found.table["clip"].tolist()[:2] == ["dog/00.wav", "dog/01.wav"]  # 00 is a siren too
    assert "recordings are not named: one may be on two sides" in found.note
    for name, fold in zip(found.table["group"], found.table["fold"], strict=True):
        number = int(hashlib.sha256(json.dumps(name).encode()).hexdigest()[:16], 16)
        assert fold == number % 5 + 1
    write_tone(root / "cat" / "1.wav")
    write_tone(root / "cat" / "2.wav")
    write_tone(root / "dog" / "-1.wav")
    before = found.table.set_index("group")["fold"].to_dict()
    after = folder._by_folder(root, folder._sounds(root)).set_index("path")["fold"].to_dict()
    assert before.items() <= after.items()


def test_several_labels_anywhere_make_a_task_of_many_tags(tmp_path):
    rows = [
        ("1.wav", "siren; dog", 1),
        ("2.wav", "dog", 2),
        ("3.wav", "", 2),
        ("4.wav", "siren;", 3),
        ("5.wav", "007;siren", 1),
        ("6.wav", "007", 3),
    ]
    found = folder.clips(make_folder(tmp_path, rows, COLUMNS[:3]))
    assert found.multi_label
    assert found.classes == ("007", "dog", "siren")
    tags = [[0, 1, 1], [0, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 1], [1, 0, 0]]
    np.testing.assert_array_equal(found.targets, np.array(tags, np.float32))
    assert found.targets.dtype == np.float32


def test_a_split_in_words_is_the_split_of_a_run(tmp_path):
    sides = ("train", "validation", "test", "train", "test", "validation", "train", "train")
    rows = [(f"{i}.wav", "ab"[i % 2], side) for i, side in enumerate(sides)]
    found = folder.clips(make_folder(tmp_path, rows, ("path", "label", "split")))
    split = splits.make_split(found, fold=1)
    for side in ("train", "validation", "test"):
        expected = [i for i, other in enumerate(sides) if other == side]
        assert getattr(split, side).tolist() == expected


@pytest.mark.parametrize("validation", ["next_fold", "grouped"])
def test_a_recording_is_on_one_side_whatever_the_folds_say(tmp_path, validation):
    rows = [(f"{i}.wav", "ab"[i % 2], i // 5 % 3 + 1, f"r{i // 4}") for i in range(48)]
    found = folder.clips(make_folder(tmp_path, rows))
    split = splits.make_split(found, fold=1, validation=validation, drop_leaked=True)
    sides = [set(found.table["group"].iloc[getattr(split, x)]) for x in ("train", "validation")]
    assert not sides[0] & sides[1]
    assert not sides[0] & set(found.table["group"].iloc[split.test])


def test_paths_of_windows_and_a_recording_that_is_left_empty(tmp_path):
    root = make_folder(tmp_path)
    rows = pd.read_csv(root / "clips.csv")
    rows["path"] = rows["path"].str.replace("/", "\\")
    rows.loc[2, "recording"] = ""
    (root / "clips.csv").write_bytes(b"\xef\xbb\xbf" + rows.to_csv(index=False).encode())
    found = folder.clips(root)
    assert found.table["clip"].tolist() == ["1", "2", "b", "c", "d", "e", "f"]
    assert found.table["group"].tolist() == ["a", "a", "b.wav", "c", "d", "e", "f"]


# What is wrong


TABLES = {
    "an empty table": (holding(b""), ("clips.csv: cannot be read as CSV", "write path, label")),
    "a header alone": (changed(lambda rows: rows[:0]), ("has no rows", "write path, label")),
    "no column of paths": (without("path"), ("lacks the column path", "write path, label")),
    "no column of labels": (without("label"), ("lacks the column label",)),
    "no fold and no split": (
        without("fold"),
        ("needs either the column fold or the column split",),
    ),
    "both": (changed(lambda rows: rows.assign(split="train")), ("either the column fold or",)),
    "fold 0": (cell("fold", 0), ("line 3: fold is 0", "1, 2, 3", "100", "mend that row")),
    "fold 1.5": (cell("fold", 1.5), ("line 3: fold is 1.5", "mend that row")),
    "an unknown split": (
        changed(lambda rows: rows.assign(split="dev").drop(columns="fold")),
        ("line 2: split is dev", "must be one of test, validation, train", "mend that row"),
    ),
    "no label": (cell("label", ""), ("line 3: label is", "no sound has several", "mend that row")),
    "a path that climbs out": (
        cell("path", "../x.wav"),
        ("line 3: path is ../x.wav", "must be a sound inside the folder"),
    ),
    "a path that climbs out and in": (cell("path", "../sounds/b.wav"), ("inside the folder",)),
    "an absolute path": (cell("path", "/etc/x.wav"), ("path is /etc/x.wav", "inside the folder")),
    "a drive": (cell("path", r"C:\b.wav"), ("line 3: path is C:", "inside the folder")),
    "a file that is not there": (cell("path", "g.wav"), ("path is g.wav", "inside the folder")),
    "a file that is no sound": (cell("path", "clips.csv"), ("inside the folder", "mend that row")),
    "a file twice": (cell("path", "b.wav"), ("line 4: path is b.wav", "appears twice")),
    "a file twice, in two spellings": (cell("path", "./b.wav"), ("line 4", "appears twice")),
    "a terminal's colours": (cell("path", "\x1b[31mb.wav"), (r"\x1b[31mb.wav", "inside")),
    "one label": (
        changed(lambda rows: rows.assign(label="low")),
        ("every sound has the label low", "a tagger needs two labels"),
    ),
    "a label in one fold": (
        changed(lambda rows: rows.assign(fold=[1, 1, 2, 3, 2, 2, 2])),
        ("high has recordings: 3, in folds: 1", "it takes two in two", "leave it out"),
    ),
    "a label of one recording": (
        changed(lambda rows: rows.assign(recording=[*"aabcfff"])),
        ("high has recordings: 1, in folds: 3",),
    ),
}


@table(TABLES)
def test_a_table_that_cannot_be_used(tmp_path, make, says):
    root = make_folder(tmp_path / "sounds")
    make(root / "clips.csv")
    sentence = sentence_of(folder.clips, root)
    check(sentence, *says)
    (tmp_path / "run.yaml").write_text(f"dataset: folder\ndata_root: {root}\n")
    answer = CliRunner().invoke(main, ["run", "--dry-run", str(tmp_path / "run.yaml")])
    assert "cannot run yet: store-folder" in answer.stdout
    assert sentence in answer.stdout
    assert not runs_root().exists()


FOLDERS = {
    "no folder": (lambda root: None, ("holds no sounds", "a folder per class")),
    "no sounds": (
        lambda root: (root / "dog").mkdir(parents=True) or (root / "dog" / "a.txt").write_text(""),
        ("holds no sounds", "a folder per class"),
    ),
    "a sound outside of all classes": (
        lambda root: write_tone(make_classes(root, {"dog": 3, "cat": 3}) / "x.wav"),
        ("x.wav: has no class", "clips.csv"),
    ),
    "one class": (lambda root: make_classes(root, {"dog": 9}), ("every sound has the label dog",)),
    "a class of one sound": (
        lambda root: make_classes(root, {"dog": 9, "cat": 1}),
        ("cat has recordings: 1, in folds: 1",),
    ),
    "a name that is no text": (
        lambda root: (make_classes(root, {"dog": 3}) / "dog" / "00.wav").rename(
            root / "dog" / "\udcff.wav"
        ),
        ("whose name is no text",),
    ),
}


@table(FOLDERS)
def test_a_folder_that_cannot_be_used(tmp_path, make, says):
    make(root := tmp_path / "sounds")
    check(sentence_of(folder.clips, root), str(root), *says)


def checked(root: Path) -> tuple[int, str]:
    answer = CliRunner().invoke(main, ["data", "check", "folder", "--root", str(root)])
    return answer.exit_code, answer.output


def test_a_good_folder_is_told_to_be_good(tmp_path):
    status, told = checked(make_folder(tmp_path))
    assert status == 0
    lines = [line.split() for line in told.splitlines()]
    assert lines[0][1:] == ["7", "clips,", "6", "recordings,", "3", "folds"]
    assert lines[1:] == [
        ["clips", "recordings", "folds"],
        ["high", "3", "3", "3"],
        ["low", "4", "3", "3"],
    ]


def test_everything_that_is_wrong_is_said_at_once(tmp_path):
    rows = [(*row[:3], "a" if row[0] == "b.wav" else row[3]) for row in ROWS]
    rows += [("g.wav", "rare", 2, "g")]
    root = make_folder(tmp_path, rows)
    (root / "c.wav").write_bytes(b"RIFF")
    (root / "d.wav").write_bytes(b"")
    soundfile.write(root / "e.wav", np.ones(99) / 2, 44100)
    status, told = checked(root)
    assert status == 1
    expected = [
        "fault: rare has recordings: 1, in folds: 1",
        "fault: c.wav: cannot be read as audio",
        "fault: d.wav: is empty",
        "fault: recording a is on two sides: give all of its clips one fold",
        "remark: the rates 16000, 44100 Hz are mixed",
    ]
    lines = told.splitlines()[-len(expected) :]
    assert all(line.startswith(words) for line, words in zip(lines, expected, strict=True)), told


def test_mixed_rates_alone_are_no_fault(tmp_path):
    root = make_folder(tmp_path)
    soundfile.write(root / "e.wav", np.ones(99) / 2, 44100)
    report = folder.check(root)
    assert report["whole"]
    assert len(report["remarks"]) == 1
    assert json.loads(json.dumps(report))["labels"]["low"] == {
        "clips": 4,
        "recordings": 3,
        "folds": 3,
    }


def test_what_cannot_be_listed_is_one_sentence_of_the_command(tmp_path):
    assert "holds no sounds" in refused("data", "check", "folder", "--root", tmp_path)
    fetched = refused("data", "fetch", "folder", "--root", tmp_path)
    check(fetched, "NAME = 'folder' is not allowed", "'urbansound8k'", "'sonyc_ust'")


# A run


def test_another_folder_is_another_run_and_a_moved_dataset_is_not(tiny):
    names = {
        run_name(tiny(dataset=dataset, data_root=root), branch=branch)
        for dataset in ("folder", "urbansound8k")
        for root in ("here", "there")
        for branch in ("logmel", "baselines")
    }
    assert len([name for name in names if name.startswith("folder")]) == 4
    assert len([name for name in names if name.startswith("urbansound8k")]) == 2


def test_a_folder_goes_through_the_whole_method(tmp_path, monkeypatch, tiny):
    rows = [
        (f"{i}.wav", "high" if i % 2 else "low", i // 8 + 1, f"r{i // 2 if i % 4 < 2 else i}")
        for i in range(24)
    ]
    root = make_folder(tmp_path / "data" / "mine", rows)
    monkeypatch.setenv("FUSIONKD_DATA", str(tmp_path / "data"))
    params = tiny(dataset="folder", data_folder="mine", data_status="stand-in", epochs=1)
    pair = experiment.train_fusion(params, report=lambda history, n_epochs: None)
    experiment.score_baselines(params)
    records, faults = find_records(runs_root())
    assert (len(records), faults) == (4, [])
    (told,) = collect(records)
    assert told.title.endswith("accuracy in %, folder mine (stand-in)")
    assert [row.clips for row in told.rows] == [8] * len(told.rows)
    scores = tag_file(load_tagger(pair.folder), root / "3.wav")["scores"]
    assert list(scores) == ["high", "low"]
    with pytest.raises(
        ValueError, match="fold or train_folds = 4: folder mine here has clips of 1, 2, 3"
    ):
        experiment.prepare(params.replace(fold=4))
