"""Stores: what is read back is what a clip gives directly, and no clip is computed twice."""

import errno
import os
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import soundfile
import torch

from fusionkd_lib import batches
from fusionkd_lib.datasets import Clips
from fusionkd_lib.datasets.files import reader
from fusionkd_lib.errors import InputError
from fusionkd_lib.experiment import clip_format, representation_settings, representations_of
from fusionkd_lib.features import ClipFormat, fingerprint, load_spectrograms
from fusionkd_lib.params import Params

RATE = 8000
N_SAMPLES = 800
DECIBELS = 0.01  # near the floor of -100 dB, transforms of one clip and of a batch differ by 0.002
SHORT = {"dataset": "urbansound8k", "duration": 0.1}
CHANGES = {
    # name: what of it belongs to its content, and what does not
    "logmel": ({"n_mels": 20, "fmin": 50.0, "fmax": 3000.0, "n_fft": 512}, {"cqt_bins": 30}),
    "cqt": ({"cqt_bins": 30, "bins_per_octave": 24, "cqt_fmin": 65.4}, {"n_fft": 512}),
    "gammatone": ({"gammatone_bands": 20, "fmax": 3000.0, "n_fft": 512}, {"n_mels": 20}),
    "stft": ({"n_fft": 512}, {"fmax": 3000.0, "n_mels": 20}),
}
COMMON_CHANGES = {
    "sample_rate": 16000,
    "hop_length": 64,
    "duration": 0.2,
    "pad": "spectrogram",
    "shortcuts": ["float16_store"],
}


def load(clips: Clips, params: Params, root: Path) -> dict[str, np.ndarray]:
    """Return the spectrograms of a run."""
    return load_spectrograms(clips, representation_settings(params), clip_format(params), root=root)


class Recordings:
    """Noise of its own for each clip; which were read is on record, and reading may fail."""

    def __init__(self, lengths: list[int], *, recipe: str = "noise 1") -> None:
        self.lengths, self.recipe = lengths, recipe
        self.reads: list[int] = []
        self.unreadable: set[int] = set()

    def waveform(self, index: int) -> np.ndarray:
        noise = np.random.default_rng(index).standard_normal(self.lengths[index])
        return (0.1 * noise).astype(np.float32)

    def read(self, index: int, sample_rate: int) -> np.ndarray:
        if index in self.unreadable:
            raise RuntimeError("power cut")
        self.reads.append(index)
        return self.waveform(index)

    def clips(self) -> Clips:
        n = len(self.lengths)
        table = pd.DataFrame({"clip": [f"c{i}" for i in range(n)], "fold": 1, "group": "g"})
        targets = np.zeros(n, dtype=np.int64)
        return Clips(
            "noise",
            ("a",),
            table.assign(path=None),
            targets,
            "synthetic",
            self.read,
            recipe=self.recipe,
        )

    def read_by(self, params: Params, root: Path) -> list[int]:
        """Return the clips that are read when a run asks for its spectrograms."""
        self.reads.clear()
        load(self.clips(), params, root)
        return sorted(self.reads)


@pytest.fixture
def params(tiny) -> Params:
    return tiny(**SHORT, representations=["logmel", "cqt", "gammatone", "stft"])


@pytest.fixture
def recordings() -> Recordings:
    return Recordings([N_SAMPLES] * 70)


def directly(waveform: np.ndarray, params: Params) -> dict[str, np.ndarray]:
    """Return the spectrograms (F, T) of one clip, past every store."""
    modules = representations_of(params)
    with torch.inference_mode():
        return {n: m(torch.from_numpy(waveform)[None])[0, 0].numpy() for n, m in modules.items()}


def of_files(folder: Path, *, n: int = 3) -> Clips:
    paths = [folder / f"{i}.wav" for i in range(n)]
    folder.mkdir(parents=True)
    for i, path in enumerate(paths):
        noise = np.random.default_rng(i).standard_normal(N_SAMPLES)
        soundfile.write(path, 0.1 * noise, RATE)
    table = pd.DataFrame({"clip": [path.stem for path in paths], "fold": 1, "group": "g"})
    targets = np.arange(n)
    return Clips("files", ("a",), table.assign(path=paths), targets, "real", reader(paths))


def mute(clips: Clips) -> Clips:
    """Return the clips without any way to hear them."""

    def read(index: int, sample_rate: int) -> np.ndarray:
        raise AssertionError(f"clip {index} was read again")

    return replace(clips, read=read)


# What is stored


def test_a_store_holds_what_each_clip_gives_directly(recordings, params, tmp_path):
    stored = load(recordings.clips(), params, tmp_path)
    assert list(stored) == list(params.representations)
    for index in (0, 31, 32, 69):  # the ends of what is computed at once
        for name, expected in directly(recordings.waveform(index), params).items():
            np.testing.assert_allclose(stored[name][index], expected, atol=DECIBELS)
    n_frames = 1 + N_SAMPLES // params.hop_length
    shapes = {"logmel": (70, 32, n_frames), "cqt": (70, 48, n_frames)}
    shapes |= {"gammatone": (70, 24, n_frames), "stft": (70, 129, n_frames)}
    assert {name: x.shape for name, x in stored.items()} == shapes


def test_a_store_is_mapped_from_the_disk_and_cannot_be_changed(recordings, params, tmp_path):
    for stored in load(recordings.clips(), params, tmp_path).values():
        assert isinstance(stored, np.memmap)
        assert stored.dtype == np.float32
        with pytest.raises(ValueError, match="read-only"):
            stored[0] = 0


def test_a_half_precision_store_rounds_to_a_sixteenth_of_a_decibel(recordings, params, tmp_path):
    exact = load(recordings.clips(), params, tmp_path)
    half = load(recordings.clips(), params.replace(shortcuts=["float16_store"]), tmp_path)
    for name, x in half.items():
        assert x.dtype == np.float16
        # Ten bits of mantissa: below 128 dB steps of 1 / 16, so that errors are half of that.
        np.testing.assert_allclose(x.astype(np.float32), exact[name], atol=1 / 32, rtol=0)
        assert (x != exact[name]).any()


def test_a_store_needs_no_more_than_clips_settings_and_a_format(recordings, tmp_path):
    settings = {"logmel": {"n_fft": 256, "n_mels": 32}}
    clip_format = ClipFormat(sample_rate=RATE, duration=0.1, hop_length=128)
    stored = load_spectrograms(recordings.clips(), settings, clip_format, root=tmp_path)
    assert stored["logmel"].shape == (70, 32, 7)  # 1 + 800 // 128
    assert list(stored) == ["logmel"]


@pytest.mark.parametrize(
    ("sample_rate", "duration", "hop_length", "n_samples", "n_frames"),
    [(44100, 4.0, 512, 176400, 345), (8000, 0.1, 128, 800, 7), (8000, 0.1, 801, 800, 1)],
)
def test_a_format_counts_samples_and_frames(sample_rate, duration, hop_length, n_samples, n_frames):
    clip_format = ClipFormat(sample_rate, duration, hop_length)
    assert (clip_format.n_samples, clip_format.n_frames) == (n_samples, n_frames)


# Length


def test_a_short_clips_waveform_is_padded_with_silence(params, tmp_path):
    recordings = Recordings([300, N_SAMPLES])
    stored = load(recordings.clips(), params, tmp_path)
    silence = np.zeros(N_SAMPLES - 300, np.float32)
    padded = np.concatenate([recordings.waveform(0), silence])
    for name, expected in directly(padded, params).items():
        np.testing.assert_allclose(stored[name][0], expected, atol=DECIBELS)
    last = stored["logmel"][0][:, -1]
    np.testing.assert_allclose(last, -100, atol=DECIBELS)  # nothing sounds there


def test_a_short_clips_spectrogram_is_padded_with_zeros_where_that_is_asked_for(params, tmp_path):
    recordings = Recordings([300, N_SAMPLES])
    params = params.replace(pad="spectrogram")
    stored = load(recordings.clips(), params, tmp_path)
    n_own = 1 + 300 // params.hop_length
    for name, expected in directly(recordings.waveform(0), params).items():
        assert expected.shape[1] == n_own
        np.testing.assert_allclose(stored[name][0][:, :n_own], expected, atol=DECIBELS)
        assert (stored[name][0][:, n_own:] == 0).all()
        assert stored[name][0].shape[1] > n_own
    for name, expected in directly(recordings.waveform(1), params).items():
        np.testing.assert_allclose(stored[name][1], expected, atol=DECIBELS)


@pytest.mark.parametrize("pad", ["waveform", "spectrogram"])
def test_of_a_long_clip_the_beginning_counts(params, tmp_path, pad):
    recordings = Recordings([3 * N_SAMPLES])
    stored = load(recordings.clips(), params.replace(pad=pad), tmp_path)
    for name, expected in directly(recordings.waveform(0)[:N_SAMPLES], params).items():
        np.testing.assert_allclose(stored[name][0], expected, atol=DECIBELS)


# Once


def test_a_second_call_reads_no_audio(recordings, params, tmp_path):
    first = load(recordings.clips(), params, tmp_path)
    again = load(mute(recordings.clips()), params, tmp_path)
    for name, x in first.items():
        np.testing.assert_array_equal(again[name], x)


def test_another_representation_leaves_the_stores_of_the_others_alone(recordings, params, tmp_path):
    only = params.replace(representations=["logmel"])
    load(recordings.clips(), only, tmp_path)
    (store,) = tmp_path.glob("logmel-*/spectrograms.npy")
    written = store.stat().st_mtime_ns
    assert recordings.read_by(params, tmp_path) == list(range(70))
    assert store.stat().st_mtime_ns == written
    load(mute(recordings.clips()), only, tmp_path)


def test_an_interrupted_filling_goes_on_with_the_missing_clips_alone(recordings, params, tmp_path):
    recordings.unreadable = {40}
    with pytest.raises(RuntimeError, match="power cut"):
        load(recordings.clips(), params, tmp_path / "cut")
    begun = [path.parent.name for path in (tmp_path / "cut").glob("*/spectrograms.npy")]
    assert len(begun) == 4
    assert all(name.endswith(".partial") for name in begun)
    recordings.unreadable = set()
    assert recordings.read_by(params, tmp_path / "cut") == list(range(32, 70))
    mended = load(mute(recordings.clips()), params, tmp_path / "cut")
    whole = load(recordings.clips(), params, tmp_path / "whole")
    for name, x in whole.items():
        np.testing.assert_array_equal(mended[name], x)
    assert not list((tmp_path / "cut").glob("*.partial"))


def test_a_filling_that_was_cut_while_its_file_was_made_begins_anew(recordings, params, tmp_path):
    recordings.unreadable = {0}
    with pytest.raises(RuntimeError, match="power cut"):
        load(recordings.clips(), params, tmp_path)
    for path in tmp_path.glob("*.partial/*.npy"):
        path.write_bytes(path.read_bytes()[:7])
    recordings.unreadable = set()
    assert recordings.read_by(params, tmp_path) == list(range(70))
    stored = load(mute(recordings.clips()), params, tmp_path)
    for name, expected in directly(recordings.waveform(50), params).items():
        np.testing.assert_allclose(stored[name][50], expected, atol=DECIBELS)


def test_a_full_disk_is_told_before_anything_is_computed(recordings, params, tmp_path):
    # A file that may not grow is refused as one for which there is no room is.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(InputError, match=r"spectrograms\.npy: no room for .* free space"):
            load(recordings.clips(), params, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert recordings.reads == []
    assert recordings.read_by(params, tmp_path) == list(range(70))


def test_two_runs_at_once_fill_a_store_once(recordings, params, tmp_path):
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(load, recordings.clips(), params, tmp_path) for _ in range(2)]
        first, second = (call.result() for call in calls)
    assert sorted(recordings.reads) == list(range(70))
    for name, x in first.items():
        np.testing.assert_array_equal(second[name], x)


def test_a_damaged_store_is_refused_with_the_way_out(recordings, params, tmp_path):
    load(recordings.clips(), params, tmp_path)
    (store,) = tmp_path.glob("cqt-*/spectrograms.npy")
    store.write_bytes(store.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cqt-.*cannot be read .* delete the folder"):
        load(recordings.clips(), params, tmp_path)


def test_a_store_of_other_clips_is_refused(recordings, params, tmp_path):
    load(recordings.clips(), params, tmp_path)
    (store,) = tmp_path.glob("cqt-*/spectrograms.npy")
    np.save(store, np.zeros((69, 48, 7), np.float32))
    with pytest.raises(InputError, match="they are of 69 clips, not of 70"):
        load(recordings.clips(), params, tmp_path)


@pytest.mark.parametrize("passing", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES])
def test_a_fault_that_passes_does_not_advise_to_delete_a_good_store(
    recordings, params, tmp_path, monkeypatch, passing
):
    load(recordings.clips(), params, tmp_path)

    def fail(*_, **__):
        raise OSError(passing, os.strerror(passing))

    monkeypatch.setattr(np, "load", fail)
    with pytest.raises(OSError, match=os.strerror(passing)) as caught:
        load(recordings.clips(), params, tmp_path)
    assert "delete" not in str(caught.value)


# What decides a store's name


@pytest.mark.parametrize(
    ("name", "change"),
    [(name, {key: value}) for name, (own, _) in CHANGES.items() for key, value in own.items()]
    + [("logmel", {key: value}) for key, value in COMMON_CHANGES.items()],
)
def test_a_setting_of_the_representation_makes_another_store(tiny, tmp_path, name, change):
    recordings, params = Recordings([N_SAMPLES]), tiny(**SHORT, representations=[name])
    load(recordings.clips(), params, tmp_path)
    assert recordings.read_by(params.replace(**change), tmp_path) == [0]


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_not_of_the_representation_leaves_its_store_alone(tiny, tmp_path, name):
    clips, params = Recordings([N_SAMPLES]).clips(), tiny(**SHORT, representations=[name])
    load(clips, params, tmp_path)
    others = CHANGES[name][1] | {"seed": 3, "fold": 2, "lr": 0.5, "validation": "none"}
    others |= {"shortcuts": ["bfloat16", "channels_last", "fused_optimizer"]}
    load(mute(clips), params.replace(**others), tmp_path)


def test_another_recipe_makes_another_store(params, tmp_path):
    load(Recordings([N_SAMPLES]).clips(), params, tmp_path)
    assert Recordings([N_SAMPLES], recipe="noise 2").read_by(params, tmp_path) == [0]


def test_the_bytes_of_the_files_decide_and_not_where_they_lie(params, tmp_path):
    clips = of_files(tmp_path / "clips")
    first = load(clips, params, tmp_path / "stores")
    elsewhere = of_files(tmp_path / "elsewhere" / "audio")
    again = load(mute(elsewhere), params, tmp_path / "stores")
    np.testing.assert_array_equal(again["logmel"], first["logmel"])


def test_a_file_that_changed_in_its_place_is_heard_anew(params, tmp_path):
    clips = of_files(tmp_path / "clips")
    before = load(clips, params, tmp_path / "stores")["logmel"]
    shutil.copyfile(clips.table["path"][0], clips.table["path"][1])  # of the same size
    os.utime(clips.table["path"][1], ns=(0, 0))
    after = load(clips, params, tmp_path / "stores")["logmel"]
    np.testing.assert_array_equal(after[1], before[0])
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])


# The data's fingerprint


def test_the_fingerprint_is_of_sounds_folds_recordings_and_targets(tmp_path):
    cache = tmp_path / "digests.json"
    clips = of_files(tmp_path / "clips")
    expected = fingerprint(clips, cache=cache)
    assert fingerprint(of_files(tmp_path / "elsewhere"), cache=cache) == expected
    others = [
        replace(clips, targets=clips.targets[::-1]),
        replace(clips, table=clips.table.assign(fold=2)),
        replace(clips, table=clips.table.assign(group="h")),
        replace(clips, table=clips.table.iloc[::-1]),
    ]
    shutil.copyfile(clips.table["path"][0], clips.table["path"][1])
    os.utime(clips.table["path"][1], ns=(0, 0))
    others.append(clips)
    names = [fingerprint(other, cache=cache) for other in others]
    assert len({expected, *names}) == 6


def test_reading_a_whole_store_leaves_it_on_the_disk(tmp_path, monkeypatch):
    stored = np.lib.format.open_memmap(
        tmp_path / "spectrograms.npy", mode="w+", dtype=np.float32, shape=(500, 128, 256)
    )
    stored[:] = 1.0
    del stored  # 64 MB
    data = batches.Data(
        {"logmel": np.load(tmp_path / "spectrograms.npy", mmap_mode="r")}, np.zeros(500, int), 10
    )

    def growth() -> float:
        before = psutil.Process().memory_info().rss
        for rows in batches.batches(np.random.default_rng(0).permutation(500), 32):
            data.batch(rows)
        return (psutil.Process().memory_info().rss - before) / 1e6

    bounded = growth()
    monkeypatch.setattr(batches, "forget_pages", lambda stored: None)
    assert bounded < 20 < 40 < growth()
