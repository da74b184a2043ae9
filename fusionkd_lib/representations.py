"""Waveforms to spectrograms: STFT, log-mel, constant-Q and gammatone, all on one time axis.

Waveforms (B, N) become spectrograms (B, 1, F, T) in dB: ``10 log10`` of a power floored at 1e-10,
hence -100 dB at the least, and absolute, so that a clip does not depend on its batch. Row 0 is the
lowest frequency. Frame t is centred on sample ``t * hop_length`` of the clip, zeros around it, and
T = 1 + N // hop_length: representations differ in F only.

Sources: Slaney, "Auditory Toolbox" (1998), for the mel scale; Brown and Puckette, "An efficient
algorithm for the calculation of a constant Q transform" (1992); Slaney, "An efficient
implementation of the Patterson-Holdsworth auditory filter bank" (1993); Ellis, "Gammatone-like
spectrograms" (2009).
"""

from collections.abc import Mapping
from functools import lru_cache
from itertools import count
from numbers import Integral

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionkd_lib.errors import InputError
from fusionkd_lib.filters import (
    constant_q,
    constant_q_gains,
    decay_rates,
    erb_frequencies,
    gammatone_response,
    mel_edges,
    mel_weights,
)

NAMES = ("stft", "logmel", "cqt", "gammatone")
POWER_FLOOR = 1e-10
# So many bins of its own transform away, a Hann window leaks 1e-5 (-100 dB) of its peak.
WINDOW_REACH = 32


class Representation(nn.Module):
    """What every representation has: a rate, a hop, an axis of frequencies, a unit.

    Parameters
    ----------
    sample_rate
        Samples per second of the waveforms.
    hop_length
        Samples from one frame to the next.
    frequencies
        (F,) centre of each row in Hz, ascending.
    """

    def __init__(self, *, sample_rate: int, hop_length: int, frequencies: np.ndarray):
        super().__init__()
        _check_counts(sample_rate=sample_rate, hop_length=hop_length)
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        self.frequencies = frequencies

    @property
    def n_bins(self) -> int:
        """Number of rows F."""
        return len(self.frequencies)

    def power(self, waveforms: Tensor) -> Tensor:
        """Return the power (B, F, T) of float32 waveforms (B, N)."""
        raise NotImplementedError

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return the spectrograms (B, 1, F, T), float32 in dB, of waveforms (B, N).

        Raises
        ------
        InputError
            If the waveforms are not a batch (B, N) of floating-point samples, or are empty.
        """
        return _decibels(self.power(_checked(waveforms)))


class Stft(Representation):
    """Power spectrum under a Hann window: F = n_fft / 2 + 1. Log-mel and gammatone build on it.

    Parameters
    ----------
    sample_rate, hop_length
        See `Representation`.
    n_fft
        Samples in the window and in the transform; even.

    Raises
    ------
    InputError
        If a parameter is out of range.
    """

    def __init__(self, *, sample_rate: int, hop_length: int = 512, n_fft: int = 1024):
        _check_counts(sample_rate=sample_rate, n_fft=n_fft)
        if n_fft % 2:
            raise InputError(f"n_fft={n_fft} must be even, so that every frame has a centre.")
        frequencies = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
        super().__init__(sample_rate=sample_rate, hop_length=hop_length, frequencies=frequencies)
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def stft_power(self, waveforms: Tensor) -> Tensor:
        """Return the squared STFT magnitudes (B, n_fft / 2 + 1, T) of float32 waveforms (B, N)."""
        spectrum = torch.stft(
            waveforms,
            self.n_fft,
            hop_length=self.hop_length,
            window=self.window,
            pad_mode="constant",
            return_complex=True,
        )
        return spectrum.real.square() + spectrum.imag.square()

    def from_stft_power(self, stft_power: Tensor) -> Tensor:
        """Return the power (B, F, T) of this representation's rows, given `stft_power`."""
        return stft_power

    def power(self, waveforms: Tensor) -> Tensor:
        """Return the power (B, F, T) of float32 waveforms (B, N)."""
        return self.from_stft_power(self.stft_power(waveforms))


class LogMel(Stft):
    """Power in triangular bands of unit area on Slaney's mel scale.

    A band that falls between two bins of the STFT is silent, as it is in librosa.

    Parameters
    ----------
    sample_rate, hop_length, n_fft
        See `Stft`.
    n_mels
        Number of bands F.
    fmin, fmax
        Where the first band begins and the last one ends, in Hz; None is the Nyquist frequency.

    Raises
    ------
    InputError
        If a parameter is out of range.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        hop_length: int = 512,
        n_fft: int = 1024,
        n_mels: int = 128,
        fmin: float = 20.0,
        fmax: float | None = None,
    ):
        super().__init__(sample_rate=sample_rate, hop_length=hop_length, n_fft=n_fft)
        _check_counts(n_mels=n_mels)
        edges = mel_edges(n_mels, fmin=fmin, fmax=_checked_fmax(fmin, fmax, sample_rate))
        weights = torch.from_numpy(mel_weights(self.frequencies, edges=edges)).float()
        self.register_buffer("weights", weights, persistent=False)
        self.frequencies = edges[1:-1]

    def from_stft_power(self, stft_power: Tensor) -> Tensor:
        """Return the power (B, n_mels, T) in the bands, given the STFT's."""
        return _product(self.weights, stft_power)


class Gammatone(Stft):
    """STFT magnitudes over n_fft, summed under the gains of gammatone filters, and squared.

    Parameters
    ----------
    sample_rate, hop_length, n_fft
        See `Stft`.
    n_bands
        Number of filters F, equally spaced on the scale of equivalent rectangular bandwidths.
    fmin, fmax
        Centre of the lowest filter and end of the scale in Hz; None is the Nyquist frequency.

    Raises
    ------
    InputError
        If a parameter is out of range.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        hop_length: int = 512,
        n_fft: int = 1024,
        n_bands: int = 128,
        fmin: float = 20.0,
        fmax: float | None = None,
    ):
        super().__init__(sample_rate=sample_rate, hop_length=hop_length, n_fft=n_fft)
        _check_counts(gammatone_bands=n_bands)
        fmax = _checked_fmax(fmin, fmax, sample_rate)
        centres = erb_frequencies(n_bands, fmin=fmin, fmax=fmax)
        gains = gammatone_response(self.frequencies, centres=centres, sample_rate=sample_rate)
        weights = torch.from_numpy(np.abs(gains) / n_fft).float()
        self.register_buffer("weights", weights, persistent=False)
        self.frequencies = centres

    def from_stft_power(self, stft_power: Tensor) -> Tensor:
        """Return the square (B, n_bands, T) of the weighted magnitudes, given the STFT's power."""
        return _product(self.weights, stft_power.sqrt()).square()


class GammatoneFilterbank(Representation):
    """Mean power of every gammatone filter's output over n_fft samples: the slow reference.

    Parameters and errors are those of `Gammatone`. The filters are applied as products of spectra;
    their F x N complex gains are kept for the latest N.
    """

    def __init__(
        self, *, sample_rate: int, hop_length: int = 512, n_fft: int = 1024, **bands: float
    ):
        timing = {"sample_rate": sample_rate, "hop_length": hop_length}
        fast = Gammatone(**timing, n_fft=n_fft, **bands)
        super().__init__(**timing, frequencies=fast.frequencies)
        self.n_fft = n_fft

    def power(self, waveforms: Tensor) -> Tensor:
        """Return the power (B, n_bands, T) of float32 waveforms (B, N)."""
        n_samples = waveforms.shape[-1] + self.n_fft // 2
        # t^3 exp(-bt) is below 1e-6 of its peak at bt = 25: what wraps around cannot be heard.
        ringing = int(25 / decay_rates(self.frequencies).min() * self.sample_rate)
        responses = _filter_responses(
            tuple(self.frequencies),
            self.sample_rate,
            _smooth_size(n_samples + ringing, multiple_of=2),
            waveforms.device,
        )
        spectra = torch.fft.rfft(waveforms, 2 * (responses.shape[-1] - 1))
        # One filter at a time: the outputs of all of them hold F times the batch.
        return torch.stack([self._frames(spectra * r, n_samples) for r in responses], dim=1)

    def _frames(self, spectra: Tensor, n_samples: int) -> Tensor:
        squares = torch.fft.irfft(spectra)[:, :n_samples].square()
        squares = F.pad(squares, (self.n_fft // 2, 0))
        return F.avg_pool1d(squares, self.n_fft, self.hop_length)


class ConstantQ(Representation):
    """Constant-Q transform: bins at equal musical intervals, all of the same number of cycles.

    Bin k correlates the clip's positive frequencies with an exponential at f_k under a Hann window
    of Q / f_k seconds, L samples, with gain 2 / sqrt(L). That is librosa's ``cqt`` without its
    resampling of octaves. Tables of a few times the size of a clip are kept for the latest N.

    Parameters
    ----------
    sample_rate, hop_length
        See `Representation`.
    n_bins
        Number of bins F.
    bins_per_octave
        Bins from a frequency to its double.
    fmin
        Frequency of the lowest bin in Hz; 32.703 is the note C1.

    Raises
    ------
    InputError
        If a parameter is out of range, such as a bin that passes the Nyquist frequency.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        hop_length: int = 512,
        n_bins: int = 84,
        bins_per_octave: int = 12,
        fmin: float = 32.703,
    ):
        _check_counts(sample_rate=sample_rate, cqt_bins=n_bins, bins_per_octave=bins_per_octave)
        _check_top_bin(n_bins, bins_per_octave, fmin, nyquist=sample_rate / 2)
        frequencies = fmin * 2.0 ** (np.arange(n_bins) / bins_per_octave)
        super().__init__(sample_rate=sample_rate, hop_length=hop_length, frequencies=frequencies)
        self.bins_per_octave = bins_per_octave

    def power(self, waveforms: Tensor) -> Tensor:
        """Return the power (B, n_bins, T) of float32 waveforms (B, N).

        A bin is the product of the clip's spectrum and the window's around f_k. To read it once a
        hop, the product is folded to ``n_columns`` frequencies, its rows summed, before it is
        transformed back. For an octave of bins that is one product of matrices a column.
        """
        rate, hop_length = self.sample_rate, self.hop_length
        n_frames = 1 + waveforms.shape[-1] // hop_length
        half_window = constant_q(self.bins_per_octave) / self.frequencies[0] * rate / 2
        # Room for half of the longest window, because the transform is periodic.
        n_columns = _smooth_size(n_frames + int(half_window / hop_length) + 1)
        bins = (tuple(self.frequencies), self.bins_per_octave)
        tables = _octave_tables(*bins, rate, hop_length, n_columns, waveforms.device)
        spectra = torch.fft.rfft(waveforms, n_columns * hop_length)
        rows = _in_rows(spectra, n_rows=tables[-1].shape[1], n_columns=n_columns)
        folded = torch.cat([_product(rows[..., : t.shape[1]], t) for t in tables], dim=-1)
        folded = folded.unflatten(1, (-1, 2)).permute(1, 3, 0, 2)  # (B, F, n_columns, 2)
        frames = torch.fft.ifft(torch.view_as_complex(folded.contiguous()))[..., :n_frames]
        return frames.real.square() + frames.imag.square()


def build(
    name: str,
    *,
    sample_rate: int,
    hop_length: int = 512,
    n_fft: int = 1024,
    n_mels: int = 128,
    fmin: float = 20.0,
    fmax: float | None = None,
    cqt_bins: int = 84,
    bins_per_octave: int = 12,
    cqt_fmin: float = 32.703,
    gammatone_bands: int = 128,
    gammatone_method: str = "fft",
) -> Representation:
    """Return the representation of that name, with the settings of a parameter file.

    Parameters
    ----------
    name
        ``"stft"``, ``"logmel"``, ``"cqt"`` or ``"gammatone"``.
    sample_rate, hop_length, n_fft, n_mels, fmin, fmax
        See `Stft` and `LogMel`; ``fmin`` and ``fmax`` in Hz are also those of `Gammatone`.
    cqt_bins, bins_per_octave, cqt_fmin
        See `ConstantQ`: number of bins, bins from a frequency to its double, lowest bin in Hz.
    gammatone_bands, gammatone_method
        Number of filters; ``"fft"`` for `Gammatone`, ``"filterbank"`` for `GammatoneFilterbank`.

    Raises
    ------
    InputError
        If the name, the method or a parameter of the representation cannot be used.
    """
    timing = {"sample_rate": sample_rate, "hop_length": hop_length}
    bands = {**timing, "n_fft": n_fft, "fmin": fmin, "fmax": fmax}
    match name, gammatone_method:
        case "stft", _:
            return Stft(**timing, n_fft=n_fft)
        case "logmel", _:
            return LogMel(**bands, n_mels=n_mels)
        case "cqt", _:
            return ConstantQ(
                **timing, n_bins=cqt_bins, bins_per_octave=bins_per_octave, fmin=cqt_fmin
            )
        case "gammatone", "fft":
            return Gammatone(**bands, n_bands=gammatone_bands)
        case "gammatone", "filterbank":
            return GammatoneFilterbank(**bands, n_bands=gammatone_bands)
        case "gammatone", _:
            raise InputError(
                f"gammatone_method={gammatone_method!r} must be 'fft' or 'filterbank'."
            )
    raise InputError(f"representation {name!r} must be one of {', '.join(NAMES)}.")


def compute(representations: Mapping[str, nn.Module], waveforms: Tensor) -> dict[str, Tensor]:
    """Return every representation of waveforms (B, N), each STFT computed once.

    Parameters
    ----------
    representations
        Modules (B, N) -> (B, 1, F, T) by name.
    waveforms
        (B, N) floating-point samples in [-1, 1].

    Returns
    -------
    dict
        Spectrograms (B, 1, F, T) in dB under the same names.

    Raises
    ------
    InputError
        If the waveforms are not a batch (B, N) of floating-point samples, or are empty.
    """
    waveforms = _checked(waveforms)
    stft_powers: dict[tuple[int, int], Tensor] = {}
    spectrograms = {}
    for name, representation in representations.items():
        if not isinstance(representation, Stft):
            spectrograms[name] = representation(waveforms)
            continue
        key = (representation.n_fft, representation.hop_length)
        if key not in stft_powers:
            stft_powers[key] = representation.stft_power(waveforms)
        spectrograms[name] = _decibels(representation.from_stft_power(stft_powers[key]))
    return spectrograms


@lru_cache(maxsize=1)
def _filter_responses(
    centres: tuple[float, ...], sample_rate: int, size: int, device: torch.device
) -> Tensor:
    """Return the gammatone responses (F, size / 2 + 1) at a transform's frequencies."""
    frequencies = np.arange(size // 2 + 1) * sample_rate / size
    # Filter by filter, because numpy's double precision for all of them takes gigabytes.
    rows = [
        gammatone_response(frequencies, centres=np.array([centre]), sample_rate=sample_rate)
        for centre in centres
    ]
    return torch.stack([torch.from_numpy(row[0]).to(torch.complex64) for row in rows]).to(device)


@lru_cache(maxsize=16)
def _octave_tables(
    frequencies: tuple[float, ...],
    bins_per_octave: int,
    sample_rate: int,
    hop_length: int,
    n_columns: int,
    device: torch.device,
) -> list[Tensor]:
    """Return for each octave the gains (n_columns, n_rows, bins) on a transform in rows."""
    quality = constant_q(bins_per_octave)
    spacing = sample_rate / (hop_length * n_columns)
    tables = []
    for first in range(0, len(frequencies), bins_per_octave):
        centres = np.array(frequencies[first : first + bins_per_octave])
        top = min(centres[-1] * (1 + WINDOW_REACH / quality), sample_rate / 2)
        n_rows = int(np.ceil(top / spacing / n_columns))
        grid = spacing * np.arange(n_rows * n_columns).reshape(n_rows, n_columns).T
        gains = constant_q_gains(
            grid[..., None], centres=centres, quality=quality, sample_rate=sample_rate
        )
        gains = gains / hop_length
        tables.append(torch.from_numpy(gains).to(device, torch.float32))
    return tables


def _in_rows(spectra: Tensor, *, n_rows: int, n_columns: int) -> Tensor:
    """Return (n_columns, 2 B, n_rows) from spectra (B, frequencies): real, imaginary by clip."""
    size = n_rows * n_columns
    # The last row can end above the Nyquist frequency, where there is nothing.
    spectra = F.pad(spectra[:, :size], (0, max(0, size - spectra.shape[-1])))
    parts = torch.view_as_real(spectra.contiguous()).unflatten(1, (n_rows, n_columns))
    return parts.permute(2, 0, 3, 1).reshape(n_columns, -1, n_rows)


def _product(left: Tensor, right: Tensor) -> Tensor:
    # Mixed precision around a model would round a level here by hundredths of a dB and more.
    with torch.autocast(left.device.type, enabled=False):
        return left @ right


def _decibels(power: Tensor) -> Tensor:
    return 10 * torch.log10(power.clamp(min=POWER_FLOOR)).unsqueeze(1).contiguous()


def _smooth_size(minimum: int, *, multiple_of: int = 1) -> int:
    """Return the next size whose prime factors are 2, 3 and 5: FFTs of it are fast."""
    first = -(-minimum // multiple_of)
    return multiple_of * next(n for n in count(first) if 30 ** n.bit_length() % n == 0)


def _checked(waveforms: Tensor) -> Tensor:
    if waveforms.ndim != 2 or not waveforms.numel() or not waveforms.is_floating_point():
        raise InputError(
            f"waveforms of shape {tuple(waveforms.shape)} and type {waveforms.dtype} must be a "
            "non-empty batch (B, N) of floating-point samples."
        )
    return waveforms.float()


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name}={value!r} must be a whole number, 1 or more.")


def _checked_fmax(fmin: float, fmax: float | None, sample_rate: int) -> float:
    nyquist = sample_rate / 2
    fmax = nyquist if fmax is None else fmax
    if not 0 < fmax <= nyquist:
        raise InputError(
            f"fmax={fmax:g} must lie above 0 Hz and not above the Nyquist frequency {nyquist:g} Hz."
        )
    if not 0 <= fmin < fmax:
        raise InputError(f"fmin={fmin:g} must lie in [0, fmax), and fmax is {fmax:g} Hz.")
    return fmax


def _check_top_bin(n_bins: int, bins_per_octave: int, fmin: float, *, nyquist: float) -> None:
    # A Hann window is 1.5 bins of its transform wide; half of that is above the centre.
    edge = 1 + 0.75 / constant_q(bins_per_octave)
    if not 0 < fmin * edge <= nyquist:
        raise InputError(f"cqt_fmin={fmin:g} must lie between 0 and {nyquist / edge:g} Hz.")
    most = 1 + int(bins_per_octave * np.log2(nyquist / (fmin * edge)))
    if n_bins > most:
        top = fmin * 2 ** ((n_bins - 1) / bins_per_octave)
        raise InputError(
            f"cqt_bins={n_bins} from {fmin:g} Hz, {bins_per_octave} per octave, ends at {top:.0f} "
            f"Hz and reaches to {top * edge:.0f} Hz, above the Nyquist frequency {nyquist:g} Hz of "
            f"sample_rate={2 * nyquist:g}; use at most {most}."
        )
