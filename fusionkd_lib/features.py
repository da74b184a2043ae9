"""Spectrograms computed once, stored, and read back memory-mapped.

A store is a folder named after its content: the sounds (bytes of the files, or the recipe of the
synthesis) and the settings of the representation. It holds ``spectrograms.npy``, (clips, F, T) in
dB. An interrupted filling goes on where it stopped, and looks unfinished until it is done.
"""

import errno
import hashlib
import json
import mmap
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from fusionkd_lib import representations
from fusionkd_lib.audio import fit_length
from fusionkd_lib.datasets import Clips
from fusionkd_lib.errors import InputError
from fusionkd_lib.reading import parse_json, read_bytes
from fusionkd_lib.storage import digest, file_digest, write_text

CLIPS_AT_ONCE = 32
# Faults that pass, or that rights mend: the store itself is good.
PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES)

# Representation -> its settings, as `representations.build` takes them.
Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class ClipFormat:
    """What every clip of a run is brought to, and what all its representations share.

    Parameters
    ----------
    sample_rate, duration
        In Hz and in seconds.
    hop_length
        Samples from one frame to the next.
    pad
        What of a short clip is padded: ``"waveform"``, or ``"spectrogram"`` with zeros in dB.
    store_dtype
        ``"float32"`` or ``"float16"``.

    Examples
    --------
    >>> clip_format = ClipFormat(sample_rate=22050, duration=4.0)
    >>> clip_format.n_samples, clip_format.n_frames
    (88200, 173)
    """

    sample_rate: int
    duration: float
    hop_length: int = 512
    pad: str = "waveform"
    store_dtype: str = "float32"

    @property
    def n_samples(self) -> int:
        """Samples of a clip."""
        return round(self.duration * self.sample_rate)

    @property
    def n_frames(self) -> int:
        """Frames T of a spectrogram."""
        return 1 + self.n_samples // self.hop_length


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
    known, digests = {}, []
    with suppress(ValueError, TypeError, RecursionError):  # a damaged cache is made again
        known |= parse_json(read_bytes(cache, remedy=""))
    for path in clips.table["path"]:
        status = os.stat(path)
        stamp = f"{path} {status.st_size} {status.st_mtime_ns}"
        if stamp not in known:
            known[stamp] = file_digest(path)
        digests.append(known[stamp])
    write_text(cache, json.dumps(known))
    return digests


def build_representations(settings: Settings, clip_format: ClipFormat) -> dict[str, nn.Module]:
    """Build the modules, waveform (B, N) -> (B, 1, F, T), by name."""
    timing = {"sample_rate": clip_format.sample_rate, "hop_length": clip_format.hop_length}
    return {name: representations.build(name, **timing, **own) for name, own in settings.items()}


def load_spectrograms(
    clips: Clips, settings: Settings, clip_format: ClipFormat, *, root: Path
) -> dict[str, np.ndarray]:
    """Return the spectrograms of all clips, memory-mapped, computing those not stored yet.

    Parameters
    ----------
    settings
        Representation -> its settings.
    root
        Folder of the stores.

    Returns
    -------
    dict
        Representation -> (clips, F, T) in dB, read only.

    Raises
    ------
    InputError
        Where a sound or a store cannot be read, or the disk has no room.
    """
    sounds = digest(_sound_digests(clips, root / "digests.json"))
    folders = {
        name: root / f"{name}-{digest([sounds, asdict(clip_format), dict(own)])}"
        for name, own in settings.items()
    }
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{sounds}.lock"):
        missing = {name: settings[name] for name in settings if not folders[name].is_dir()}
        if missing:
            _fill(folders, clips, missing, clip_format)
    return {name: _open(folder, len(clips)) for name, folder in folders.items()}


def _open(folder: Path, n_clips: int) -> np.ndarray:
    path = folder / "spectrograms.npy"
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        if len(stored) != n_clips:
            raise ValueError(f"they are of {len(stored)} clips, not of {n_clips}")
        return stored
    except (OSError, ValueError, EOFError) as error:
        if getattr(error, "errno", None) in PASSING:
            raise
        way_out = "delete the folder, and the next run computes them again"
        fault = f"the stored spectrograms cannot be read ({error})"
        raise InputError(f"{path}: {fault}: {way_out}") from None


def forget_pages(stored: np.ndarray) -> None:
    """Let go of what was read of a memory-mapped store; the system keeps it while it has room.

    Else a store becomes resident in the process page by page, however large it is.
    """
    mapping = getattr(stored, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _fill(
    folders: Mapping[str, Path], clips: Clips, settings: Settings, clip_format: ClipFormat
) -> None:
    modules = build_representations(settings, clip_format)
    partials = {name: folders[name].with_name(f"{folders[name].name}.partial") for name in modules}
    stores = {}
    for name, module in modules.items():
        shape = (len(clips), module.n_bins, clip_format.n_frames)
        stores[name] = _begun(partials[name], shape, clip_format.store_dtype)
    todo = np.flatnonzero(~np.all([done for _, done in stores.values()], axis=0))
    chunks = [todo[i : i + CLIPS_AT_ONCE] for i in range(0, len(todo), CLIPS_AT_ONCE)]
    with ThreadPoolExecutor() as pool:
        for chunk in tqdm(chunks, desc="spectrograms", unit="chunk", disable=None):
            waveforms = list(pool.map(lambda i: clips.read(int(i), clip_format.sample_rate), chunk))
            for name, values in compute(modules, waveforms, clip_format).items():
                spectrograms, done = stores[name]
                spectrograms[chunk] = values
                # On the disk before it counts as done: a power cut may write pages in any order.
                spectrograms.flush()
                done[chunk] = True
    for name, partial in partials.items():
        (partial / "done.npy").unlink()
        os.replace(partial, folders[name])


def _begun(partial: Path, shape: tuple[int, int, int], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Open, or make, the spectrograms of a store that is being filled, and which are done."""
    partial.mkdir(parents=True, exist_ok=True)
    paths = partial / "spectrograms.npy", partial / "done.npy"
    try:
        for path in paths:  # reading refuses a cut file, where writing would fill it up with zeros
            np.lib.format.open_memmap(path, mode="r")
        return tuple(np.lib.format.open_memmap(path, mode="r+") for path in paths)
    except (OSError, ValueError):  # not there yet, or killed while it was being made
        # First what is done, so that nothing counts as done in spectrograms that are made anew.
        done = _new_array(paths[1], shape[:1], np.dtype(bool))
        return _new_array(paths[0], shape, np.dtype(dtype)), done


def compute(
    modules: Mapping[str, nn.Module], waveforms: Sequence[np.ndarray], clip_format: ClipFormat
) -> dict[str, np.ndarray]:
    """Return the spectrograms (B, F, T) in dB of B clips, each cut or padded to the format.

    Parameters
    ----------
    modules
        From `build_representations`.
    waveforms
        B waveforms (N,), each of its own length.
    """
    n_samples, n_frames = clip_format.n_samples, clip_format.n_frames
    if clip_format.pad == "waveform":
        batches = [np.stack([fit_length(waveform, n_samples) for waveform in waveforms])]
    else:  # the paper pads the spectrogram of a short clip: each clip at its own length
        batches = [waveform[None, :n_samples] for waveform in waveforms]
    with torch.inference_mode():
        parts = [representations.compute(modules, torch.from_numpy(batch)) for batch in batches]

    def padded(spectrograms: Tensor) -> Tensor:
        return functional.pad(spectrograms[:, 0], (0, n_frames - spectrograms.shape[3]))

    return {name: torch.cat([padded(part[name]) for part in parts]).numpy() for name in modules}


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
        size = f"{np.prod(shape) * dtype.itemsize / 2**20:,.1f} MiB of spectrograms"
        way_out = "free space, or set FUSIONKD_OUTPUTS to a larger disk"
        raise InputError(f"{path}: no room for {size} ({error.strerror}): {way_out}") from None
