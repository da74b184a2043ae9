"""The STFT and the representations summed from it: log-mel and gammatone.

Sources: Slaney, "Auditory Toolbox" (1998), for the mel scale; Ellis, "Gammatone-like spectrograms"
(2009).
"""

import numpy as np
import torch
from torch import Tensor

from fusionkd_lib.errors import InputError, check_counts
from fusionkd_lib.filters import erb_frequencies, gammatone_response, mel_edges, mel_weights
from fusionkd_lib.representations.base import Representation, checked_fmax, product


class Stft(Representation):
    """Power spectrum under a Hann window, F = n_fft / 2 + 1; log-mel and gammatone build on it.

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

    Examples
    --------
    >>> stft = Stft(sample_rate=8000, hop_length=256, n_fft=512)
    >>> spectrogram = stft(torch.sin(2 * torch.pi * 1000 / 8000 * torch.arange(8000.0))[None])
    >>> spectrogram.shape
    torch.Size([1, 1, 257, 32])
    >>> stft.frequencies[spectrogram[0, 0, :, 16].argmax()].item()
    1000.0
    """

    def __init__(self, *, sample_rate: int, hop_length: int = 512, n_fft: int = 1024):
        check_counts(sample_rate=sample_rate, n_fft=n_fft)
        if n_fft % 2:
            raise InputError(f"n_fft={n_fft}: must be even, so that every frame has a centre")
        frequencies = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
        super().__init__(sample_rate=sample_rate, hop_length=hop_length, frequencies=frequencies)
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def stft_power(self, waveforms: Tensor) -> Tensor:
        """Return the squared STFT magnitudes (B, n_fft / 2 + 1, T) of float32 waveforms (B, N)."""
        frames = {"hop_length": self.hop_length, "window": self.window, "return_complex": True}
        spectrum = torch.stft(waveforms, self.n_fft, pad_mode="constant", **frames)
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
        Lower end of the first band and upper end of the last, in Hz; None is the Nyquist frequency.

    Raises
    ------
    InputError
        If a parameter is out of range.

    Examples
    --------
    >>> logmel = LogMel(sample_rate=16000, n_mels=64)
    >>> tone = torch.sin(2 * torch.pi * 1000 / 16000 * torch.arange(16000.0))[None]
    >>> logmel(tone).shape
    torch.Size([1, 1, 64, 32])
    >>> round((logmel(tone) - logmel(0.1 * tone)).max().item())  # dB
    20
    """

    def __init__(
        self, *, n_mels: int = 128, fmin: float = 20.0, fmax: float | None = None, **stft: int
    ):
        super().__init__(**stft)
        check_counts(n_mels=n_mels)
        edges = mel_edges(n_mels, fmin=fmin, fmax=checked_fmax(fmin, fmax, self.sample_rate))
        weights = torch.from_numpy(mel_weights(self.frequencies, edges=edges)).float()
        self.register_buffer("weights", weights, persistent=False)
        self.frequencies = edges[1:-1]

    def from_stft_power(self, stft_power: Tensor) -> Tensor:
        """Return the power (B, n_mels, T) in the bands, given the STFT's."""
        return product(self.weights, stft_power)


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

    Examples
    --------
    >>> gammatone = Gammatone(sample_rate=16000, n_bands=64, fmin=50.0)
    >>> gammatone(torch.zeros(1, 16000)).shape
    torch.Size([1, 1, 64, 32])
    >>> gammatone.frequencies[0].round(6).item()
    50.0
    """

    def __init__(
        self, *, n_bands: int = 128, fmin: float = 20.0, fmax: float | None = None, **stft: int
    ):
        super().__init__(**stft)
        check_counts(gammatone_bands=n_bands)
        rate = self.sample_rate
        centres = erb_frequencies(n_bands, fmin=fmin, fmax=checked_fmax(fmin, fmax, rate))
        gains = gammatone_response(self.frequencies, centres=centres, rate=rate)
        weights = torch.from_numpy(np.abs(gains) / self.n_fft).float()
        self.register_buffer("weights", weights, persistent=False)
        self.frequencies = centres

    def from_stft_power(self, stft_power: Tensor) -> Tensor:
        """Return the square (B, n_bands, T) of the weighted magnitudes, given the STFT's power."""
        return product(self.weights, stft_power.sqrt()).square()
