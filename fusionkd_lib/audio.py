"""Read one sound file as mono float32 at a given rate, and fit it to a length.

A waveform is ``(N,)`` float32, nominally in [-1, 1]; a float file that exceeds full scale is kept
as it is. libsndfile reads a truncated file without an error; its log and the number of samples that
it decodes reveal the truncation. Every fault of a file is an `InputError` that names the file and
the way out.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import soxr

from fusionkd_lib.errors import InputError, check_counts
from fusionkd_lib.reading import cannot_open, open_regular

# libsndfile's names of the formats that are read; WAVEX is a WAV with an extended header.
FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3", "AIFF")

# In order of preference where two files share a stem: the original before a re-encoded copy.
SUFFIXES = (".wav", ".wave", ".aif", ".aiff", ".aifc", ".flac", ".ogg", ".oga", ".opus", ".mp3")

# What libsndfile logs for a WAV or AIFF file that is shorter than its header declares, and for an
# Ogg stream without its last page.
SHORTENED = re.compile(r"(?:data|SSND) *: (\d+) \(should be (\d+)\)")
UNENDED = re.compile(r"^Ogg ?: (?:Junk after|Last page lacks|File ended)", re.MULTILINE)

# A program that writes to a pipe cannot go back to fill in the size of a WAV: 0xFFFFFFFF is usual,
# and SoX writes the largest signed number that is a multiple of a page.
STREAMING_SIZE = 0x7FFFF000

# libsndfile's number of frames where a FLAC file that was written to a pipe does not give it.
UNKNOWN_FRAMES = 2**63 - 1

# A header may promise this much more than is decoded: encoders of MP3 disagree about the padding
# of the first and the last block, 1,152 frames each.
PADDING_FRAMES = 2 * 1152

BLOCK_FRAMES = 1 << 20

# Other rates are no sound's: from 1 Hz, resampling would ask for all the memory.
RATES = range(1000, 768_001)

# Float files in the units of 32-bit integers exist; above this a spectrogram's power overflows.
LOUDEST = 1e10


def load_mono(path: str | Path, *, sample_rate: int) -> np.ndarray:
    """Read a whole sound file, mix its channels down to one and resample it.

    Parameters
    ----------
    path
        A WAV, FLAC, Ogg (Vorbis or Opus), MP3 or AIFF file of any rate, depth and number of
        channels.
    sample_rate
        Rate of the result in Hz.

    Returns
    -------
    numpy.ndarray
        ``(N,)`` float32: the mean of the channels, nominally in [-1, 1].

    Raises
    ------
    InputError
        If the file is missing, a folder, empty, in another format, truncated, silent, or holds
        values that are not finite.
    """
    return np.concatenate(list(stream_mono(path, sample_rate=sample_rate)))


def stream_mono(path: str | Path, *, sample_rate: int, quiet: bool = False) -> Iterator[np.ndarray]:
    """Read a sound file of any length block by block; otherwise as `load_mono`.

    Parameters
    ----------
    quiet
        Whether a silent file may pass.

    Yields
    ------
    numpy.ndarray
        ``(n,)`` float32; the blocks concatenated are the result of `load_mono`, bit for bit.

    Raises
    ------
    InputError
        As `load_mono`; a fault that only the end reveals is raised after the last block.
    """
    check_counts(sample_rate=sample_rate)
    path = Path(path)
    with _opened(path) as sound:
        resampler = soxr.ResampleStream(sound.samplerate, sample_rate, 1, dtype="float32")
        n_read, n_yielded, silent = 0, 0, True
        for waveform in _read_blocks(sound, path):  # (n,)
            n_read, silent = n_read + len(waveform), silent and not waveform.any()
            resampled = resampler.resample_chunk(waveform)  # (n,)
            n_yielded += len(resampled)
            yield resampled
        if not n_read or n_read + PADDING_FRAMES < sound.frames:
            raise _truncated(path, f"{n_read:,} of {sound.frames:,} samples can be read")
        if silent and not quiet:
            raise InputError(f"{path}: is silent, all zeros: record it anew or leave it out")
        rest = resampler.resample_chunk(np.empty(0, dtype=np.float32), last=True)
        if not n_yielded + len(rest):
            raise InputError(f"{path}: is too short to resample ({n_read} samples): leave it out")
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

    Examples
    --------
    >>> fit_length(np.array([0.1, 0.2, 0.3]), 5)
    array([0.1, 0.2, 0.3, 0. , 0. ])
    >>> fit_length(np.array([0.1, 0.2, 0.3]), 2)
    array([0.1, 0.2])
    """
    return np.pad(waveform[:n_samples], (0, max(n_samples - len(waveform), 0)))


def index_audio(folder: str | Path) -> dict[str, Path]:
    """List the sound files of a folder by their stems, reading the folder once.

    Returns
    -------
    dict
        Stem -> path; of two files with one stem, the one whose suffix comes first in `SUFFIXES`.
        Empty where there is no such folder.

    Raises
    ------
    InputError
        If the system does not let the folder be read.
    """
    try:
        paths = sorted(Path(folder).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise cannot_open(folder, error) from error
    # Files with a leading dot are leftovers of an archiver or an editor.
    paths = [p for p in paths if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    paths.sort(key=lambda path: SUFFIXES.index(path.suffix.lower()), reverse=True)
    return {path.stem: path for path in paths}


def read_header(path: str | Path) -> tuple[int, int, int]:
    """Return the number of samples, the rate in Hz and the number of channels, without decoding.

    Raises
    ------
    InputError
        If the file is missing, a folder, empty, in another format, or truncated as far as can be
        told without decoding it.
    """
    with _opened(Path(path)) as sound:
        return sound.frames, sound.samplerate, sound.channels


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open a sound file in one of the `FORMATS`, as long as it declares."""
    # Opened here, since libsndfile does not say why the system refuses to open a file.
    with open_regular(path, remedy="name a sound file, or fetch the data") as stream:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: is empty (0 bytes): copy or fetch it again")
        try:
            sound = soundfile.SoundFile(stream.fileno(), closefd=False)
        except soundfile.LibsndfileError as error:
            raise _not_audio(path, _reason(error)) from error
        with sound:
            _check_header(sound, path)
            yield sound


def _check_header(sound: soundfile.SoundFile, path: Path) -> None:
    if sound.format not in FORMATS:
        raise _not_audio(path, f"its format is {sound.format}")
    if UNENDED.search(sound.extra_info):
        raise _truncated(path, "its last Ogg page does not end the stream")
    if sizes := SHORTENED.search(sound.extra_info):
        declared, there = map(int, sizes.groups())
        if there < declared < STREAMING_SIZE:
            raise _truncated(path, f"{there:,} of {declared:,} bytes are there")
    if "'COMM' chunk (" in sound.extra_info:
        raise _not_audio(path, "its header and its samples disagree")
    if sound.format == "OGG" and _n_streams(path) > 1:
        raise _not_audio(path, "it holds several Ogg streams")
    if sound.samplerate not in RATES:
        raise _not_audio(path, f"its rate is {sound.samplerate:,} Hz")
    if sound.frames in (0, UNKNOWN_FRAMES):
        fault = "holds no samples, or its header does not say how many"
        raise InputError(f"{path}: {fault}: convert it to WAV or fetch it again")


def _n_streams(path: Path) -> int:
    """Count the streams of an Ogg file by their first pages: libsndfile reads one alone."""
    n_streams = 0
    with path.open("rb") as file:
        while len(page := file.read(27)) == 27 and page.startswith(b"OggS"):
            n_streams += page[5] >> 1 & 1  # begins a stream
            file.seek(sum(file.read(page[26])), 1)
    return n_streams


def _read_blocks(sound: soundfile.SoundFile, path: Path) -> Iterator[np.ndarray]:
    """Read mono in blocks to the end, so that a header that lies cannot ask for all the memory."""
    # Otherwise soundfile seeks after each block, and an MP3 decoder loses its state.
    sound.seekable = lambda: False
    n_frames = min(BLOCK_FRAMES, sound.frames)
    try:
        while len(frames := sound.read(n_frames, dtype="float32", always_2d=True)):
            largest = np.abs(frames).max()
            if not largest <= LOUDEST:  # NaN is not
                allowed = f"full scale is 1, and NaN, infinite or above {LOUDEST:g} cannot be used"
                fault = f"holds a sample of {largest:.3g}: {allowed}"
                raise InputError(f"{path}: {fault}; write it anew from its source")
            yield frames.mean(axis=1)  # over the channels
    except soundfile.LibsndfileError as error:
        raise _truncated(path, _reason(error)) from error


def _not_audio(path: Path, reason: str) -> InputError:
    allowed = "WAV, FLAC, Ogg, MP3 and AIFF can; convert it to WAV or FLAC, or fetch it again"
    return InputError(f"{path}: cannot be read as audio ({reason}): {allowed}")


def _truncated(path: Path, evidence: str) -> InputError:
    return InputError(f"{path}: is truncated ({evidence}): copy or fetch it again")


def _reason(error: soundfile.LibsndfileError) -> str:
    """Return libsndfile's words as a part of a sentence."""
    return error.error_string.removeprefix("Error : ").rstrip(".")
