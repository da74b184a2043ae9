"""Hostile sounds: `load_mono` and `fusionkd tag` refuse them in one sentence, silence apart."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from hostile import FETCH, check, holding, refused, sentence_of, table, tone

from fusionkd_lib.audio import load_mono
from fusionkd_lib.cli import main

CONVERT = "convert it to WAV"
NAN, INF = float("nan"), float("inf")


def written(samples, rate: int = 8000, **options):
    return lambda path: soundfile.write(path, samples, rate, **options)


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


SOUNDS = {
    "a file that is not there": (lambda path: None, ("x.wav", "does not exist")),
    "a link to nothing": (lambda path: path.symlink_to("gone.wav"), ("x.wav", "does not exist")),
    "an empty file": (holding(b""), ("x.wav", "is empty", FETCH)),
    "a folder": (Path.mkdir, ("x.wav", "Is a directory")),
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


@table(SOUNDS)
def test_a_sound_that_cannot_be_used(tmp_path, finished, make, says):
    path = tmp_path / says[0]
    make(path)
    sentence = sentence_of(load_mono, path, sample_rate=8000)
    check(sentence, *says)
    assert refused("tag", finished.folder, path) == sentence


@pytest.mark.parametrize("shape", [4000, (4000, 2)], ids=["mono", "stereo"])
def test_silence_is_left_out_of_training_and_tagged_with_a_warning(tmp_path, finished, shape):
    path = tmp_path / "x.flac"
    written(np.zeros(shape))(path)
    check(sentence_of(load_mono, path, sample_rate=8000), "x.flac", "is silent", "leave it out")
    answer = CliRunner().invoke(main, ["tag", str(finished.folder), str(path)])
    assert answer.exit_code == 0
    assert "silent" in json.loads(answer.stdout)["warning"]


def test_a_sound_by_another_extension_is_read(tmp_path):
    soundfile.write(tmp_path / "x.wav", tone(), 8000, format="FLAC")
    assert load_mono(tmp_path / "x.wav", sample_rate=8000).shape == (4000,)
