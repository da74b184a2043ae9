"""Runs: named by what decides them, finished or not, and every record traceable and unchanged."""

import hashlib
import importlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, recall_score

from fusionkd_lib import runs
from fusionkd_lib.catalogue import FUSED
from fusionkd_lib.errors import InputError, Stopped
from fusionkd_lib.experiment import (
    load_branch,
    load_fusion,
    prepare,
    recipe_of,
    train_branch,
    train_fusion,
    training_statistics,
)
from fusionkd_lib.params import make_params
from fusionkd_lib.records import COMPLETE, FILES, VERSION, Record
from fusionkd_lib.runs import CHECKPOINT, STOP_FILE, Run, find_records, run_name, trace, where_from
from fusionkd_lib.storage import write_json
from fusionkd_lib.training import predict, probabilities

PAIR = ("logmel", "gammatone")


class PowerCutError(Exception):
    """What interrupts a run."""


def silent(history, n_epochs) -> None:
    """Report nothing."""


def cut_after_one(history, n_epochs) -> None:
    """Interrupt a run after its first epoch."""
    if len(history) == 1:
        raise PowerCutError


def never(history, n_epochs) -> None:
    """Be reported to by no training at all."""
    raise AssertionError(f"epoch {len(history)} was trained again")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny) -> Record:
    """Return a finished fusion run, beside the two branch runs that it stands on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSIONKD_OUTPUTS", str(tmp_path_factory.mktemp("trained")))
        return train_fusion(tiny(representations=PAIR), report=silent)


@pytest.fixture
def copied(trained, tmp_path, monkeypatch) -> Run:
    """Return the same run in a folder of this test's own."""
    shutil.copytree(trained.folder.parents[1], tmp_path / "outputs")
    monkeypatch.setenv("FUSIONKD_OUTPUTS", str(tmp_path / "outputs"))
    return Run(tmp_path / "outputs" / "runs" / trained.name)


def parents(run: Record) -> list[Record]:
    return [Run(run.folder.parent / name).record for name in run.provenance.parents]


def seal(run: Run, name: str) -> None:
    """Make a changed file the run's own."""
    digests = json.loads((run.folder / COMPLETE).read_text())["files"]
    digests[name] = hashlib.sha256((run.folder / name).read_bytes()).hexdigest()
    write_json(run.folder / COMPLETE, {"version": VERSION, "files": digests})


def assert_same_results(run: Record, other: Record) -> None:
    """Assert that two finished runs agree in every bit but in their times."""
    untimed = [r.history.drop(columns="seconds") for r in (run, other)]
    assert untimed[0].equals(untimed[1])
    assert run.metrics == other.metrics
    for name, values in run.scores.items():
        np.testing.assert_array_equal(other.scores[name], values)
    weights = sorted(path.name for path in run.folder.glob("*.safetensors"))
    assert weights == sorted(path.name for path in other.folder.glob("*.safetensors"))
    for name in weights:
        pair = [load_file(r.folder / name) for r in (run, other)]
        torch.testing.assert_close(*pair, rtol=0, atol=0)


# Names


def test_a_branch_that_two_pairs_share_has_one_name():
    pairs = [["logmel", "cqt"], ["gammatone", "logmel"], ["logmel"], ["stft", "cqt", "logmel"]]
    names = {run_name(make_params({"representations": p}), branch="logmel") for p in pairs}
    assert len(names) == 1
    names = {run_name(make_params({"representations": p})) for p in pairs}
    assert len(names) == len(pairs)


@pytest.mark.parametrize("select", ["per_head", "last"])
def test_which_epoch_is_kept_names_a_branch_too(select):
    names = {run_name(make_params({"select": kept}), branch="logmel") for kept in ("joint", select)}
    assert len(names) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"kd_weight": 0.5},
        {"kd_loss": "kl"},
        {"temperature": 1.0},
        {"detach_teacher": False},
        {"teacher": "mean"},
        {"fused_weight": 0.0},
        {"views": "own"},
        {"ramp_epochs": 3},
        {"joint_epochs": 5},
        {"fusion": "conv"},
        {"tap": -2},
    ],
)
def test_settings_of_the_joint_phase_name_the_fusion_and_not_its_branches(change):
    params, changed = make_params({}), make_params(change)
    assert run_name(params, branch="logmel") == run_name(changed, branch="logmel")
    assert run_name(params) != run_name(changed)


@pytest.mark.parametrize(
    "change",
    [
        {"fold": 2},
        {"seed": 1},
        {"lr": 0.02},
        {"epochs": 5},
        {"width": 0.5},
        {"trunk": "squeezenet1_1"},
        {"n_mels": 64},
        {"clips_per_class": 5},
        {"data_seed": 1},
        {"validation": "none"},
        {"augmentation": "masks"},
        {"threads": 3},
        {"shortcuts": ["bfloat16"]},
        {"shortcuts": ["float16_store"]},
    ],
)
def test_what_decides_a_result_names_branch_and_fusion(change):
    params, changed = make_params({}), make_params(change)
    assert run_name(params, branch="logmel") != run_name(changed, branch="logmel")
    assert run_name(params) != run_name(changed)


@pytest.mark.parametrize(
    "change",
    [
        {"device": "cuda"},
        {"branch": "gammatone"},
        {"cqt_bins": 60},
        {"shortcuts": ["store_on_device"]},
    ],
)
def test_what_decides_nothing_changes_no_name(change):
    params, changed = make_params({}), make_params(change)
    assert run_name(params, branch="logmel") == run_name(changed, branch="logmel")
    assert run_name(params) == run_name(changed)


def test_where_the_clips_lie_and_what_another_dataset_has_change_no_name():
    names = {
        run_name(make_params({"dataset": "urbansound8k"} | change))
        for change in ({}, {"data_root": "elsewhere"}, {"clips_per_class": 7}, {"level": "fine"})
    }
    assert len(names) == 1


def test_a_setting_of_a_representation_names_the_runs_that_look_at_it():
    params, changed = make_params({}), make_params({"gammatone_bands": 64})
    assert run_name(params, branch="logmel") == run_name(changed, branch="logmel")
    assert run_name(params, branch="gammatone") != run_name(changed, branch="gammatone")
    assert run_name(params) != run_name(changed)


def test_a_name_tells_what_a_person_looks_for():
    name = run_name(make_params({"fold": 3, "seed": 7}))
    assert re.fullmatch(r"urban_synth-fold3-seed7-logmel\+gammatone-[0-9a-f]{8}", name)


def test_the_recorded_parameters_name_the_same_run(trained):
    assert run_name(trained.params) == trained.name
    for parent, branch in zip(parents(trained), PAIR, strict=True):
        assert run_name(parent.params, branch=branch) == parent.name


# Finished or not


def test_a_run_killed_in_every_phase_never_looks_finished_and_ends_where_a_whole_one_does(
    trained, tiny
):
    params = tiny(representations=PAIR)
    names = [parent.name for parent in parents(trained)] + [trained.name]
    for n_finished in range(3):
        with pytest.raises(PowerCutError):
            train_fusion(params, report=cut_after_one)
        cut = Run(Run.of(params).folder.parent / names[n_finished])
        assert (cut.folder / CHECKPOINT).exists()
        assert not cut.is_complete
        with pytest.raises(InputError, match="this run is not finished: start it again"):
            cut.record  # noqa: B018 -- to read it is the test
        found, faults = find_records(cut.folder.parent)
        assert [run.name for run in found] == sorted(names[:n_finished])
        assert faults == []
    run = train_fusion(params, report=cut_after_one)
    for resumed, whole in zip([*parents(run), run], [*parents(trained), trained], strict=True):
        assert resumed.name == whole.name
        assert_same_results(resumed, whole)
        assert not (resumed.folder / CHECKPOINT).exists()


def test_a_run_killed_while_it_writes_its_results_trains_nothing_again(trained, tiny, monkeypatch):
    params, write = tiny(representations=PAIR), runs.write_json

    def fail_at_last(path, value):
        if path.name == COMPLETE:
            raise PowerCutError
        write(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_json", fail_at_last)
        with pytest.raises(PowerCutError):
            train_branch(params, "logmel", report=silent)
    assert not Run.of(params, branch="logmel").is_complete
    run = train_branch(params, "logmel", report=never)
    assert_same_results(run, parents(trained)[0])


def test_a_finished_run_is_opened_and_not_trained_again(copied, tiny):
    before = {path: path.stat().st_mtime_ns for path in copied.folder.iterdir()}
    run = train_fusion(tiny(representations=PAIR), report=never)
    assert run.folder == copied.folder
    assert {path: path.stat().st_mtime_ns for path in copied.folder.iterdir()} == before


def test_a_fusion_takes_the_branches_that_are_there(copied, tiny):
    shutil.rmtree(copied.folder)
    trained_for = set()
    train_fusion(
        tiny(representations=PAIR, joint_epochs=1),
        report=lambda history, n_epochs: trained_for.update(history[-1]),
    )
    assert "ce_fused" in trained_for
    assert "ce_logmel" in trained_for  # as a part of the fused network
    assert len(list(copied.folder.parent.glob("*/complete.json"))) == 3


def test_a_run_that_is_asked_to_stop_does_so_after_its_epoch(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv(STOP_FILE, str(tmp_path / "stop"))
    (tmp_path / "stop").touch()
    params = tiny(representations=["logmel"])
    with pytest.raises(Stopped, match="stopped after epoch 1: start it again to go on"):
        train_branch(params, "logmel", report=silent)
    (tmp_path / "stop").unlink()
    epochs = []
    train_branch(params, "logmel", report=lambda history, n_epochs: epochs.append(len(history)))
    assert epochs == [2]


# Records


@pytest.mark.parametrize("name", [*FILES, "fused.safetensors", "logmel.safetensors"])
@pytest.mark.parametrize("change", ["changed", "gone"])
def test_a_file_that_is_not_as_it_was_is_refused(copied, name, change):
    path = copied.folder / name
    if change == "changed":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    with pytest.raises(InputError, match=rf"{name}: missing or changed since its run"):
        copied.record.weights(name.removesuffix(".safetensors"))


def test_a_checkpoint_goes_with_whoever_next_finds_its_run_finished(tmp_path, finished):
    for name, is_left in (("killed as it ended", False), ("killed before", True)):
        run = Run(tmp_path / name)
        shutil.copytree(finished.folder, run.folder)
        (run.folder / CHECKPOINT).write_text("left")
        if is_left:
            (run.folder / "complete.json").unlink()
        with run.held():
            assert (run.folder / CHECKPOINT).exists()
        assert (run.folder / CHECKPOINT).exists() == is_left


def test_complete_json_holds_the_version_and_the_sha256_of_every_file(trained):
    complete = json.loads((trained.folder / COMPLETE).read_text())
    assert complete["version"] == 1
    digests = complete["files"]
    assert set(digests) == {*FILES, *(f"{head}.safetensors" for head in (*PAIR, FUSED))}
    for name, digest in digests.items():
        assert hashlib.sha256((trained.folder / name).read_bytes()).hexdigest() == digest


# Where it came from


def test_a_run_tells_where_it_came_from(trained, tiny):
    told, prepared = trained.provenance, prepare(tiny(representations=PAIR))
    assert (told.kind, told.data_status) == ("fusion", "synthetic")
    sides = {name: len(getattr(prepared.split, name)) for name in ("train", "validation", "test")}
    assert {name: getattr(told, f"n_{name}") for name in sides} == sides == dict.fromkeys(sides, 30)
    assert told.classes == prepared.clips.classes
    where = trace(trained)
    assert (where["seed"], where["threads"], where["shortcuts"]) == (0, 1, [])
    for parent in parents(trained):
        complete = (parent.folder / COMPLETE).read_bytes()
        assert told.parents[parent.name] == hashlib.sha256(complete).hexdigest()
        assert (parent.provenance.kind, parent.provenance.parents) == ("branch", {})
        assert parent.provenance.data == told.data


def test_the_versions_are_those_of_the_packages_that_run():
    told = where_from()
    assert set(told["versions"]) >= {"torch", "torchvision", "numpy"}
    for name in set(told["versions"]) - {"torchvision"}:  # whose import needs help
        module = importlib.import_module(name)
        assert module.__version__.split("+")[0] == told["versions"][name].split("+")[0]
    assert re.fullmatch(r"[0-9a-f]{40}\+?|unknown", told["commit"])


def test_a_figure_is_traced_down_to_the_branches(trained):
    told = trace(trained)
    assert told["run"] == str(trained.folder)
    assert Path(told["parameters"]).exists()
    assert [parent["provenance"]["kind"] for parent in told["parents"]] == ["branch", "branch"]
    assert [Path(parent["run"]).name for parent in told["parents"]] == [
        parent.name for parent in parents(trained)
    ]
    assert json.loads(json.dumps(told)) == told


# Results


def test_the_metrics_are_those_of_the_recorded_scores(trained):
    targets = trained.test.targets
    for head in (*PAIR, FUSED):
        scores, metrics = trained.scores[head], trained.metrics[head]
        assert metrics["accuracy"] == accuracy_score(targets, scores.argmax(axis=1))
        recall = recall_score(targets, scores.argmax(axis=1), average=None, zero_division=0)
        assert metrics["per_class_recall"] == pytest.approx(recall)
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
        assert len(metrics["thresholds"]) == 10


def test_the_scores_are_of_the_official_test_clips(trained, tiny):
    prepared = prepare(tiny(representations=PAIR))
    of_fold = prepared.clips.table[prepared.clips.table["fold"] == 1]
    assert trained.test.clips.tolist() == of_fold["clip"].tolist()
    assert trained.test.groups.tolist() == of_fold["group"].tolist()
    np.testing.assert_array_equal(trained.test.targets, prepared.clips.targets[of_fold.index])


@pytest.mark.parametrize("select", ["joint", "per_head"])
def test_the_saved_weights_give_the_saved_scores(copied, tiny, select):
    params = tiny(representations=PAIR, select=select)
    run = train_fusion(params, report=silent)
    prepared = prepare(params)

    def scores_of(model) -> dict[str, np.ndarray]:
        logits = predict(model, prepared.data, prepared.split.test, recipe=recipe_of(params))
        return {name: probabilities(x, multi_label=False) for name, x in logits.items()}

    for source, names in [
        (run, PAIR),
        *((p, [b]) for p, b in zip(parents(run), PAIR, strict=True)),
    ]:
        for name in names:
            scores = scores_of(load_branch(source, name))
            np.testing.assert_array_equal(scores[name], source.scores[name])
    np.testing.assert_array_equal(scores_of(load_fusion(run))[FUSED], run.scores[FUSED])


def test_distillation_leaves_the_parents_alone_and_moves_the_students(trained):
    for parent, name in zip(parents(trained), PAIR, strict=True):
        before, after = parent.weights(name), trained.weights(name)
        assert before.keys() == after.keys()
        assert (before["stem.1.weight"] != after["stem.1.weight"]).any()


def test_the_normalisation_is_of_the_training_clips_alone(trained, tiny):
    prepared = prepare(tiny(representations=PAIR))
    for name in PAIR:
        stored = prepared.data.spectrograms[name].astype(np.float64)
        values = stored[prepared.split.train]
        weights = trained.weights(name)
        assert weights["normalise.mean"].item() == pytest.approx(values.mean(), rel=1e-6)
        assert weights["normalise.deviation"].item() == pytest.approx(values.std(), rel=1e-5)
        assert weights["normalise.mean"].item() != pytest.approx(stored.mean(), rel=1e-5)


def test_statistics_of_many_clips_are_those_of_all_at_once():
    generator = np.random.default_rng(0)
    spectrograms = generator.normal(-60, 15, size=(700, 4, 5)).astype(np.float32)
    rows = generator.permutation(700)[:600]
    normalise = training_statistics(spectrograms, rows)
    values = spectrograms[rows].astype(np.float64)
    assert normalise.mean.item() == pytest.approx(values.mean(), rel=1e-6)
    assert normalise.deviation.item() == pytest.approx(values.std(), rel=1e-5)
    silence = training_statistics(np.full((3, 4, 5), -100, np.float32), np.arange(3))
    assert silence.deviation.item() > 0  # nothing is divided by zero


def test_several_tags_are_trained_and_judged_by_their_own_metric(tiny):
    params = tiny(dataset="urban_synth_scenes", n_scenes=16, representations=["logmel"])
    run = train_branch(params, "logmel", report=silent)
    metrics, scores = run.metrics["logmel"], run.scores["logmel"]
    assert scores.shape == run.test.targets.shape == (16, 8)
    assert set(metrics) == {"micro_auprc", "macro_auprc", "per_class_auprc", "thresholds"}
    assert ((scores > 0) & (scores < 1)).all()
    assert scores.sum(axis=1) != pytest.approx(np.ones(16))  # tags, not classes


def test_without_validation_there_are_no_thresholds_and_the_last_epoch_is_kept(tiny):
    params = tiny(representations=["logmel"], validation="none")
    run = train_branch(params, "logmel", report=silent)
    assert "thresholds" not in run.metrics["logmel"]
    assert run.provenance.selected_epoch == {"joint": 2}
    assert (run.provenance.n_train, run.provenance.n_validation) == (60, 0)


# Refusals


def test_a_single_representation_cannot_be_fused(tiny):
    with pytest.raises(InputError, match=r"representations = \['cqt'\]: fusion needs two"):
        train_fusion(tiny(representations=["cqt"]))


def test_a_parent_of_other_clips_is_refused(copied, tiny):
    shutil.rmtree(copied.folder)
    parent = Run.of(tiny(representations=PAIR), branch="logmel")
    told = parent.record.provenance.model_dump(mode="json") | {"data": "0123456789abcdef"}
    write_json(parent.folder / "provenance.json", told)
    seal(parent, "provenance.json")
    with pytest.raises(InputError, match=rf"{parent.name}: this branch was trained on other clips"):
        train_fusion(tiny(representations=PAIR), report=silent)


def test_weights_of_another_network_are_refused(copied, tiny):
    parent = Run.of(tiny(representations=PAIR), branch="logmel")
    shutil.copy(copied.folder / "fused.safetensors", parent.folder / "logmel.safetensors")
    seal(parent, "logmel.safetensors")
    with pytest.raises(
        InputError, match=r"logmel\.safetensors: .* not the weights of this network \(\S+ differs"
    ):
        load_branch(parent.record)
