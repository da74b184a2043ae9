"""The constant-Q transform, read off one Fourier transform of the whole clip.

Source: Brown and Puckette, "An efficient algorithm for the calculation of a constant Q transform"
(1992).
"""

from functools import lru_cache

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional as F

from fusionkd_lib.errors import InputError, check_counts
from fusionkd_lib.filters import constant_q, constant_q_gains
from fusionkd_lib.representations.base import Representation, product

# This many bins of its own transform from the centre, a Hann window leaks 1e-5 (-100 dB) of its
# peak.
WINDOW_REACH = 32


class ConstantQ(Representation):
    """Constant-Q transform: bins at equal musical intervals, each Q cycles long.

    Bin k correlates the clip's positive frequencies with an exponential at f_k under a Hann window
    of Q / f_k seconds, or L samples, with gain 2 / sqrt(L). That is librosa's ``cqt`` without its
    resampling of octaves. Tables of a few times a clip's size are kept for the latest lengths N.

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
        If a parameter is out of range, or a bin would pass the Nyquist frequency.

    Examples
    --------
    >>> cqt = ConstantQ(sample_rate=8000, n_bins=24, fmin=220.0)
    >>> spectrogram = cqt(torch.sin(2 * torch.pi * 440 / 8000 * torch.arange(8000.0))[None])
    >>> spectrogram.shape
    torch.Size([1, 1, 24, 16])
    >>> cqt.frequencies[spectrogram[0, 0, :, 8].argmax()].round(6).item()
    440.0
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
        check_counts(sample_rate=sample_rate, cqt_bins=n_bins, bins_per_octave=bins_per_octave)
        _check_top_bin(n_bins, bins_per_octave, fmin, nyquist=sample_rate / 2)
        frequencies = fmin * 2.0 ** (np.arange(n_bins) / bins_per_octave)
        super().__init__(sample_rate=sample_rate, hop_length=hop_length, frequencies=frequencies)
        self.bins_per_octave = bins_per_octave

    def power(self, waveforms: Tensor) -> Tensor:
        """Return the power (B, n_bins, T) of float32 waveforms (B, N).

        A bin is the product of the clip's spectrum and the window's spectrum around f_k. So that
        it is read once per hop, the product is folded to ``n_columns`` frequencies, its rows
        summed, before it is transformed back: one product of matrices per column and octave.
        """
        rate, hop_length = self.sample_rate, self.hop_length
        n_frames = 1 + waveforms.shape[-1] // hop_length
        half_window = constant_q(self.bins_per_octave) / self.frequencies[0] * rate / 2
        # Half of the longest window is added, because the transform is periodic.
        n_columns = next_fast_len(n_frames + int(half_window / hop_length) + 1, real=True)
        bins = (tuple(self.frequencies), self.bins_per_octave)
        tables = _octave_tables(bins, rate, hop_length, n_columns, waveforms.device)
        spectra = torch.fft.rfft(waveforms, n_columns * hop_length)
        rows = _in_rows(spectra, n_rows=tables[-1].shape[1], n_columns=n_columns)
        folded = torch.cat([product(rows[..., : t.shape[1]], t) for t in tables], dim=-1)
        folded = folded.unflatten(1, (-1, 2)).permute(1, 3, 0, 2)  # (B, F, n_columns, 2)
        frames = torch.fft.ifft(torch.view_as_complex(folded.contiguous()))[..., :n_frames]
        return frames.real.square() + frames.imag.square()


@lru_cache(maxsize=16)
def _octave_tables(
    bins: tuple[tuple[float, ...], int], rate: int, hop: int, n_columns: int, device: torch.device
) -> list[Tensor]:
    """Return the gains (n_columns, n_rows, bins) of each octave on a transform in rows."""
    frequencies, bins_per_octave = bins
    quality = constant_q(bins_per_octave)
    spacing = rate / (hop * n_columns)
    tables = []
    for first in range(0, len(frequencies), bins_per_octave):
        centres = np.array(frequencies[first : first + bins_per_octave])
        top = min(centres[-1] * (1 + WINDOW_REACH / quality), rate / 2)
        n_rows = int(np.ceil(top / spacing / n_columns))
        grid = spacing * np.arange(n_rows * n_columns).reshape(n_rows, n_columns).T[..., None]
        gains = constant_q_gains(grid, centres=centres, quality=quality, rate=rate)
        tables.append(torch.from_numpy(gains / hop).to(device, torch.float32))
    return tables


def _in_rows(spectra: Tensor, *, n_rows: int, n_columns: int) -> Tensor:
    """Fold spectra (B, frequencies) to (n_columns, 2 B, n_rows), real and imaginary per clip."""
    size = n_rows * n_columns
    # The last row may end above the Nyquist frequency, where the spectrum is zero.
    spectra = F.pad(spectra[:, :size], (0, max(0, size - spectra.shape[-1])))
    parts = torch.view_as_real(spectra.contiguous()).unflatten(1, (n_rows, n_columns))
    return parts.permute(2, 0, 3, 1).reshape(n_columns, -1, n_rows)


def _check_top_bin(n_bins: int, bins_per_octave: int, fmin: float, *, nyquist: float) -> None:
    # A Hann window is 1.5 bins of its transform wide, half of them above the centre.
    edge = 1 + 0.75 / constant_q(bins_per_octave)
    if not 0 < fmin * edge <= nyquist:
        raise InputError(f"cqt_fmin={fmin:g}: must lie between 0 and {nyquist / edge:g} Hz")
    most = 1 + int(bins_per_octave * np.log2(nyquist / (fmin * edge)))
    if n_bins > most:
        bins = f"from {fmin:g} Hz, {bins_per_octave} per octave, the last above"
        limit = f"the Nyquist frequency {nyquist:g} Hz of sample_rate={2 * nyquist:g}"
        raise InputError(f"cqt_bins={n_bins}: {bins} {limit}: use at most {most}")
