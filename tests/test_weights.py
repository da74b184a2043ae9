"""The weights that come with the book: whole, small, told rightly, and good taggers."""

import re

import numpy as np
import pytest
import yaml

from fusionkd_book import weights
from fusionkd_lib.experiment import clips_of
from fusionkd_lib.exported import open_exported
from fusionkd_lib.records import Record
from fusionkd_lib.runs import find_records, outputs_root, project_root, run_name
from fusionkd_lib.tagging import load_tagger

NAMES = ("fused", "logmel")
HEADS = [("fused", "fused"), ("fused", "logmel"), ("fused", "gammatone"), ("logmel", "logmel")]
ROOT = project_root()


@pytest.fixture(scope="module")
def records() -> dict[str, Record]:
    found, faults = find_records(ROOT / weights.RECORDS)
    assert faults == []
    return {record.name: record for record in found}


@pytest.fixture(scope="module")
def few() -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the places among the test clips of two of each class, and their waveforms."""
    params = weights.recipes()["fused"]
    clips = clips_of(params)
    test = np.flatnonzero(clips.table["fold"] == params.fold)
    places = np.flatnonzero(np.arange(len(test)) % params.clips_per_class % 31 == 0)
    return places, [clips.read(int(row), params.sample_rate) for row in test[places]]


def test_there_is_a_file_with_its_card_for_each_parameter_file_and_they_are_small():
    assert tuple(weights.recipes()) == NAMES
    folder = ROOT / weights.FOLDER
    files = sorted(path.name for path in folder.iterdir())
    assert files == sorted(f"{name}.{ending}" for name in NAMES for ending in ("onnx", "md"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6


def test_the_branch_alone_has_the_settings_and_the_epochs_of_a_distilled_one():
    fused, alone = (weights.recipes()[name] for name in NAMES)
    assert alone.epochs == fused.epochs + fused.joint_epochs
    same = {"representations": list(fused.representations), "epochs": fused.epochs}
    assert alone.replace(**same, joint_epochs=fused.joint_epochs) == fused
    assert (fused.validation, fused.select) == ("none", "last")  # no test clip chose anything


@pytest.mark.parametrize("name", NAMES)
def test_file_card_parameters_and_record_tell_the_same(name, records):
    told, params = open_exported(weights.path_of(name)).told, weights.recipes()[name]
    branch = None if name == "fused" else name
    assert told.run == run_name(params, branch=branch)
    assert told.digest == records[told.run].digest
    assert told.precision == "float16"
    assert told.licence == "MIT"
    assert (told.sample_rate, told.window_seconds) == (params.sample_rate, params.duration)
    assert told.heads == (params.representations if name == "fused" else ())
    for head in told.outputs:
        found = told.of(head)
        accuracy = np.mean(
            records[told.run].scores[head].argmax(1) == records[told.run].test.targets
        )
        assert found.score == pytest.approx(accuracy, abs=1e-6)
        assert accuracy > 0.8
    card = weights.path_of(name).with_suffix(".md").read_text()
    for fact in (told.run, told.digest, ", ".join(told.labels), f"{told.score:.4f}"):
        assert fact in card


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_clips_that_no_network_has_seen_are_tagged_as_the_record_says(name, head, records, few):
    places, waveforms = few
    tagger = load_tagger(weights.path_of(name), head)
    record, scores = records[tagger.told.run], tagger.scores(waveforms)
    # The record's scores are torch's, in single precision, from the run's own spectrograms.
    np.testing.assert_allclose(scores, record.scores[head][places], rtol=0, atol=0.03)
    right = scores.argmax(axis=1) == record.test.targets[places]
    assert sorted(record.test.targets[places].tolist()) == sorted([*range(10)] * 2)
    assert right.sum() >= 12  # by chance it would be 2 of 20, and 12 once in ten million


def test_one_command_makes_files_and_records_from_parameters(monkeypatch, tmp_path, tiny):
    settings = tiny().model_dump(mode="json", exclude_defaults=True)
    (tmp_path / weights.RECIPES).mkdir(parents=True)
    (tmp_path / weights.FOLDER).mkdir(parents=True)
    for name, own in (("fused", ["logmel", "gammatone"]), ("logmel", ["logmel"])):
        text = yaml.safe_dump(settings | {"representations": own})
        (tmp_path / weights.RECIPES / f"{name}.yaml").write_text(text)
    monkeypatch.setenv("FUSIONKD_OUTPUTS", str(tmp_path / "made"))
    monkeypatch.setattr(weights, "project_root", lambda: tmp_path)
    paths = list(weights.make())
    assert paths == [weights.path_of(name) for name in NAMES]
    kinds = [run.provenance.kind for run in find_records(tmp_path / weights.RECORDS)[0]]
    assert sorted(kinds) == ["baselines", "branch", "fusion"]
    runs = outputs_root() / "runs"
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/complete.json")}
    assert list(weights.make()) == paths
    assert {path: path.stat().st_mtime_ns for path in runs.glob("*/complete.json")} == before
    assert re.search("accuracy", paths[0].with_suffix(".md").read_text())
