"""Hostile settings and waveforms of representations, and their damaged stores."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import (
    Payload,
    assert_nothing_was_executed,
    check,
    holding,
    pickled,
    sentence_of,
    table,
    truncated,
)
from miniature import make_urbansound8k

from fusionkd_lib import features, representations
from fusionkd_lib.datasets import urban_synth, urbansound8k

# Settings and waveforms

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
    "a negative frequency": ({"name": "logmel", "fmin": -1.0}, ("fmin=-1", "0 <= fmin")),
    "an odd transform": ({"name": "stft", "n_fft": 1023}, ("n_fft=1023", "even")),
    "no hop": ({"name": "stft", "hop_length": 0}, ("hop_length=0", "whole number")),
    "an unknown name": (
        {"name": "mfcc"},
        ("'mfcc'", "one of 'stft', 'logmel', 'cqt', 'gammatone'"),
    ),
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


def fill(root: Path) -> np.ndarray:
    """Return the spectrograms of 30 synthetic clips from their store, which is filled first."""
    clips = urban_synth.clips(clips_per_class=1, n_folds=3, duration=0.25)
    clip_format = features.ClipFormat(sample_rate=8000, duration=0.25)
    settings = {"stft": {"n_fft": 64}}
    return features.load_spectrograms(clips, settings, clip_format, root=root)["stft"]


@table(STORES)
def test_a_store_that_cannot_be_used(tmp_path, make, says):
    fill(tmp_path)
    (path,) = tmp_path.rglob("spectrograms.npy")
    make(path)
    sentence = sentence_of(fill, tmp_path)
    check(sentence, "spectrograms.npy", *says)
    assert_nothing_was_executed(tmp_path)


@pytest.mark.parametrize("make", [Path.unlink, truncated, holding(b"")])
def test_a_filling_that_lost_its_spectrograms_begins_anew(tmp_path, make):
    before = fill(tmp_path).copy()
    (store,) = (path.parent for path in tmp_path.rglob("spectrograms.npy"))
    np.save(store / "done.npy", np.ones(len(before), dtype=bool))
    make(store / "spectrograms.npy")
    store.rename(f"{store}.partial")
    np.testing.assert_array_equal(fill(tmp_path), before)


def test_a_damaged_cache_of_digests_is_made_anew(tmp_path):
    root = make_urbansound8k(tmp_path / "UrbanSound8K")
    clips = urbansound8k.clips(root, allow_partial=True)
    name = features.fingerprint(clips, cache=tmp_path / "digests.json")
    for content in (b"", b"{", b"[]", b"\xff\xfe"):
        (tmp_path / "digests.json").write_bytes(content)
        assert features.fingerprint(clips, cache=tmp_path / "digests.json") == name
