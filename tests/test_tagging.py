"""Tagging: a test clip gets the score of its run, and a long recording those of its windows."""

import io
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from fusionkd_lib import experiment, tagging, timeline, training
from fusionkd_lib.audio import load_mono
from fusionkd_lib.cli import main
from fusionkd_lib.errors import InputError
from fusionkd_lib.params import make_params
from fusionkd_lib.records import Record
from fusionkd_lib.runs import Run, runs_root
from fusionkd_lib.storage import file_digest, write_json
from fusionkd_lib.tagging import cut_windows, load_tagger, tag_file

RATE = 8000
WINDOW = 4000  # samples of the runs below
SMALL = {
    "n_folds": 3,
    "sample_rate": RATE,
    "duration": 0.5,
    "representations": ["logmel", "gammatone"],
    "n_fft": 256,
    "hop_length": 128,
    "n_mels": 32,
    "gammatone_bands": 32,
    "width": 0.25,
    "head": [16, 8],
    "epochs": 1,
    "batch_size": 32,
    "threads": 1,
}
SINGLE = SMALL | {"dataset": "urban_synth", "clips_per_class": 1}
MULTI = SMALL | {"dataset": "urban_synth_scenes", "n_scenes": 8}


def quietly(history, n_epochs):
    pass


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(autouse=True)
def _outputs(outputs, monkeypatch):
    monkeypatch.setenv("FUSIONKD_OUTPUTS", str(outputs))


def trained(settings, **changes) -> Record:
    """Return the fusion run, trained by the first test that asks for it."""

    def fit(model, *arguments, **options):
        # After a few steps the running averages are still near their start, and all scores the
        # same; with momentum 1 they are those of the last batch.
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.momentum = 1.0
        return training.fit(model, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "fit", fit)
        return experiment.train_fusion(make_params(settings | changes), report=quietly)


def write_clip(folder, run: Record, row: int):
    """Write a test clip of a synthetic run as a sound file."""
    clips = experiment.clips_of(run.params)
    name = run.test.clips[row]
    index = clips.table["clip"].tolist().index(name)
    soundfile.write(folder / f"{name}.wav", clips.read(index, RATE), RATE, subtype="FLOAT")
    return folder / f"{name}.wav"


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE)).astype("float32")


def write_noise(path, seconds: float = 0.5, **options):
    soundfile.write(path, noise(seconds), RATE, subtype="FLOAT", **options)
    return path


@pytest.mark.parametrize("settings", [SINGLE, MULTI], ids=["single label", "multi-label"])
@pytest.mark.parametrize("head", [None, "fused", "logmel", "gammatone"])
def test_a_test_clip_gets_the_scores_that_its_run_has(tmp_path, settings, head):
    run = trained(settings)
    tagger = load_tagger(run.folder, head)
    result = tag_file(tagger, write_clip(tmp_path, run, 5))
    expected = run.scores[head or "fused"][5]
    assert run.scores[head or "fused"].std(axis=0).max() > 0.01  # else any clip would do
    assert tuple(result["scores"]) == run.provenance.classes
    np.testing.assert_allclose(list(result["scores"].values()), expected, atol=2e-5)
    assert result["duration_seconds"] == 0.5
    assert (result["run"], result["head"]) == (run.name, head or "fused")
    assert result["data_status"] == "synthetic"


def test_a_branch_run_is_its_branch(tmp_path):
    parent = next(iter(trained(SINGLE).provenance.parents))
    tagger = load_tagger(parent)  # by its name
    assert (tagger.told.run, tagger.told.head) == (parent, "logmel")
    assert list(tagger.representations) == ["logmel"]
    assert (tagger.clip_format.sample_rate, tagger.clip_format.n_samples) == (RATE, WINDOW)
    assert not tagger.network.training
    expected = Run(runs_root() / parent).record.scores["logmel"][0]
    result = tag_file(tagger, write_clip(tmp_path, trained(SINGLE), 0))
    np.testing.assert_allclose(list(result["scores"].values()), expected, atol=2e-5 + 2**-12)


def test_where_spectrograms_are_padded_zeros_follow_a_short_recording(tmp_path):
    tagger, seen = load_tagger(trained(SINGLE).folder, "logmel"), []
    padded = replace(tagger, clip_format=replace(tagger.clip_format, pad="spectrogram"))
    tagger.network.normalise.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    tag_file(padded, write_noise(tmp_path / "short.wav", 0.2))
    (spectrogram,) = seen  # (1, 1, F, T)
    alone = tagger.representations["logmel"](torch.from_numpy(noise(0.2))[None])
    n_frames = alone.shape[3]
    assert (n_frames, spectrogram.shape[3]) == (13, 32)  # 0.2 and 0.5 s, a hop of 16 ms
    torch.testing.assert_close(spectrogram[..., :n_frames], alone)
    assert (spectrogram[..., n_frames:] == 0).all()


@pytest.mark.parametrize(
    ("n_samples", "starts"),
    [
        (10, [0]),  # shorter than a window
        (100, [0]),
        (101, [0, 1]),
        (250, [0, 100, 150]),
        (300, [0, 100, 200]),
    ],
)
@pytest.mark.parametrize("block", [7, 100, 1000])
def test_windows_cover_a_recording_and_the_last_ends_with_it(n_samples, starts, block):
    waveform = np.arange(n_samples, dtype=np.float32)
    windows = list(cut_windows(np.split(waveform, range(block, n_samples, block)), 100))
    assert [start for start, _ in windows] == starts
    for start, window in windows:
        np.testing.assert_array_equal(window, waveform[start : start + 100])


@pytest.mark.parametrize(
    ("n_samples", "step", "starts"),
    [
        (100, 50, [0]),
        (101, 50, [0, 1]),
        (150, 50, [0, 50]),
        (160, 50, [0, 50, 60]),
        (230, 30, [0, 30, 60, 90, 120, 130]),
    ],
)
@pytest.mark.parametrize("block", [7, 100, 1000])
def test_windows_may_overlap(n_samples, step, starts, block):
    waveform = np.arange(n_samples, dtype=np.float32)
    windows = list(cut_windows(np.split(waveform, range(block, n_samples, block)), 100, step))
    assert [start for start, _ in windows] == starts
    for start, window in windows:
        np.testing.assert_array_equal(window, waveform[start : start + 100])


@pytest.mark.parametrize(
    ("settings", "reduce"),
    [(SINGLE, np.mean), (MULTI, np.max)],
    ids=["mean of a single label", "maximum of many"],
)
def test_a_long_recording_is_scored_by_its_windows(tmp_path, monkeypatch, settings, reduce):
    monkeypatch.setattr(tagging, "WINDOWS_AT_ONCE", 2)
    tagger = load_tagger(trained(settings).folder)
    result = tag_file(tagger, write_noise(tmp_path / "long.wav", 2.2), windows=True)
    starts = [0, 0.5, 1.0, 1.5, 1.7]
    assert [window["start_seconds"] for window in result["windows"]] == starts
    assert result["duration_seconds"] == 2.2
    by_window = np.array([list(window["scores"].values()) for window in result["windows"]])
    long = noise(2.2)
    alone = [long[round(RATE * start) :][:WINDOW] for start in starts]
    np.testing.assert_allclose(by_window, tagger.scores(alone), atol=1e-4)
    expected = reduce(by_window, axis=0)
    np.testing.assert_allclose(list(result["scores"].values()), expected, atol=2e-6)


def test_a_short_recording_is_padded(tmp_path):
    tagger = load_tagger(trained(MULTI).folder)
    padded = np.concatenate([noise(0.2), np.zeros(WINDOW - round(0.2 * RATE), np.float32)])
    result = tag_file(tagger, write_noise(tmp_path / "short.wav", 0.2), windows=True)
    assert result["warning"].startswith("0.2 s are less than a window of")
    expected = tagger.scores([padded])[0]
    np.testing.assert_allclose(list(result["scores"].values()), expected, atol=1e-4)
    assert result["duration_seconds"] == 0.2
    assert len(result["windows"]) == 1


@pytest.mark.parametrize(
    ("waveform", "said"),
    [
        (noise(1.0), None),
        (np.zeros(RATE), "silent"),
        (1e-5 * noise(1.0), "silent"),
        (np.clip(4 * noise(1.0), -1, 1), "at full scale: clipped"),
        (np.zeros(100), "less than a window of 0.5 s: the rest was padded; silent"),
    ],
    ids=["sound", "zeros", "noise of a converter", "too loud", "short and silent"],
)
def test_what_makes_scores_doubtful_is_told(tmp_path, waveform, said):
    soundfile.write(tmp_path / "a.wav", waveform, RATE, subtype="FLOAT")
    found = tag_file(load_tagger(trained(SINGLE).folder, "logmel"), tmp_path / "a.wav")
    assert said in found["warning"] if said else "warning" not in found


def test_a_recording_that_was_clipped_before_it_was_resampled_is_told(tmp_path):
    tone = np.sin(2 * np.pi * 200 * np.arange(44100) / 44100)
    for gain in (0.9, 3.0):
        soundfile.write(tmp_path / f"{gain}.wav", np.clip(gain * tone, -1, 1), 44100)
    tagger = load_tagger(trained(SINGLE).folder, "logmel")
    assert "warning" not in tag_file(tagger, tmp_path / "0.9.wav")
    assert "clipped" in tag_file(tagger, tmp_path / "3.0.wav")["warning"]


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3", "a.aiff"])
def test_any_format_rate_and_number_of_channels_is_tagged(tmp_path, name):
    tagger = load_tagger(trained(MULTI).folder)
    stereo = noise(2 * 44100 / RATE).reshape(-1, 2)  # of 1 s
    soundfile.write(tmp_path / name, stereo, 44100)
    result = tag_file(tagger, tmp_path / name)
    waveform = load_mono(tmp_path / name, sample_rate=RATE)
    assert result["duration_seconds"] == pytest.approx(1, abs=0.06)
    by_window = tagger.scores([waveform[:WINDOW], waveform[WINDOW:][:WINDOW], waveform[-WINDOW:]])
    expected = by_window.max(axis=0)
    np.testing.assert_allclose(list(result["scores"].values()), expected, atol=1e-4)


def test_memory_does_not_grow_with_the_recording(tmp_path, monkeypatch):
    tagger, batches = load_tagger(trained(SINGLE).folder, "logmel"), []

    def score(self, waveforms):
        batches.append(len(waveforms))
        return np.full((len(waveforms), 10), 0.1)

    monkeypatch.setattr(tagging.Tagger, "scores", score)
    assert tag_file(tagger, write_noise(tmp_path / "long.wav", 60))["duration_seconds"] == 60
    assert sum(batches) == 120
    assert max(batches) == tagging.WINDOWS_AT_ONCE


def test_tags_reach_the_thresholds_of_validation_and_the_surest_comes_first(tmp_path):
    tagger = load_tagger(trained(MULTI).folder)
    assert list(tagger.told.thresholds) == trained(MULTI).metrics["fused"]["thresholds"]
    path = write_noise(tmp_path / "a.wav")
    scores = np.array(list(tag_file(tagger, path)["scores"].values()))
    order = np.argsort(-scores)
    # One below, one at its own score's height and above it: reached is reached.
    thresholds = np.full(len(scores), 1.1)
    thresholds[order[[0, 2]]] = scores[order[[0, 2]]] - 1e-5
    told = tagger.told.model_copy(update={"thresholds": tuple(thresholds)})
    result = tag_file(replace(tagger, told=told), path)
    assert result["tags"] == [tagger.told.labels[k] for k in order[[0, 2]]]


def test_of_one_label_the_likeliest_class_is_the_tag_whatever_the_thresholds(tmp_path):
    tagger = load_tagger(trained(SINGLE).folder)
    path = write_noise(tmp_path / "a.wav")
    for height in (0.0, 1.1):
        thresholds = np.full(len(tagger.told.labels), height)
        told = tagger.told.model_copy(update={"thresholds": tuple(thresholds)})
        result = tag_file(replace(tagger, told=told), path)
        assert result["tags"] == [max(result["scores"], key=result["scores"].get)]


def test_without_validation_clips_a_tag_is_a_score_of_one_half():
    assert set(load_tagger(trained(SINGLE, validation="none").folder).told.thresholds) == {0.5}


# What can be wrong


def test_an_unknown_run_names_the_nearest_one():
    run = trained(SINGLE)
    message = f"there is no such run: did you mean '{re.escape(run.name)}'"
    with pytest.raises(InputError, match=message):
        load_tagger(run.name[:-1])
    with pytest.raises(InputError, match=r"zzz: there is no such run: give a folder, or a run of"):
        load_tagger("zzz")


def test_an_unknown_head_names_those_there_are():
    with pytest.raises(InputError, match=r"head = 'cqt' .* 'logmel', 'gammatone', 'fused'"):
        load_tagger(trained(SINGLE).folder, "cqt")


def test_an_unfinished_run_is_refused(tmp_path):
    (tmp_path / "params.yaml").touch()
    with pytest.raises(InputError, match=r"this run is not finished"):
        load_tagger(tmp_path)


def test_a_folder_that_is_no_run_is_not_taken_for_one(tmp_path):
    with pytest.raises(InputError, match=r"there is no such run"):
        load_tagger(tmp_path)


@pytest.fixture
def copy(tmp_path) -> Run:
    """Return a finished run that a test may damage."""
    run = trained(SINGLE)
    shutil.copytree(run.folder.parent, tmp_path / "runs")
    return Run(tmp_path / "runs" / run.name)


def seal(run: Run, name: str) -> None:
    """Make a changed file the run's own."""
    complete = json.loads((run.folder / "complete.json").read_text())
    complete["files"][name] = file_digest(run.folder / name)
    write_json(run.folder / "complete.json", complete)


def test_another_networks_weights_are_refused(copy):
    path = copy.folder / "logmel.safetensors"
    state = load_file(path)
    state["head.0.weight"] = torch.zeros(5, 7)
    save_file(state, path)
    with pytest.raises(InputError, match=r"logmel\.safetensors: missing or changed"):
        load_tagger(copy.folder, "logmel")
    seal(copy, path.name)
    with pytest.raises(InputError, match=r"not the weights of this network \(head\.0\.weight"):
        load_tagger(copy.folder, "logmel")


# The command


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_command_prints_one_object_a_line(tmp_path):
    run = trained(MULTI)
    paths = [str(write_noise(tmp_path / name)) for name in ("a.wav", "b.wav")]
    answer = CliRunner().invoke(main, ["tag", run.name, *paths])
    assert answer.exit_code == 0, answer.output
    results = lines(answer.stdout)
    assert [result["file"] for result in results] == paths
    assert results[0] == tag_file(load_tagger(run.folder), paths[0])
    answer = CliRunner().invoke(
        main, ["tag", str(run.folder), paths[0], "--head", "logmel", "--windows"]
    )
    (result,) = lines(answer.stdout)
    assert result["head"] == "logmel"
    assert len(result["windows"]) == 1


def test_a_table_of_windows_says_what_the_objects_say(tmp_path):
    run = trained(SINGLE)
    path = str(write_noise(tmp_path / "long.wav", 1.2))
    told = ["tag", run.name, path, "--overlap", "0.5", "--windows"]
    (result,) = lines(CliRunner().invoke(main, told).stdout)
    assert [window["start_seconds"] for window in result["windows"]] == [0, 0.25, 0.5, 0.7]
    assert [window["end_seconds"] for window in result["windows"]] == [0.5, 0.75, 1.0, 1.2]
    answer = CliRunner().invoke(main, [*told, "--format", "csv"])
    table = pd.read_csv(io.StringIO(answer.stdout))
    assert list(table) == ["file", "start_seconds", "end_seconds", *result["scores"]]
    assert set(table["file"]) == {path}
    for (_, row), window in zip(table.iterrows(), result["windows"], strict=True):
        assert (row["start_seconds"], row["end_seconds"]) == (
            window["start_seconds"],
            window["end_seconds"],
        )
        assert row[list(result["scores"])].to_dict() == window["scores"]


def test_labels_are_the_stretches_of_a_tag(tmp_path):
    spans = [(0, 1, ["a"]), (0.5, 1.5, ["a", "b"]), (1, 2, ["b"]), (1.5, 2.5, []), (2, 3, ["a"])]
    windows = [{"start_seconds": a, "end_seconds": b, "tags": tags} for a, b, tags in spans]
    rows = [line.split("\t") for line in timeline.as_audacity({"windows": windows}).splitlines()]
    found = [(float(start), float(end), tag) for start, end, tag in rows]
    assert found == [(0, 1.5, "a"), (0.5, 2, "b"), (2, 3, "a")]
    assert timeline.as_audacity({"windows": [windows[3]]}) == ""
    path = str(write_noise(tmp_path / "a.wav", 1.2))
    answer = CliRunner().invoke(main, ["tag", trained(SINGLE).name, path, "--format", "audacity"])
    starts_and_ends = [line.split("\t")[:2] for line in answer.stdout.splitlines()]
    assert starts_and_ends[0][0] == "0.000000"
    assert starts_and_ends[-1][1] == "1.200000"
    answer = CliRunner().invoke(
        main, ["tag", trained(SINGLE).name, path, path, "--format", "audacity"]
    )
    assert answer.exit_code == 1
    assert "name one file" in answer.stderr


def test_a_folder_and_standard_input_are_tagged_as_their_files(tmp_path):
    name = trained(SINGLE).name
    (tmp_path / "sounds" / "deeper").mkdir(parents=True)
    (tmp_path / "sounds" / "notes.txt").touch()
    paths = [str(tmp_path / "sounds" / x) for x in ("b.wav", "deeper/a.wav")]
    for path in paths:
        write_noise(Path(path))
    alone = lines(CliRunner().invoke(main, ["tag", name, *paths]).stdout)
    assert lines(CliRunner().invoke(main, ["tag", name, str(tmp_path / "sounds")]).stdout) == alone
    piped = CliRunner().invoke(main, ["tag", name, "-"], input=Path(paths[0]).read_bytes())
    assert lines(piped.stdout) == [alone[0] | {"file": "-"}]
    piped = CliRunner().invoke(main, ["tag", name, "-"], input=b"no sound")
    assert piped.exit_code == 1
    assert piped.stderr.startswith("Error: -: cannot be read as audio")
    (tmp_path / "none").mkdir()
    answer = CliRunner().invoke(main, ["tag", name, str(tmp_path / "none"), paths[0]])
    assert answer.exit_code == 1
    assert "none: cannot be opened (Is a directory)" in answer.stderr
    assert lines(answer.stdout) == [alone[0]]


def test_a_bad_file_is_told_and_the_others_are_tagged(tmp_path):
    good = str(write_noise(tmp_path / "good.wav"))
    (tmp_path / "bad.wav").write_text("no sound")
    files = [good, str(tmp_path / "bad.wav"), str(tmp_path / "none.wav"), good]
    answer = CliRunner().invoke(main, ["tag", trained(SINGLE).name, *files])
    assert answer.exit_code == 1
    assert [result["file"] for result in lines(answer.stdout)] == [good, good]
    errors = answer.stderr.splitlines()
    assert len(errors) == 2
    assert errors[0].startswith(f"Error: {tmp_path / 'bad.wav'}: cannot be read as audio")
    assert errors[1].startswith(f"Error: {tmp_path / 'none.wav'}: does not exist")


def test_a_name_that_is_no_utf_8_stops_no_other(tmp_path):
    odd, gone = os.fsdecode(b"\xff.wav"), os.fsdecode(b"\xfe.wav")
    paths = [str(tmp_path / name) for name in (odd, gone, "good.wav")]
    for path in (paths[0], paths[2]):
        os.replace(write_noise(tmp_path / "new.wav"), path)
    answer = CliRunner().invoke(main, ["tag", trained(SINGLE).name, *paths])
    assert answer.exit_code == 1
    assert [result["file"] for result in lines(answer.stdout)] == [paths[0], paths[2]]
    assert "does not exist" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["no-such-run", "a.wav"], 1, "no-such-run: there is no such run"),
        (["no-such-run"], 2, "Missing argument 'AUDIO...'"),
        ([], 2, "Missing argument 'RUN'"),
    ],
)
def test_what_is_asked_wrongly_is_told(arguments, status, said):
    answer = CliRunner().invoke(main, ["tag", *arguments])
    assert answer.exit_code == status
    assert said in answer.stderr
    assert not answer.stdout
