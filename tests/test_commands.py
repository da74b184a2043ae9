"""The commands `table` and `trace` over damaged runs, `score`, `data`, and all parameter files."""

import hashlib
import http.server
import json
import shutil
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from handmade import write_pair
from miniature import COARSE_TAGS, FINE_TAGS, make_sonyc_ust, make_urbansound8k

from fusionkd_lib.cli import main
from fusionkd_lib.datasets import urbansound8k
from fusionkd_lib.engine.graph import plan
from fusionkd_lib.params import load_params, make_params

PREDICTIONS = ("volunteer_vote_mean", "constant_half", "uniform_noise", "noisy_truth")
# Where the challenge's unstable sort orders tied recalls at random.
TOLERANCE = {"uniform_noise": 1e-4, "noisy_truth": 1e-4}
PARAMS = Path(__file__).parents[1] / "params"
PAIRS = [("logmel", "gammatone"), ("logmel", "cqt"), ("gammatone", "cqt")]


def fusionkd(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# Tables over damaged runs


@pytest.fixture
def runs(tmp_path) -> Path:
    """Return a folder of two pairs that share a branch, of which the second is damaged."""
    for pair in PAIRS[:2]:
        scores = np.eye(10)[np.arange(8) % 2]
        alone, together = dict.fromkeys(pair, scores), dict.fromkeys([*pair, "fused"], scores)
        params = make_params({"representations": pair, "epochs": 1})
        *_, last = write_pair(tmp_path, params, {"alone": alone, "together": together})
    (last.folder / "scores.npz").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    "arguments", [["table"], ["table", "--json"], ["trace", "Table I", "Log-mel (KD)"]]
)
def test_a_damaged_run_is_told_the_others_are_shown_and_the_status_is_1(runs, arguments):
    answer = fusionkd(*arguments, "--runs", runs)
    assert answer.exit_code == 1
    (line,) = answer.stderr.splitlines()
    assert line.startswith(f"Error: {runs}/urban_synth-fold1-seed0-logmel+cqt-")
    assert line.endswith(
        "scores.npz: missing or changed since its run: delete the run's folder, "
        "and it is done again"
    )
    assert "logmel + gammatone" in answer.stdout
    assert "Table II" not in answer.stdout
    command = "import sys; from fusionkd_lib.cli import main; main(sys.argv[1:])"
    process = subprocess.run(
        [sys.executable, "-c", command, *arguments, "--runs", runs], capture_output=True, text=True
    )
    assert (process.returncode, process.stdout) == (1, answer.stdout)
    for path in runs.glob("*-logmel+cqt-*"):
        shutil.rmtree(path)
    whole = fusionkd(*arguments, "--runs", runs)
    assert (whole.exit_code, whole.stderr, whole.stdout) == (0, "", answer.stdout)


# Scores


def scored(predictions: Path, labels: Path, level: str, *more: str):
    return fusionkd(
        *("score", "sonyc-ust", "--predictions", predictions),
        *("--annotations", labels / "annotations.csv"),
        *("--taxonomy", labels / "dcase-ust-taxonomy.yaml"),
        *("--level", level, *more),
    )


@pytest.mark.parametrize("level", ["coarse", "fine"])
@pytest.mark.parametrize("name", PREDICTIONS)
def test_scores_are_those_of_the_challenges_own_code(dcase, name, level):
    answer = scored(dcase / f"{name}.csv", dcase, level, "--json")
    assert answer.exit_code == 0, answer.output
    figures = json.loads(answer.stdout)
    expected = json.loads((dcase / "expected.json").read_text())[name][level]
    tolerance = TOLERANCE.get(name, 1e-6)
    assert figures["micro_auprc"] == pytest.approx(expected["micro_auprc"], abs=tolerance)
    assert figures["macro_auprc"] == pytest.approx(expected["macro_auprc"], abs=tolerance)
    by_number = {tag.split("_")[0]: value for tag, value in figures["per_category"].items()}
    assert by_number == pytest.approx(expected["per_coarse_category"], abs=tolerance)


@pytest.fixture
def perfect(tmp_path):
    """Return the labels of a miniature, and predictions that are its truth, tag by tag."""
    labels = make_sonyc_ust(tmp_path / "labels", audio=False)
    truth = {
        "00_000001.wav": [1, 0, 0, 0, 0, 1, 1, 1, 1],
        "03_000001.wav": [0, 0, 0, 0, 1, 0, 0, 1, 0],
    }
    rows = [",".join(["audio_filename", *FINE_TAGS, *COARSE_TAGS])]
    rows += [",".join([name, *map(str, values)]) for name, values in truth.items()]
    (tmp_path / "perfect.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "perfect.csv", labels


def test_perfect_predictions_score_one_in_words(perfect):
    answer = scored(*perfect, "coarse")
    assert answer.exit_code == 0, answer.output
    names = ["micro AUPRC", "macro AUPRC", *COARSE_TAGS]
    assert answer.stdout.splitlines() == [f"1.0000  {name}" for name in names]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["score"], "Usage: "),
        (["score", "urbansound8k"], "No such command 'urbansound8k'"),
        (["score", "sonyc-ust"], "Missing option '--predictions'"),
        (["data", "fetch", "urbansound8k"], "give --root, or set FUSIONKD_DATA"),
        (["data", "check", "esc50", "--root", "."], "'esc50' is not one of 'urbansound8k', "),
        (["data", "fetch"], "Missing argument 'NAME'"),
    ],
)
def test_wrong_usage_is_told_with_exit_status_2(arguments, said):
    answer = fusionkd(*arguments)
    assert answer.exit_code == 2
    assert said in answer.stderr


def test_a_level_that_is_none_is_told(perfect):
    answer = scored(*perfect, "middle")
    assert answer.exit_code == 2
    assert "'middle' is not one of 'coarse', 'fine'" in answer.stderr


# Data


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Serve a miniature UrbanSound8K as its public record, on this machine."""
    files = tmp_path / "record" / "files"
    files.mkdir(parents=True)
    make_urbansound8k(tmp_path / "made")
    with tarfile.open(files / "UrbanSound8K.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "made", "UrbanSound8K")
    checksum = hashlib.md5((files / "UrbanSound8K.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setattr(urbansound8k, "ARCHIVES", {"UrbanSound8K.tar.gz": f"md5:{checksum}"})
    handler = partial(Silent, directory=str(tmp_path / "record"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setattr(urbansound8k, "SOURCE", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield checksum
        server.shutdown()
        thread.join()


def test_a_fetch_tells_licence_and_citation_before_it_and_checksums_after(record, tmp_path):
    answer = fusionkd("data", "fetch", "urbansound8k", "--root", tmp_path / "data")
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert lines[0] == f"UrbanSound8K, {urbansound8k.SOURCE}"
    assert lines[1] == "Licence: CC BY-NC 3.0"
    assert lines[2].startswith("Please cite: J. Salamon")
    assert lines[3] == f"{tmp_path / 'data' / 'UrbanSound8K.tar.gz'}  md5:{record}"
    assert lines[4].endswith(f"fusionkd data check urbansound8k --root {tmp_path / 'data'}")
    assert "100%" in answer.stderr  # the bar
    answer = fusionkd("data", "check", "urbansound8k", "--root", tmp_path / "data")
    assert answer.exit_code == 0


def test_licence_and_citation_are_told_though_the_record_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setattr(urbansound8k, "SOURCE", "http://127.0.0.1:9")
    answer = fusionkd("data", "fetch", "urbansound8k", "--root", tmp_path / "data")
    assert answer.exit_code == 1
    assert "Licence: CC BY-NC 3.0" in answer.stdout
    assert "UrbanSound8K.tar.gz: cannot be reached: check the network" in answer.stderr


@pytest.mark.parametrize("name", ["sonyc-ust", "sonyc_ust", "SONYC-UST"])
def test_a_whole_copy_checks_with_exit_status_0(tmp_path, name):
    root = make_sonyc_ust(tmp_path / "data")
    answer = fusionkd("data", "check", name, "--root", root)
    assert answer.exit_code == 0
    assert answer.stdout == f"SONYC-UST in {root}: 4 clips\n  train 2, validate 2\n"


def test_without_a_root_the_folder_of_all_datasets_is_looked_into(tmp_path, monkeypatch):
    root = make_sonyc_ust(tmp_path / "SONYC-UST")
    monkeypatch.setenv("FUSIONKD_DATA", str(tmp_path))
    answer = fusionkd("data", "check", "sonyc_ust")
    assert answer.exit_code == 0
    assert answer.stdout.startswith(f"SONYC-UST in {root}: 4 clips")


@pytest.mark.parametrize("fault", ["missing", "broken"])
def test_a_missing_or_broken_clip_gives_exit_status_1(tmp_path, fault):
    root = make_sonyc_ust(tmp_path / "data")
    clip = root / "audio" / "train" / "01_000001.wav"
    clip.unlink() if fault == "missing" else clip.write_text("no sound")
    answer = fusionkd("data", "check", "sonyc-ust", "--root", root)
    assert answer.exit_code == 1
    assert f"1 {fault}, the first audio/train/01_000001.wav" in answer.stdout
    answer = fusionkd("data", "check", "sonyc-ust", "--root", root, "--json")
    assert answer.exit_code == 1
    report = json.loads(answer.stdout)
    assert not report["whole"]
    assert len(report[fault]) == 1


def test_a_folder_that_is_not_the_dataset_is_told(tmp_path):
    answer = fusionkd("data", "check", "urbansound8k", "--root", tmp_path)
    assert answer.exit_code == 1
    assert "UrbanSound8K.csv: does not exist" in answer.stderr
    assert answer.stderr.count("\n") == 1


# Parameter files


def kinds(runs) -> Counter:
    return Counter(node.kind for node in plan(runs).values())


def test_the_papers_files_plan_three_pairs_of_three_branches_on_every_fold():
    runs = load_params(PARAMS / "paper" / "urbansound8k.yaml")
    assert Counter(params.fold for params in runs) == dict.fromkeys(range(1, 11), 3)
    assert {params.representations for params in runs} == set(PAIRS)
    assert kinds(runs) == {"store": 1, "branch": 30, "fusion": 30, "baselines": 30}
    runs = load_params(PARAMS / "paper" / "sonyc_ust.yaml")
    assert kinds(runs) == {"store": 1, "branch": 3, "fusion": 3, "baselines": 3}


@pytest.mark.parametrize("name", ["urbansound8k", "sonyc_ust"])
def test_the_papers_files_have_the_papers_settings(name):
    for params in load_params(PARAMS / "paper" / f"{name}.yaml"):
        # Sections IV-A to IV-D, and our batch size.
        assert params.duration == {"urbansound8k": 4.0, "sonyc_ust": 10.0}[name]
        assert (params.sample_rate, params.n_fft, params.hop_length) == (44100, 1024, 512)
        assert (params.n_mels, params.gammatone_bands) == (128, 128)
        assert (params.trunk, params.width, params.head) == ("mobilenet_v2", 1.0, (1280, 512))
        assert (params.epochs, params.joint_epochs, params.batch_size) == (100, 100, 64)
        assert (params.lr, params.lr_factor, params.patience) == (0.01, 0.1, 5)
        assert (params.kd_weight, params.kd_loss, params.weight_decay) == (0.01, "mse", 0)


@pytest.mark.parametrize("kind", ["", "scenes_"])
def test_the_quick_files_cover_the_three_pairs(kind):
    files = [PARAMS / "quick" / f"{kind}{'_'.join(pair)}.yaml" for pair in PAIRS]
    runs = [params for path in files for params in load_params(path)]
    assert [params.representations for params in runs] == PAIRS
    assert kinds(runs) == {"store": 1, "branch": 3, "fusion": 3, "baselines": 3}
