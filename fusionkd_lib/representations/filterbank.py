"""Gammatone filters in the time domain: the slow reference of the fast gammatone.

Source: Slaney, "An efficient implementation of the Patterson-Holdsworth auditory filter bank"
(1993).
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fusionkd_lib.filters import decay_rates, gammatone_response
from fusionkd_lib.representations.base import Representation, smooth_size
from fusionkd_lib.representations.stft import Gammatone


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
            smooth_size(n_samples + ringing, multiple_of=2),
            waveforms.device,
        )
        spectra = torch.fft.rfft(waveforms, 2 * (responses.shape[-1] - 1))
        # One filter at a time: the outputs of all of them hold F times the batch.
        return torch.stack([self._frames(spectra * r, n_samples) for r in responses], dim=1)

    def _frames(self, spectra: Tensor, n_samples: int) -> Tensor:
        squares = torch.fft.irfft(spectra)[:, :n_samples].square()
        squares = F.pad(squares, (self.n_fft // 2, 0))
        return F.avg_pool1d(squares, self.n_fft, self.hop_length)


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
