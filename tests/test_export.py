"""Export: one ONNX file gives the scores of its run, here and without this project."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from click.testing import CliRunner
from handmade import write_run
from hostile import check, refused, sentence_of
from torch import nn
from torch.nn import functional as F

from fusionkd_lib import features, representations
from fusionkd_lib.catalogue import TRUNKS
from fusionkd_lib.cli import main
from fusionkd_lib.datasets import urban_synth
from fusionkd_lib.experiment import build_branch, build_fusion, representations_of
from fusionkd_lib.export.frontend import FrontEnd
from fusionkd_lib.export.onnx_file import export
from fusionkd_lib.exported import Told, open_exported
from fusionkd_lib.features import ClipFormat
from fusionkd_lib.models import Normalise
from fusionkd_lib.params import Params, make_params
from fusionkd_lib.speed.fast_layers import use_fast_layers
from fusionkd_lib.tagging import Tagger, load_tagger, tag_file

RATE, WINDOW = 8000, 4000
SMALL = {
    "dataset": "urban_synth",
    "sample_rate": RATE,
    "duration": WINDOW / RATE,
    "n_fft": 256,
    "hop_length": 128,
    "n_mels": 96,  # three rows of a feature map; gammatone has two
    "gammatone_bands": 64,
    "width": 0.25,
    "head": [16, 8],
    "epochs": 2,
}
CLASSES = tuple("abcde")
TOLD = Told(
    run="a-run",
    digest="0" * 64,
    commit="unknown",
    head="logmel",
    labels=CLASSES,
    thresholds=(0.5,) * len(CLASSES),
    multi_label=True,
    sample_rate=RATE,
    window_seconds=WINDOW / RATE,
    dataset="urban synth",
    data_status="synthetic",
    data_note="5 clips.",
    licence="MIT",
    metric="micro_auprc",
    score=0.5,
)


def sounds(n: int, seconds: float = WINDOW / RATE) -> np.ndarray:
    """Return made sounds (n, N) of several classes, from loud to as soft as recordings are."""
    clips = urban_synth.clips(clips_per_class=3, n_folds=3, duration=seconds)
    rows = np.linspace(0, len(clips) - 1, n).astype(int)
    size = round(seconds * RATE)
    return np.stack([np.resize(clips.read(int(row), RATE), size) for row in rows]).astype("float32")


@torch.no_grad()
def settled(tagger: Tagger, seed: int = 0) -> Tagger:
    """Give an untrained network statistics and biases of which none is neutral.

    The statistics are those of sounds, or a signal would not survive the layers, and all clips
    would have one score, which any file could give.
    """
    torch.manual_seed(seed)
    network = tagger.network
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
            module.weight.uniform_(0.7, 1.3)
            module.bias.uniform_(-0.2, 0.2)
    spectrograms = features.compute(tagger.representations, sounds(16), tagger.clip_format)
    network.train()({name: torch.from_numpy(x[:, None]) for name, x in spectrograms.items()})
    network.eval()
    return tagger


def tagger_of(*names: str, multi_label: bool = True, **changes) -> Tagger:
    """Return an untrained tagger: of one name a branch, of two the fused classifier."""
    params = make_params(SMALL | {"representations": list(names)} | changes)
    normalise = Normalise(-50.0, 20.0)
    branches = [build_branch(params, name, len(CLASSES), normalise) for name in names]
    network = branches[0] if len(names) == 1 else build_fusion(params, branches, len(CLASSES))
    told = TOLD.model_copy(update={"multi_label": multi_label, "head": names[0]})
    clip_format = ClipFormat(RATE, WINDOW / RATE, params.hop_length, params.pad)
    return settled(Tagger(told, clip_format, network, representations_of(params), None))


def written(tagger: Tagger, path: Path):
    export(tagger, path)
    return open_exported(path)


def assert_same(tagger: Tagger, exported, waveforms: np.ndarray) -> None:
    expected = tagger.scores(list(waveforms))
    assert expected.std(axis=0).max() > 0.02  # else any clip would do
    np.testing.assert_allclose(exported.scores(waveforms), expected, rtol=0, atol=1e-4)


# Scores


@pytest.mark.parametrize("name", ["stft", "logmel", "gammatone"])
@pytest.mark.parametrize("pad", ["waveform", "spectrogram"])
def test_every_representation_gives_the_scores_of_pytorch(tmp_path, name, pad):
    tagger = tagger_of(name, pad=pad)
    exported = written(tagger, tmp_path / "a.onnx")
    assert_same(tagger, exported, sounds(6))
    assert_same(tagger, exported, sounds(6, 0.2))  # padded as the run pads


@pytest.mark.parametrize("trunk", TRUNKS)
def test_every_trunk_gives_the_scores_of_pytorch_for_any_batch(tmp_path, trunk):
    width = (TRUNKS[trunk].widths or (0.25,))[0]
    tagger = tagger_of("logmel", trunk=trunk, width=width, multi_label=False)
    exported = written(tagger, tmp_path / "a.onnx")
    for n in (1, 5):
        assert_same(tagger, exported, np.tile(sounds(5), (2, 1))[: 2 * n])


@pytest.mark.parametrize("fusion", ["gap", "conv"])
@pytest.mark.parametrize("trunk", ["mobilenet_v2", "shufflenet_v2"])
def test_the_fused_network_gives_the_scores_of_pytorch(tmp_path, fusion, trunk):
    tagger = tagger_of("logmel", "gammatone", fusion=fusion, trunk=trunk, width=0.5)
    assert_same(tagger, written(tagger, tmp_path / "a.onnx"), sounds(6))
