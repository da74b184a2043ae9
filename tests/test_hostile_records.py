"""Hostile checkpoints and records of runs: nothing of them is executed, none is taken for whole."""

import json
import shutil
from pathlib import Path

import numpy as np
import soundfile
import torch
from hostile import (
    Payload,
    assert_nothing_was_executed,
    check,
    holding,
    pickled,
    refused,
    saved,
    sentence_of,
    table,
    text,
    tone,
    truncated,
)
from safetensors.torch import save_file

from fusionkd_lib.runs import Run
from fusionkd_lib.storage import file_digest, write_json
from fusionkd_lib.tagging import load_tagger
from fusionkd_lib.training import load_checkpoint

# Checkpoints


def network() -> torch.nn.Module:
    return torch.nn.Linear(2, 3)


CHECKPOINTS = {
    "an empty file": (holding(b""), ("EOFError",)),
    "bytes": (holding(np.random.default_rng(5).bytes(500)), ("this checkpoint cannot be read",)),
    "a cut file": (
        lambda path: (saved(lambda _: {"model": network().state_dict()})(path), truncated(path)),
        ("this checkpoint cannot be read",),
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


def copied(run: Run, root: Path) -> Run:
    shutil.copytree(run.folder.parent, root)
    return Run(root / run.name)


def seal(folder: Path) -> None:
    """Make every file, whatever became of it, the run's own."""
    complete = json.loads((folder / "complete.json").read_text())
    files = {name: file_digest(folder / name) for name in complete["files"]}
    write_json(folder / "complete.json", complete | {"files": files})


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
        ("complete.json", "cannot be read", DELETE),
    ),
    "a seal that is a list": (
        record("complete.json", holding(b"[1]")),
        ("complete.json", "cannot be read", DELETE),
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
    "changed metrics": (
        record("metrics.json", text(lambda t: t.replace("0.5", "0.9"))),
        ("metrics.json", "changed", DELETE),
    ),
    "metrics that are no JSON": (
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
        ("logmel.safetensors", "not the weights of this network", "differs", "use the run"),
    ),
}


@table(RUNS)
def test_a_run_that_cannot_tag(tmp_path, finished, make, says):
    folder = make(copied(finished, tmp_path / "runs").folder)
    sentence = sentence_of(load_tagger, folder)
    check(sentence, *says)
    soundfile.write(tmp_path / "x.wav", tone(), 8000)
    assert refused("tag", folder, tmp_path / "x.wav") == sentence
    assert_nothing_was_executed(tmp_path)
