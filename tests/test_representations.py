"""Properties of the spectrograms, against librosa, gammatone, SciPy and arithmetic."""

import subprocess
import sys
import warnings
from pathlib import Path

import jupytext
import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

from fusionkd_lib import filters, representations
from fusionkd_lib.errors import InputError
from fusionkd_lib.representations import ConstantQ, Gammatone, LogMel, Stft

RATE = 16000
EVERY = ["stft", "logmel", "cqt", "gammatone"]
CHAPTER = Path(__file__).parents[1] / "book" / "02_three_ways_to_look.py"


def make(name, sample_rate=RATE, **settings):
    return representations.build(name, sample_rate=sample_rate, **settings)


def sine(frequency, *, amplitude=0.5, seconds=1.0, sample_rate=RATE):
    times = np.arange(int(seconds * sample_rate)) / sample_rate
    return amplitude * np.sin(2 * np.pi * frequency * times)


def noise(*shape, amplitude=0.1, seed=0):
    return amplitude * np.random.default_rng(seed).standard_normal(shape)


def signal(kind, sample_rate, seconds=2):
    n_samples = seconds * sample_rate
    times = np.arange(n_samples) / sample_rate
    return {
        "sine": lambda: sine(440, seconds=seconds, sample_rate=sample_rate),
        "chirp": lambda: 0.5 * scipy.signal.chirp(times, 50, seconds, 0.45 * sample_rate),
        "noise": lambda: noise(n_samples),
        "impulse": lambda: np.eye(1, n_samples, n_samples // 2)[0],
    }[kind]()


def spectrogram(module, waveform):
    return module(torch.tensor(waveform[None], dtype=torch.float32))[0, 0].numpy()


def decibels(power):
    return 10 * np.log10(np.maximum(power, 1e-10))


def assert_same_decibels(actual, expected, *, span, tolerance):
    """Compare where the level is within `span` dB of the loudest."""
    heard = expected > expected.max() - span
    np.testing.assert_allclose(actual[heard], expected[heard], rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def recordings(shared_data):
    paths = sorted((shared_data / "UrbanSound8K" / "audio" / "fold1").glob("*.ogg"))[::11][:3]
    assert paths, "the folder of real clips holds none"
    return [soundfile.read(path, always_2d=True) for path in paths]


@pytest.fixture(params=["sine", "chirp", "noise", "impulse", "recordings"])
def clips(request):
    if request.param == "recordings":
        found = request.getfixturevalue("recordings")
        return [(samples.mean(axis=1), rate) for samples, rate in found]
    return [(signal(request.param, rate), rate) for rate in (16000, 44100)]


# The contract


@pytest.mark.parametrize("n_samples", [1, 511, 512, 20000])
@pytest.mark.parametrize("hop_length", [512, 441])
def test_frames_are_the_same_for_every_representation(n_samples, hop_length):
    waveforms = torch.zeros(2, n_samples)
    for name in EVERY:
        module = make(name, hop_length=hop_length)
        result = module(waveforms)
        assert result.shape == (2, 1, module.n_bins, 1 + n_samples // hop_length)
        assert result.dtype == torch.float32
        assert result.is_contiguous()


@pytest.mark.parametrize("name", EVERY)
def test_settings_can_be_read_back(name):
    module = make(name, hop_length=256)
    assert (module.sample_rate, module.hop_length) == (RATE, 256)
    assert module.frequencies.shape == (module.n_bins,)
    assert np.all(np.diff(module.frequencies) > 0)
    assert not module.state_dict(), "buffers follow from the settings and are not weights"


@pytest.mark.parametrize("name", EVERY)
def test_a_sine_lands_in_its_bin(name):
    module = make(name)
    for row in (module.n_bins // 3, module.n_bins // 2, module.n_bins - module.n_bins // 8):
        levels = spectrogram(module, sine(module.frequencies[row]))
        # A band's magnitude sum grows with its width, so a gammatone's neighbour may just win.
        assert abs(levels[:, 10].argmax() - row) <= (1 if name == "gammatone" else 0)


@pytest.mark.parametrize("name", EVERY)
def test_an_impulse_is_loudest_in_the_frame_centred_on_it(name):
    waveform = np.zeros(RATE)
    waveform[12 * 512] = 1.0
    assert spectrogram(make(name), waveform)[-1].argmax() == 12


@pytest.mark.parametrize("name", EVERY)
def test_silence_is_at_the_floor(name):
    assert torch.all(make(name)(torch.zeros(2, 9000)) == -100)


@pytest.mark.parametrize("name", EVERY)
def test_gain_of_20_db_raises_every_level_by_20_db(name):
    module, waveform = make(name), noise(RATE)
    quiet, loud = (spectrogram(module, gain * waveform) for gain in (1.0, 10.0))
    above = quiet > -99.9
    assert above.mean() > 0.9
    # Silent rows of log-mel aside; float32 holds a level to about 1e-4 dB.
    np.testing.assert_allclose((loud - quiet)[above], 20, atol=2e-3)


@pytest.mark.parametrize("name", EVERY)
def test_a_clip_does_not_depend_on_its_batch(name):
    quiet, loud = noise(RATE, amplitude=1e-3), noise(RATE, amplitude=1.0, seed=1)
    module = make(name)
    alone = spectrogram(module, quiet)
    together = module(torch.tensor(np.stack([loud, quiet, loud]), dtype=torch.float32))[1, 0]
    # Another shape of matrix may sum in another order, which float32 shows in the last bits.
    np.testing.assert_allclose(together.numpy(), alone, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", EVERY)
def test_zeros_behind_a_clip_change_none_of_its_frames(name):
    waveform, module = noise(20 * 512), make(name)
    short = spectrogram(module, waveform)
    long = spectrogram(module, np.pad(waveform, (0, 30 * 512)))
    # Other lengths of transform round differently, 1e-7 of the loudest and more in dB below it.
    assert_same_decibels(long[:, : short.shape[1]], short, span=60, tolerance=0.02)


@pytest.mark.parametrize("name", EVERY)
def test_mixed_precision_around_it_changes_nothing(name):
    module, waveforms = make(name), torch.tensor(noise(1, 8000), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = module(waveforms)
    assert torch.equal(inside, module(waveforms))


def test_compute_equals_separate_calls():
    modules = {name: make(name) for name in EVERY}
    modules["finer"] = make("logmel", n_fft=2048)
    waveforms = torch.tensor(noise(3, 12000), dtype=torch.float32)
    results = representations.compute(modules, waveforms)
    assert list(results) == list(modules)
    for name, module in modules.items():
        assert torch.equal(results[name], module(waveforms)), name


def test_compute_takes_each_stft_once(monkeypatch):
    calls, stft = [], torch.stft
    monkeypatch.setattr(torch, "stft", lambda *a, **k: calls.append(a[1]) or stft(*a, **k))
    modules = {name: make(name) for name in EVERY}
    modules["finer"] = make("logmel", n_fft=2048)
    representations.compute(modules, torch.zeros(1, 5000))
    assert calls == [1024, 2048]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", EVERY)
def test_a_gpu_gives_the_same(name):
    module, waveforms = make(name), torch.tensor(noise(2, RATE), dtype=torch.float32)
    expected = module(waveforms)
    actual = module.cuda()(waveforms.cuda()).cpu()
    np.testing.assert_allclose(actual.numpy(), expected.numpy(), atol=0.01)


def test_oracles_are_not_needed_to_import():
    check = (
        "import sys, fusionkd_lib.representations;"
        "sys.exit(bool({'librosa', 'gammatone', 'torchvision'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


# Log-mel


@pytest.mark.parametrize(
    "setting",
    [(16000, 1024, 64, 20, 8000), (22050, 2048, 128, 0, 11025), (44100, 1024, 128, 20, 22050)],
)
def test_mel_weights_are_librosas(setting):
    import librosa

    rate, n_fft, n_mels, fmin, fmax = setting
    with warnings.catch_warnings():
        # The paper's setting at 44.1 kHz has empty bands; the property holds of them too.
        warnings.filterwarnings("ignore", message="Empty filters", category=UserWarning)
        expected = librosa.filters.mel(
            sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, dtype=np.float64
        )
    module = LogMel(sample_rate=rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)
    # A corner of a triangle on a bin is 0 or its rounding; all else is float32's last bit.
    np.testing.assert_allclose(module.weights.numpy(), expected, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(
        module.frequencies, librosa.mel_frequencies(n_mels + 2, fmin=fmin, fmax=fmax)[1:-1]
    )


@pytest.mark.filterwarnings("ignore:Empty filters:UserWarning")
def test_log_mel_is_librosas(clips):
    import librosa

    for waveform, rate in clips:
        power = librosa.feature.melspectrogram(
            y=waveform,
            sr=rate,
            n_fft=1024,
            hop_length=512,
            n_mels=128,
            fmin=20,
            pad_mode="constant",
        )
        # float32 against float64: errors are 1e-7 of the loudest magnitude, -140 dB.
        actual = spectrogram(make("logmel", rate), waveform)
        assert_same_decibels(actual, decibels(power), span=80, tolerance=0.02)


def test_stft_is_scipys(clips):
    for waveform, rate in clips:
        window = np.hanning(1025)[:-1]
        transform = scipy.signal.ShortTimeFFT(window, hop=512, fs=rate)
        power = np.abs(transform.stft(waveform, p0=0, p1=1 + len(waveform) // 512)) ** 2
        actual = spectrogram(Stft(sample_rate=rate), waveform)
        # As for log-mel, float32's noise.
        assert_same_decibels(actual, decibels(power), span=80, tolerance=0.02)


# Gammatone


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
@pytest.mark.parametrize("n_bands", [24, 128])
def test_gammatone_weights_are_the_packages(rate, n_bands):
    from gammatone.fftweight import fft_weights

    expected, _ = fft_weights(1024, rate, n_bands, 1, 20, rate / 2, 513)
    frequencies = np.arange(513) * rate / 1024
    centres = filters.erb_frequencies(n_bands, fmin=20, fmax=rate / 2)
    actual = filters.gammatone_response(frequencies, centres=centres, rate=rate)
    np.testing.assert_allclose(np.abs(actual), expected, rtol=1e-8)
    module = Gammatone(sample_rate=rate, n_bands=n_bands)
    np.testing.assert_allclose(1024 * module.weights.numpy(), expected, rtol=1e-6)


def test_gammatone_is_the_packages_weights_on_scipys_stft(clips):
    from gammatone.fftweight import fft_weights

    for waveform, rate in clips:
        weights, _ = fft_weights(1024, rate, 128, 1, 20, rate / 2, 513)
        transform = scipy.signal.ShortTimeFFT(np.hanning(1025)[:-1], hop=512, fs=rate)
        magnitude = np.abs(transform.stft(waveform, p0=0, p1=1 + len(waveform) // 512))
        expected = 20 * np.log10(np.maximum(weights @ magnitude / 1024, 1e-5))
        actual = spectrogram(make("gammatone", rate), waveform)
        # float32's noise adds up over the bins of a band.
        np.testing.assert_allclose(actual, expected, rtol=0, atol=0.05)


def test_gammatone_of_the_packages_own_stft_is_its_gammatonegram():
    from gammatone.fftweight import fft_gtgram, specgram

    # The package's window is half of its transform, ours is the whole: only from the STFT on can
    # the two be the same.
    waveform = noise(RATE)
    expected = fft_gtgram(waveform, RATE, 512 / RATE, 256 / RATE, 64, 20)
    power = np.abs(specgram(waveform, 1024, RATE, 512, 256)) ** 2
    module = Gammatone(sample_rate=RATE, hop_length=256, n_bands=64)
    actual = module.from_stft_power(torch.tensor(power[None], dtype=torch.float32))[0].sqrt()
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-5)


def chapters_filterbank(waveform, centres, rate):
    """Filter in time with the lines of chapter 02, the slow way to the fast gammatone."""
    names = {"np": np, "rate": rate, "n_fft": 1024, "hop_length": 512}
    for cell in jupytext.read(CHAPTER).cells:
        if "gammatone" in cell.metadata.get("tags", []):
            exec(cell.source, names)
    return decibels(names["filterbank_power"](waveform, centres))


@pytest.mark.parametrize("rate", [16000, 22050])
@pytest.mark.parametrize("kind", ["chirp", "noise", "impulse"])
def test_the_chapters_filterbank_is_the_packages_time_domain_gammatonegram(kind, rate):
    from gammatone.gtgram import gtgram

    waveform = signal(kind, rate, seconds=1)
    padded = np.pad(waveform, 512)  # frames centred, as ours are
    rms = gtgram(padded, rate, 1024 / rate, 512 / rate, 16, 20)
    centres = filters.erb_frequencies(16, fmin=20, fmax=rate / 2)
    actual = chapters_filterbank(waveform, centres, rate)
    expected = decibels(rms**2)
    assert actual.shape == expected.shape
    assert_same_decibels(actual, expected, span=100, tolerance=1e-4)


@pytest.mark.parametrize("row", [2, 4, 6])
def test_the_chapters_filterbank_passes_the_power_of_a_sine_at_a_centre(row):
    centres = filters.erb_frequencies(8, fmin=20, fmax=RATE / 2)
    levels = chapters_filterbank(sine(centres[row], amplitude=0.5), centres, RATE)
    # The filters have gain 1 at their centres; a window that cuts the lowest row's cycles unevenly
    # sees up to 1 % more or less of them.
    np.testing.assert_allclose(levels[row, 12:-3], 10 * np.log10(0.5**2 / 2), atol=0.05)


@pytest.mark.parametrize("frequency", [1500, 2000, 3000, 5000])
def test_gammatone_of_a_tone_is_half_the_power_that_the_filterbank_passes(frequency):
    waveform, module = sine(frequency), make("gammatone")
    actual = spectrogram(module, waveform)[:, 16]
    slow = chapters_filterbank(waveform, module.frequencies, RATE)[:, 16]
    # A tone on a bin of the transform fills three bins under a Hann window; their magnitudes add up
    # to half its amplitude, and the square of that is half its power. Rows far from the tone see
    # the window's edges rather than the tone.
    assert_same_decibels(actual, slow - 10 * np.log10(2), span=20, tolerance=0.1)


# Constant-Q


def correlations(module, waveform, row, frames):
    """Correlate a clip's positive frequencies with one sampled wavelet, the definition itself."""
    length = module.sample_rate / (np.tanh(np.log(2) / 12) * module.frequencies[row])
    half = int(length / 2)
    n = np.arange(-half, half + 1)
    wavelet = np.exp(-2j * np.pi * module.frequencies[row] * n / module.sample_rate)
    wavelet *= (0.5 + 0.5 * np.cos(2 * np.pi * n / length)) * 2 / np.sqrt(length)
    # Room around the clip, because the analytic signal has tails.
    margin = half + 2 * module.sample_rate
    analytic = scipy.signal.hilbert(np.pad(waveform, margin)) / 2
    centres = margin + np.asarray(frames) * module.hop_length
    return np.array([np.abs(analytic[c - half : c + half + 1] @ wavelet) for c in centres])


@pytest.mark.parametrize("row", [0, 40, 83])
def test_constant_q_is_the_correlation_with_its_wavelets(clips, row):
    for waveform, rate in clips:
        module = ConstantQ(sample_rate=rate)
        frames = np.arange(0, 1 + len(waveform) // 512, 5)
        expected = correlations(module, waveform, row, frames)
        power = module.power(torch.tensor(waveform[None], dtype=torch.float32))[0]
        # What is dropped of a wavelet's spectrum leaks 1e-5 of the loudest component.
        loudest = power.sqrt().max().item()
        actual = power[row].sqrt().numpy()[frames]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * loudest)


def constant_q_and_librosas(waveform, rate):
    import librosa

    # Zeros around the clip, because librosa's resampling cuts off what rings beyond its ends.
    waveform = np.pad(waveform, 24 * 512)
    expected = np.abs(librosa.cqt(waveform, sr=rate, fmin=32.703, n_bins=84, sparsity=0))
    power = ConstantQ(sample_rate=rate).power(torch.tensor(waveform[None], dtype=torch.float32))
    return power[0].sqrt().numpy(), expected


def test_constant_q_is_librosas_but_for_its_resampling(clips):
    for waveform, rate in clips:
        actual, expected = constant_q_and_librosas(waveform, rate)
        error = actual - expected
        # librosa halves the rate for each octave, and its windows of whole length are half a sample
        # of that off centre: 1 % of a window, which shows on its flanks.
        assert np.linalg.norm(error) < 0.03 * np.linalg.norm(expected)
        assert np.abs(error).max() < 0.05 * expected.max()


def test_constant_q_of_broadband_sound_is_librosas_in_every_bin(recordings):
    clips = [(samples.mean(axis=1), rate) for samples, rate in recordings]
    for waveform, rate in [*clips, (noise(2 * 44100), 44100)]:
        actual, expected = constant_q_and_librosas(waveform, rate)
        error = np.linalg.norm(actual - expected, axis=1)
        # The same 1 % of a window; no steady tone here, on whose flanks a bin could sit.
        np.testing.assert_array_less(error, 0.03 * np.linalg.norm(expected, axis=1))


@pytest.mark.parametrize("bins_per_octave", [1, 12, 36])
def test_constant_q_of_a_sine_is_its_amplitude_by_half_the_root_of_the_window(bins_per_octave):
    module = ConstantQ(
        sample_rate=RATE, n_bins=4 * bins_per_octave, bins_per_octave=bins_per_octave, fmin=110
    )
    row = 2 * bins_per_octave  # 440 Hz
    levels = spectrogram(module, sine(440, amplitude=0.5))
    length = RATE / 440 / np.tanh(np.log(2) / bins_per_octave)
    # One bin an octave has windows of under two cycles, and the negative frequency is dropped.
    np.testing.assert_allclose(
        levels[row, 12:-12], 20 * np.log10(0.25 * np.sqrt(length)), atol=0.02
    )


def test_constant_q_up_to_the_nyquist_frequency():
    assert ConstantQ(sample_rate=44100, n_bins=113).n_bins == 113
    with pytest.raises(InputError, match=r"cqt_bins=114: .* 22050 Hz .* at most 113$"):
        ConstantQ(sample_rate=44100, n_bins=114)
    with pytest.raises(InputError, match=r"cqt_bins=113: from 32.703 Hz.* 8000 Hz .* at most 95$"):
        ConstantQ(sample_rate=16000, n_bins=113)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("bins_per_octave", [12, 24])
def test_the_number_of_bins_that_fit_is_librosas(rate, bins_per_octave):
    import librosa

    with pytest.raises(InputError, match="use at most") as error:
        ConstantQ(sample_rate=rate, n_bins=999, bins_per_octave=bins_per_octave)
    most = int(str(error.value).split()[-1])
    edges = [
        librosa.filters.wavelet_lengths(
            freqs=librosa.cqt_frequencies(n_bins=n, fmin=32.703, bins_per_octave=bins_per_octave),
            sr=rate,
        )[1]
        for n in (most, most + 1)
    ]
    assert edges[0] <= rate / 2 < edges[1]


# Errors


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mfcc", {}, "= 'mfcc' is not allowed: use one of 'stft', 'logmel', 'cqt', 'gammatone'"),
        ("stft", {"n_fft": 1023}, "n_fft=1023: must be even"),
        ("stft", {"hop_length": 0}, "hop_length=0: must be a whole number"),
        ("stft", {"sample_rate": 44100.5}, "sample_rate=44100.5: must be a whole number"),
        ("logmel", {"n_mels": -1}, "n_mels=-1: must be a whole number"),
        ("logmel", {"fmax": 9000.0}, "fmax=9000: must .* 8000 Hz"),
        ("logmel", {"fmin": 8000.0}, "fmin=8000 and fmax=8000: must"),
        ("logmel", {"fmin": float("nan")}, "fmin=nan and fmax=8000: must"),
        ("gammatone", {"fmin": -1.0}, "fmin=-1 and fmax=8000: must"),
        ("gammatone", {"gammatone_bands": 0}, "gammatone_bands=0: must be"),
        ("cqt", {"cqt_fmin": 0.0}, "cqt_fmin=0: must lie between"),
        ("cqt", {"cqt_fmin": 7990.0}, "cqt_fmin=7990: must lie between"),
        ("cqt", {"bins_per_octave": True}, "bins_per_octave=True: must be"),
    ],
)
def test_a_setting_out_of_range_is_named(name, settings, message):
    with pytest.raises(InputError, match=message):
        representations.build(name, **{"sample_rate": RATE, **settings})


@pytest.mark.parametrize(
    "waveforms",
    [torch.zeros(100), torch.zeros(1, 1, 100), torch.zeros(2, 0), torch.zeros(1, 9).short()],
)
def test_only_batches_of_floating_point_samples_are_taken(waveforms):
    for call in (Stft(sample_rate=RATE), lambda x: representations.compute({}, x)):
        with pytest.raises(InputError, match=r"waveforms of shape .*: must be a non-empty batch"):
            call(waveforms)


def test_build_passes_every_setting_on():
    module = make("gammatone", hop_length=100, n_fft=512, fmin=50.0, fmax=4000.0, gammatone_bands=9)
    assert (module.hop_length, module.n_fft, module.n_bins) == (100, 512, 9)
    np.testing.assert_allclose(module.frequencies[0], 50)
    assert module.frequencies[-1] < 4000
    module = make("cqt", cqt_bins=10, bins_per_octave=5, cqt_fmin=100.0)
    np.testing.assert_allclose(module.frequencies[[0, 5]], [100, 200])
