"""Spectrograms computed once, stored, and read back memory-mapped.

A store is a folder named after its content: the sounds (bytes of the files, or the recipe of the
synthesis) and the settings of the representation. It holds ``spectrograms.npy``, (clips, F, T) in
dB. A filling that was interrupted goes on where it stopped, and looks unfinished until it is done.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import nn
from tqdm import tqdm

from fusionkd_lib import representations
from fusionkd_lib.audio import fit_length
from fusionkd_lib.datasets import Clips
from fusionkd_lib.errors import InputError
from fusionkd_lib.params import Params

CLIPS_AT_ONCE = 32
SETTINGS = {
    "stft": ("n_fft",),
    "logmel": ("n_fft", "n_mels", "fmin", "fmax"),
    "cqt": ("cqt_bins", "bins_per_octave", "cqt_fmin"),
    "gammatone": ("n_fft", "gammatone_bands", "fmin", "fmax", "gammatone_method"),
}
COMMON_SETTINGS = ("sample_rate", "hop_length", "duration", "pad", "store_dtype")


def digest(value: object) -> str:
    """Return a short name, 16 hexadecimal digits, of plain data."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(clips: Clips, *, cache: Path) -> str:
    """Return a name of everything in a clip table: sounds, folds, recordings and targets.

    Parameters
    ----------
    cache
        File that keeps the digests of audio files with their size and time, so that each is read
        for this once.
    """
    table = clips.table.drop(columns="path").to_csv(index=False)
    targets = hashlib.sha256(np.ascontiguousarray(clips.targets).tobytes()).hexdigest()
    return digest([_sound_digests(clips, cache), table, targets])


def _sound_digests(clips: Clips, cache: Path) -> list[str]:
    if clips.recipe:
        return [clips.recipe, *clips.table["clip"]]
    known = _known_digests(cache)
    digests = []
    for path in clips.table["path"]:
        status = os.stat(path)
        stamp = [status.st_size, status.st_mtime_ns]
        if known.get(str(path), [None])[:2] != stamp:
            with open(path, "rb") as file:
                known[str(path)] = [*stamp, hashlib.file_digest(file, "sha256").hexdigest()]
        digests.append(known[str(path)][2])
    write_atomically(cache, json.dumps(known))
    return digests


def _known_digests(cache: Path) -> dict[str, list]:
    """Return what the cache holds; of a damaged one nothing, since it can be made anew."""
    try:
        return dict(json.loads(cache.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def write_atomically(path: Path, text: str) -> None:
    """Write a text file that is either the old one or the whole new one, whatever happens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def build_representations(params: Params) -> dict[str, nn.Module]:
    """Build the modules, waveform (B, N) -> (B, 1, F, T), of a run by name."""
    return {name: _build(name, params) for name in params.representations}


def _build(name: str, params: Params) -> nn.Module:
    settings = {key: getattr(params, key) for key in SETTINGS[name]}
    return representations.build(
        name, sample_rate=params.sample_rate, hop_length=params.hop_length, **settings
    )


def clip_shape(params: Params) -> tuple[int, int]:
    """Return how many samples a clip of a run has, and how many frames T its spectrograms."""
    n_samples = round(params.duration * params.sample_rate)
    return n_samples, 1 + n_samples // params.hop_length


def load_spectrograms(clips: Clips, params: Params, root: Path) -> dict[str, np.ndarray]:
    """Return the spectrograms of all clips, memory-mapped, computing those not stored yet.

    Parameters
    ----------
    root
        Folder of the stores.

    Returns
    -------
    dict
        Representation -> (clips, F, T) in dB, read only.
    """
    sounds = digest(_sound_digests(clips, root / "digests.json"))
    folders = {
        name: root / _store_name(name, clips, sounds, params) for name in params.representations
    }
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{sounds}.lock"):
        missing = [name for name, folder in folders.items() if not folder.is_dir()]
        if missing:
            _fill({name: folders[name] for name in missing}, clips, params)
    return {
        name: _open(folder / "spectrograms.npy", n_clips=len(clips))
        for name, folder in folders.items()
    }


def _store_name(name: str, clips: Clips, sounds: str, params: Params) -> str:
    keys = (*COMMON_SETTINGS, *SETTINGS[name])
    settings = {key: getattr(params, key) for key in keys}
    return f"{params.dataset}-{name}-{digest([sounds, settings])}"


def _open(path: Path, *, n_clips: int) -> np.ndarray:
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        if len(stored) != n_clips:
            raise ValueError(f"they are of {len(stored)} clips, not of {n_clips}")
        return stored
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: the stored spectrograms cannot be read ({error}): delete the folder, and the "
            "next run computes them again"
        ) from None


def forget_pages(stored: np.ndarray) -> None:
    """Let go of what was read of a memory-mapped store; the system keeps it while it has room.

    Else a store becomes resident in the process page by page, however large it is.
    """
    mapping = getattr(stored, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _fill(folders: Mapping[str, Path], clips: Clips, params: Params) -> None:
    modules = build_representations(params.replace(representations=tuple(folders), branch=None))
    _, n_frames = clip_shape(params)
    stores = {
        name: _Filling(folder, (len(clips), modules[name].n_bins, n_frames), params.store_dtype)
        for name, folder in folders.items()
    }
    todo = np.flatnonzero(~np.all([store.done for store in stores.values()], axis=0))
    chunks = [todo[i : i + CLIPS_AT_ONCE] for i in range(0, len(todo), CLIPS_AT_ONCE)]
    with ThreadPoolExecutor() as pool:
        for chunk in tqdm(chunks, desc="spectrograms", unit="chunk", disable=None):
            waveforms = list(pool.map(lambda i: clips.read(int(i), params.sample_rate), chunk))
            for name, values in compute(modules, waveforms, params).items():
                stores[name].write(chunk, values)
    for store in stores.values():
        store.finish()


def compute(
    modules: Mapping[str, nn.Module], waveforms: Sequence[np.ndarray], params: Params
) -> dict[str, np.ndarray]:
    """Return the spectrograms (B, F, T) in dB of B clips, each cut or padded as a run says.

    Parameters
    ----------
    modules
        From `build_representations`.
    waveforms
        B waveforms (N,), each of its own length.
    """
    n_samples, n_frames = clip_shape(params)
    with torch.inference_mode():
        if params.pad == "waveform":
            batch = np.stack([fit_length(waveform, n_samples) for waveform in waveforms])
            computed = representations.compute(modules, torch.from_numpy(batch))
            return {name: values[:, 0].numpy() for name, values in computed.items()}
        # The paper pads the spectrogram of a short clip, with zeros: each clip at its own length.
        clips = [
            representations.compute(modules, torch.from_numpy(waveform[None, :n_samples]))
            for waveform in waveforms
        ]
        return {
            name: np.stack([_pad_frames(clip[name][0, 0].numpy(), n_frames) for clip in clips])
            for name in modules
        }


def _pad_frames(spectrogram: np.ndarray, n_frames: int) -> np.ndarray:
    return np.pad(spectrogram, ((0, 0), (0, n_frames - spectrogram.shape[1])))


def _new_array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Make a mapped file whose space is set aside: on a full disk, writing to it would kill."""
    try:
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return array
    except OSError as error:
        path.unlink(missing_ok=True)
        mebibytes = np.prod(shape) * dtype.itemsize / 2**20
        raise InputError(
            f"{path}: no room for {mebibytes:,.1f} MiB of spectrograms ({error.strerror}): free "
            "space, or set FUSIONKD_OUTPUTS to a larger disk"
        ) from None


class _Filling:
    """A store that is being written; its folder gets its name when every clip is in it."""

    def __init__(self, folder: Path, shape: tuple[int, int, int], dtype: str) -> None:
        self.folder, self.partial = folder, folder.with_name(folder.name + ".partial")
        self.partial.mkdir(parents=True, exist_ok=True)
        self.spectrograms = self._array("spectrograms.npy", shape, np.dtype(dtype))
        self.done = self._array("done.npy", shape[:1], np.dtype(bool))

    def _array(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        path = self.partial / name
        try:
            # Reading refuses a cut file, where writing would fill it up with zeros.
            np.lib.format.open_memmap(path, mode="r")
            return np.lib.format.open_memmap(path, mode="r+")
        except (OSError, ValueError):  # not there yet, or killed while it was being made
            # What is made anew holds nothing yet.
            (self.partial / "done.npy").unlink(missing_ok=True)
            return _new_array(path, shape, dtype)

    def write(self, indices: np.ndarray, values: np.ndarray) -> None:
        self.spectrograms[indices] = values
        # On the disk before it counts as done: a power cut may write pages in any order.
        self.spectrograms.flush()
        self.done[indices] = True

    def finish(self) -> None:
        self.spectrograms.flush()
        (self.partial / "done.npy").unlink()
        os.replace(self.partial, self.folder)
