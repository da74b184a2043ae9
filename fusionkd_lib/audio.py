"""Read one audio file as mono float32 at a rate, and fit it to a length.

A waveform is ``(N,)`` float32, nominally in [-1, 1]; a float file that exceeds it is taken as it
is. Every fault of a file is an `InputError` that names the file and the way out.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from fusionkd_lib.containers import opened, reason, truncated
from fusionkd_lib.errors import InputError

# In the order of preference where two files share a stem: the original before a re-encoded copy.
SUFFIXES = (
    *(".wav", ".wave", ".w64", ".rf64", ".aif", ".aiff", ".aifc", ".au", ".caf"),
    *(".flac", ".ogg", ".oga", ".opus", ".mp3"),
)

# A header may promise this much more than a sound file decodes to: encoders of MP3 disagree about
# the padding of the first and the last block, 1,152 frames each.
PADDING_FRAMES = 2 * 1152

BLOCK_FRAMES = 1 << 20

# Float files in the units of 32-bit integers are met; above this the power of a spectrogram
# overflows.
LOUDEST = 1e10


def load_mono(path: str | Path, *, sample_rate: int) -> np.ndarray:
    """Read a whole sound file, mix its channels to one and resample it.

    Parameters
    ----------
    path
        Any format, rate, depth and number of channels that libsndfile reads.
    sample_rate
        Rate of the result in Hz.

    Returns
    -------
    numpy.ndarray
        ``(N,)`` float32: the mean of the channels, nominally in [-1, 1].

    Raises
    ------
    InputError
        If the file is missing, a folder, empty, no audio, truncated, silent, or holds values that
        are not finite.
    """
    return np.concatenate(list(stream_mono(path, sample_rate=sample_rate)))


def stream_mono(path: str | Path, *, sample_rate: int) -> Iterator[np.ndarray]:
    """Read a sound file of any length block by block, as `load_mono` does in one piece.

    Yields
    ------
    numpy.ndarray
        ``(n,)`` float32, whose concatenation is the result of `load_mono`, bit for bit.

    Raises
    ------
    InputError
        As `load_mono`; what only the end shows (silence, a cut) after the last block.
    """
    if sample_rate <= 0:
        raise InputError(f"sample_rate is {sample_rate}; it is a rate in Hz, above 0.")
    path = Path(path)
    with opened(path) as sound:
        resampler = soxr.ResampleStream(sound.samplerate, sample_rate, 1, dtype="float32")
        n_read, n_yielded, silent = 0, 0, True
        for frames in _read_blocks(sound, path):  # (n, channels)
            waveform = _checked(frames, path).mean(axis=1)  # (n,)
            n_read, silent = n_read + len(waveform), silent and not waveform.any()
            resampled = resampler.resample_chunk(waveform)  # (n,)
            n_yielded += len(resampled)
            yield resampled
        _check_end(path, n_read=n_read, n_declared=sound.frames, silent=silent)
        rest = resampler.resample_chunk(np.empty(0, dtype=np.float32), last=True)
        if not n_yielded + len(rest):
            raise InputError(f"{path} has only {n_read} samples; it is too short to be resampled.")
        yield rest


def fit_length(waveform: np.ndarray, n_samples: int) -> np.ndarray:
    """Cut a waveform, or pad it with zeros at its end.

    Parameters
    ----------
    waveform
        ``(N,)`` samples.
    n_samples
        Length of the result in samples.

    Returns
    -------
    numpy.ndarray
        ``(n_samples,)`` of the same dtype; a copy, so that the caller may write to it.
    """
    fitted = np.zeros(n_samples, dtype=waveform.dtype)
    kept = waveform[:n_samples]
    fitted[: len(kept)] = kept
    return fitted


def index_audio(folder: str | Path) -> dict[str, Path]:
    """List the sound files of a folder by their stems, with one look at the folder.

    Returns
    -------
    dict
        Stem -> path; of two files with one stem the one whose suffix stands first in `SUFFIXES`.
        Empty where there is no such folder.
    """
    found: dict[str, Path] = {}
    if not os.path.isdir(folder):
        return found
    with os.scandir(folder) as entries:
        # A leading dot marks what an archiver or an editor left beside the file itself.
        paths = [Path(entry.path) for entry in entries if not entry.name.startswith(".")]
    paths = [path for path in paths if path.suffix.lower() in SUFFIXES]
    for path in sorted(paths, key=lambda path: SUFFIXES.index(path.suffix.lower()), reverse=True):
        found[path.stem] = path
    return found


def find_audio(folder: str | Path, stem: str) -> Path:
    """Find a clip by its stem, in any format.

    Raises
    ------
    InputError
        If no sound file in the folder has that stem.
    """
    found = index_audio(folder).get(stem)
    if found is None:
        raise InputError(f"{folder} holds no sound file named {stem}; add it as .wav, .flac, .ogg.")
    return found


def read_header(path: str | Path) -> tuple[int, int, int]:
    """Return the number of samples, the rate in Hz and the number of channels; decode nothing.

    Raises
    ------
    InputError
        If the file is missing, a folder, empty, no audio, or shorter than it declares.
    """
    with opened(Path(path)) as sound:
        return sound.frames, sound.samplerate, sound.channels


def _read_blocks(sound: soundfile.SoundFile, path: Path) -> Iterator[np.ndarray]:
    """Read to the end in blocks, so that a header that lies cannot ask for all the memory."""
    try:
        while len(block := sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
            yield block
    except soundfile.LibsndfileError as error:
        raise truncated(path, reason(error)) from error


def _checked(frames: np.ndarray, path: Path) -> np.ndarray:
    if not np.isfinite(frames).all():
        raise InputError(f"{path} holds NaN or infinite samples; write it anew from its source.")
    largest = np.abs(frames).max()
    if largest > LOUDEST:
        raise InputError(
            f"{path} holds a sample of {largest:.3g}, where 1 is full scale; write it anew."
        )
    return frames


def _check_end(path: Path, *, n_read: int, n_declared: int, silent: bool) -> None:
    if n_read + PADDING_FRAMES < n_declared:
        raise truncated(path, f"{n_read:,} of {n_declared:,} samples can be read")
    if not n_read:
        raise InputError(f"{path} holds no samples; copy or fetch it again.")
    if silent:
        raise InputError(f"{path} is silent: every sample is zero; record it anew or leave it out.")
