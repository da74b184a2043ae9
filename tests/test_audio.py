"""Reading: WAV, FLAC, Ogg, MP3 and AIFF come as mono float32 at the rate asked for, or an error."""

import resource
import struct
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fusionkd_lib.audio import fit_length, index_audio, load_mono, read_header, stream_mono
from fusionkd_lib.errors import InputError

FORMATS = {
    "pcm8.wav": {"subtype": "PCM_U8"},
    "pcm16.wav": {"subtype": "PCM_16"},
    "pcm24.wav": {"subtype": "PCM_24"},
    "pcm32.wav": {"subtype": "PCM_32"},
    "float.wav": {"subtype": "FLOAT"},
    "double.wav": {"subtype": "DOUBLE"},
    "ms_adpcm.wav": {"subtype": "MS_ADPCM"},
    "ima_adpcm.wav": {"subtype": "IMA_ADPCM"},
    "law.wav": {"subtype": "ULAW"},
    "big_endian.wav": {"endian": "BIG"},
    "extensible.wav": {"format": "WAVEX"},
    "tone.aiff": {},
    "float.aifc": {"format": "AIFF", "subtype": "FLOAT"},
    "tone.flac": {},
    "tone.ogg": {},
    "opus.ogg": {"subtype": "OPUS"},
    "tone.mp3": {},
}


def tone(seconds: float, sample_rate: int, *, frequency: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(
        2 * np.pi * frequency * np.arange(round(seconds * sample_rate)) / sample_rate
    )


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_tone_that_was_written(tmp_path, name):
    written = tone(0.5, 48000)
    soundfile.write(tmp_path / name, written, 48000, **FORMATS[name])
    waveform = load_mono(tmp_path / name, sample_rate=48000)
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert abs(len(waveform) - len(written)) <= 1024  # ADPCM fills its last block
    assert np.corrcoef(waveform[: len(written)], written)[0, 1] > 0.99


@pytest.mark.parametrize("name", FORMATS)
def test_blocks_are_the_whole_bit_for_bit(tmp_path, monkeypatch, name):
    soundfile.write(tmp_path / name, tone(0.5, 48000), 48000, **FORMATS[name])
    whole = load_mono(tmp_path / name, sample_rate=22050)
    monkeypatch.setattr("fusionkd_lib.audio.BLOCK_FRAMES", 1000)
    blocks = list(stream_mono(tmp_path / name, sample_rate=22050))
    assert len(blocks) > 10
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


@pytest.mark.parametrize("file_rate", [8000, 11025, 22050, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("seconds", [0.05, 1.0])
def test_resampling_keeps_duration_and_pitch(tmp_path, file_rate, seconds):
    soundfile.write(tmp_path / "tone.wav", tone(seconds, file_rate, frequency=1000), file_rate)
    waveform = load_mono(tmp_path / "tone.wav", sample_rate=16000)
    assert abs(len(waveform) - seconds * 16000) <= 1
    peak = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)))).argmax()
    assert peak * 16000 / len(waveform) == pytest.approx(1000, abs=16000 / len(waveform))


def test_a_tone_above_the_new_nyquist_does_not_alias(tmp_path):
    soundfile.write(
        tmp_path / "tone.wav", tone(1.0, 44100, frequency=15000), 44100, subtype="FLOAT"
    )
    assert np.abs(load_mono(tmp_path / "tone.wav", sample_rate=16000)[1000:-1000]).max() < 1e-4


@pytest.mark.parametrize("n_channels", [1, 2, 5, 16])
def test_channels_are_averaged(tmp_path, n_channels):
    gains = np.linspace(0.1, 1.0, n_channels)
    soundfile.write(tmp_path / "many.wav", tone(0.1, 8000)[:, None] * gains, 8000, subtype="FLOAT")
    waveform = load_mono(tmp_path / "many.wav", sample_rate=8000)
    np.testing.assert_allclose(waveform, tone(0.1, 8000) * gains.mean(), atol=1e-6)


def test_float_files_louder_than_full_scale_are_kept(tmp_path):
    soundfile.write(tmp_path / "loud.wav", 100 * tone(0.1, 8000), 8000, subtype="FLOAT")
    assert load_mono(tmp_path / "loud.wav", sample_rate=8000).max() == pytest.approx(50, rel=1e-3)


@pytest.mark.parametrize(("n_before", "n_after"), [(3, 5), (5, 3), (4, 4)])
def test_fit_length_pads_with_zeros_or_cuts_at_the_end(n_before, n_after):
    waveform = np.arange(1, n_before + 1, dtype=np.float32)
    fitted = fit_length(waveform, n_after)
    assert fitted.dtype == np.float32
    assert fitted.tolist() == (waveform.tolist() + [0.0] * n_after)[:n_after]


def test_fit_length_does_not_share_memory():
    waveform = np.ones(4, dtype=np.float32)
    fit_length(waveform, 4)[:] = 0
    assert waveform.tolist() == [1, 1, 1, 1]


def test_a_clip_is_found_by_its_stem_and_the_original_before_a_copy(tmp_path):
    for name in ("a.ogg", "a.WAV", "b.flac", "._b.wav", "notes.txt"):
        (tmp_path / name).touch()
    assert index_audio(tmp_path) == {"a": tmp_path / "a.WAV", "b": tmp_path / "b.flac"}


def test_a_missing_folder_holds_no_clips(tmp_path):
    assert index_audio(tmp_path / "fold1") == {}
    (tmp_path / "fold2").touch()
    assert index_audio(tmp_path / "fold2") == {}


def test_read_header_agrees_with_libsndfile(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.ones((300, 2)), 22050)
    assert read_header(tmp_path / "a.wav") == (300, 22050, 2)


def streamed_wav(path: Path, riff_and_data_size: int) -> Path:
    """Write a WAV as to a pipe, with sizes in its header that say nothing."""
    soundfile.write(path, tone(0.1, 8000), 8000)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = struct.pack("<I", riff_and_data_size)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("riff_and_data_size", [0xFFFFFFFF, 0x7FFFF024])
def test_a_streamed_wav_is_read_to_its_end(tmp_path, riff_and_data_size):
    path = streamed_wav(tmp_path / "streamed.wav", riff_and_data_size)
    np.testing.assert_allclose(load_mono(path, sample_rate=8000), tone(0.1, 8000), atol=1e-4)


def test_a_wav_whose_recorder_never_wrote_its_length_says_so(tmp_path):
    path = streamed_wav(tmp_path / "crashed.wav", 0)
    with pytest.raises(InputError, match=r"header does not say how many: convert it to WAV or"):
        load_mono(path, sample_rate=8000)


def test_a_chunk_after_the_data_is_no_truncation(tmp_path):
    path = tmp_path / "tagged.wav"
    soundfile.write(path, tone(0.1, 8000), 8000)
    path.write_bytes(path.read_bytes() + b"LIST\x04\x00\x00\x00INFO")
    assert len(load_mono(path, sample_rate=8000)) == 800


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_file_is_truncated(tmp_path, name, share):
    path = tmp_path / name
    noise = np.random.default_rng(0).normal(0, 0.1, 96000)
    soundfile.write(path, noise, 48000, **FORMATS[name])
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])
    # libsndfile opens no Opus stream that lacks its second half.
    malformed = "|cannot be read as audio" if name == "opus.ogg" else ""
    with pytest.raises(
        InputError, match=rf"{name}: (is truncated{malformed}) \(.*\): .*fetch it again"
    ):
        load_mono(path, sample_rate=48000)


@pytest.mark.parametrize("options", [{}, {"subtype": "OPUS"}])
def test_an_ogg_cut_between_two_pages_is_truncated(tmp_path, options):
    path = tmp_path / "cut.ogg"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 480000), 48000, **options)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"OggS")])
    with pytest.raises(InputError, match="is truncated"):
        load_mono(path, sample_rate=48000)


@pytest.mark.parametrize("name", ["tone.w64", "tone.rf64", "tone.au", "tone.caf", "tone.voc"])
def test_another_format_is_refused_with_what_is_read(tmp_path, name):
    soundfile.write(tmp_path / name, tone(0.5, 8000), 8000)
    sentence = rf"{name}: cannot be read as audio \(its format is {name[5:].upper()}\): WAV, FLAC, "
    with pytest.raises(InputError, match=sentence + "Ogg, MP3 and AIFF can; convert it to WAV or"):
        load_mono(tmp_path / name, sample_rate=8000)


def empty(path: Path) -> None:
    path.touch()


def no_frames(path: Path) -> None:
    soundfile.write(path, np.zeros(0), 8000)


def text(path: Path) -> None:
    path.write_text("This is a letter, not a sound. " * 20)


def silence(path: Path) -> None:
    soundfile.write(path, np.zeros(800), 8000)


def opposed_channels(path: Path) -> None:
    soundfile.write(path, tone(0.1, 8000)[:, None] * [1, -1], 8000, subtype="FLOAT")


def not_a_number(path: Path) -> None:
    soundfile.write(path, np.array([0.1, np.nan, 0.1]), 8000, subtype="FLOAT")


def infinite(path: Path) -> None:
    soundfile.write(path, np.array([0.1, -np.inf, 0.1]), 8000, subtype="FLOAT")


def header_only(path: Path) -> None:
    path.write_bytes(b"RIFF")


def bytes_alone(path: Path) -> None:
    path.write_bytes(bytes(100))


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda path: None, "does not exist"),
        (Path.mkdir, "Is a directory"),
        (empty, r"is empty \(0 bytes\)"),
        (no_frames, "holds no samples"),
        (text, "cannot be read as audio"),
        (header_only, "cannot be read as audio"),
        (bytes_alone, "cannot be read as audio"),
        (silence, "is silent"),
        (opposed_channels, "is silent"),
        (not_a_number, "a sample of nan"),
        (infinite, "a sample of inf"),
    ],
)
def test_a_bad_file_is_named_with_its_fault_and_the_way_out(tmp_path, make, fault):
    path = tmp_path / "clip.wav"
    make(path)
    with pytest.raises(InputError, match=rf"clip\.wav: .*{fault}.*: .*[^.]$") as error:
        load_mono(path, sample_rate=16000)
    assert "\n" not in str(error.value)


def test_samples_without_a_header_are_no_audio(tmp_path):
    (tmp_path / "clip.raw").write_bytes(bytes(100))
    with pytest.raises(InputError, match=r"clip\.raw: cannot be read as audio .*convert it to WAV"):
        load_mono(tmp_path / "clip.raw", sample_rate=16000)


@contextmanager
def no_file_handles():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("name", ["clip.wav", "clip.ogg"])
def test_too_many_open_files_are_no_fault_of_the_file(tmp_path, name):
    path = tmp_path / name
    soundfile.write(path, tone(0.1, 8000), 8000)
    acts = {path: partial(load_mono, sample_rate=8000), tmp_path: index_audio}
    for place, act in acts.items():
        with no_file_handles(), pytest.raises(InputError) as error:
            act(place)
        assert str(error.value) == (
            f"{place}: cannot be opened (Too many open files): fix that and try again"
        )


def test_a_flac_without_its_length_says_so(tmp_path):
    path = tmp_path / "piped.flac"
    soundfile.write(path, tone(0.1, 8000), 8000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # STREAMINFO's 36 bits of total samples: 0 is unknown
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(InputError, match="header does not say how many"):
        load_mono(path, sample_rate=8000)


def test_a_header_cannot_ask_for_memory_that_the_file_does_not_fill(tmp_path):
    path = tmp_path / "boastful.flac"
    soundfile.write(path, tone(0.1, 8000), 8000)
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff\xff\xff\xf0"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is truncated"):
        load_mono(path, sample_rate=8000)


def test_one_sample_is_too_short_to_resample(tmp_path):
    soundfile.write(tmp_path / "click.wav", np.array([0.5]), 192000)
    with pytest.raises(InputError, match="too short"):
        load_mono(tmp_path / "click.wav", sample_rate=8000)


@pytest.mark.parametrize("sample_rate", [0, -1])
def test_the_rate_is_above_zero(tmp_path, sample_rate):
    with pytest.raises(
        InputError, match=f"sample_rate={sample_rate}: must be a whole number, 1 or more"
    ):
        load_mono(tmp_path / "clip.wav", sample_rate=sample_rate)


def test_real_clips_are_whole(shared_data):
    paths = sorted((shared_data / "UrbanSound8K" / "audio" / "fold1").iterdir())[::40]
    for path in paths:
        assert load_mono(path, sample_rate=22050).shape == (88200,)
