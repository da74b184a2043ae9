"""Open a sound file only if it is whole: libsndfile shortens most cut files without a word.

A WAV's data chunk and the last page of an Ogg stream are read here; of other formats libsndfile's
own log tells, and of compressed ones the decoder (see `audio`).
"""

import io
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import soundfile

from fusionkd_lib.errors import InputError

# Sizes that writers to a pipe put into a WAV header because they cannot go back to mend it:
# 0xFFFFFFFF is usual, SoX writes the largest signed one that is a multiple of a page.
STREAMING_SIZE = 0x7FFFF000

# How libsndfile's log tells of an AIFF, AU, Wave64 or RF64 file that is shorter than it declares.
# A WAV's own total (RIFF, in capitals) is wrong in many a sound file: its data chunk is read here.
SHORTENED = re.compile(r"(?:SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)")

# libsndfile's number of frames where a header leaves it open, as a FLAC's does that was written to
# a pipe; soundfile cannot read such a file to its end.
UNKNOWN_FRAMES = 2**63 - 1


@contextmanager
def opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open a sound file that is as long as it declares.

    Raises
    ------
    InputError
        If the file is missing, a folder, empty, no audio, or truncated as far as can be told
        without decoding it.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a sound file in it.")
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path or fetch the data.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); copy or fetch it again.")
    with _sound_file(_checked(path), path) as sound:
        shortened = SHORTENED.search(sound.extra_info)
        if shortened and int(shortened[2]) < int(shortened[1]) < STREAMING_SIZE:
            raise truncated(path, f"{shortened[2]} of {shortened[1]} bytes are there")
        if sound.frames == UNKNOWN_FRAMES:
            raise InputError(f"{path} does not say how long it is; convert it to WAV.")
        if not sound.frames:
            raise InputError(f"{path} holds no samples; copy or fetch it again.")
        yield sound


def _sound_file(source: Path | BinaryIO, path: Path) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(source)
    except TypeError:  # soundfile's answer to a headerless .raw file
        raise InputError(
            f"{path} cannot be read as audio (it has no header); convert it to WAV."
        ) from None
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"{path} cannot be read as audio ({reason(error)}); "
            "convert it to WAV or fetch it again."
        ) from error


def _checked(path: Path) -> Path | BinaryIO:
    """Return what libsndfile shall open: the path, or a streamed WAV with its header mended."""
    try:
        with path.open("rb") as stream:
            _check_ogg(stream, path)
            data = _find_wav_data(stream)
            if data is None:
                return path
            position, declared, unfinished = data
            held = path.stat().st_size - position
            if declared == 0 and held and unfinished:
                return _unbounded(stream, position)
            if held < declared < STREAMING_SIZE:
                raise truncated(path, f"{held:,} of {declared:,} bytes are there")
            return path
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); mend that.") from error


def _find_wav_data(stream: BinaryIO) -> tuple[int, int, bool] | None:
    """Return where a WAV's data begin, the bytes declared, and whether its total falls short."""
    length = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    form, total, kind = struct.unpack("<4sI4s", stream.read(12).ljust(12, b"\0"))
    position = 12
    while form == b"RIFF" and kind == b"WAVE" and position + 8 <= length:
        stream.seek(position)
        name, size = struct.unpack("<4sI", stream.read(8))
        if name == b"data":
            return position + 8, size, total + 8 < length
        position += 8 + size + size % 2  # chunks begin at even offsets
    return None


def _unbounded(stream: BinaryIO, position: int) -> BinaryIO:
    """Copy a WAV whose data chunk says 0, saying "to the end" as libsndfile understands it."""
    stream.seek(0)
    content = bytearray(stream.read())
    content[4:8] = content[position - 4 : position] = b"\xff" * 4
    return io.BytesIO(bytes(content))


def _check_ogg(stream: BinaryIO, path: Path) -> None:
    """Require that the last Ogg page is whole and ends its stream; libsndfile accepts any cut."""
    is_ogg = stream.read(4) == b"OggS"
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - 2 * 65307))  # a page has at most 65,307 bytes
    tail = stream.read()
    stream.seek(0)
    if not is_ogg:
        return
    page = tail[tail.rfind(b"OggS") :]
    n_segments = page[26] if len(page) > 26 else 255
    end = 27 + n_segments + sum(page[27 : 27 + n_segments])
    if len(page) < end or not page[5] & 4:
        raise truncated(path, "its last Ogg page does not end the stream")


def truncated(path: Path, evidence: str) -> InputError:
    """Build the error of a file that ends too early."""
    return InputError(f"{path} is truncated ({evidence}); copy or fetch it again.")


def reason(error: soundfile.LibsndfileError) -> str:
    """Return libsndfile's words as a part of a sentence."""
    return error.error_string.removeprefix("Error : ").rstrip(".")
