"""What representations share: waveforms (B, N) -> spectrograms (B, 1, F, T) in absolute dB."""

import numpy as np
import torch
from torch import Tensor, nn

from fusionkd_lib.errors import InputError, check_counts

POWER_FLOOR = 1e-10


class Representation(nn.Module):
    """Base of every representation, which adds `power`.

    Parameters
    ----------
    sample_rate
        Samples per second of the waveforms.
    hop_length
        Samples from one frame to the next.
    frequencies
        (F,) centre of each row in Hz, ascending.

    Examples
    --------
    >>> class Loudness(Representation):
    ...     def power(self, waveforms):
    ...         frames = waveforms.unfold(-1, self.hop_length, self.hop_length)  # (B, T, hop)
    ...         return frames.square().mean(dim=-1).unsqueeze(1)  # (B, 1, T)
    >>> loudness = Loudness(sample_rate=8000, hop_length=4, frequencies=np.array([2000.0]))
    >>> loudness(torch.tensor([[1.0, -1.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0]]))
    tensor([[[[   0., -100.]]]])
    """

    def __init__(self, *, sample_rate: int, hop_length: int, frequencies: np.ndarray):
        super().__init__()
        check_counts(sample_rate=sample_rate, hop_length=hop_length)
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        self.frequencies = frequencies

    @property
    def n_bins(self) -> int:
        """The number of rows F."""
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
        return decibels(self.power(checked(waveforms)))


def product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply matrices in their own precision, also under autocast."""
    # Under mixed precision a level would be off by hundredths of a decibel and more.
    with torch.autocast(left.device.type, enabled=False):
        return left @ right


def decibels(power: Tensor) -> Tensor:
    """Convert power (B, F, T) to decibels (B, 1, F, T), -100 at the least.

    Examples
    --------
    >>> decibels(torch.tensor([[[1.0, 0.01, 0.0]]]))
    tensor([[[[   0.,  -20., -100.]]]])
    """
    return 10 * torch.log10(power.clamp(min=POWER_FLOOR)).unsqueeze(1).contiguous()


def checked(waveforms: Tensor) -> Tensor:
    """Return waveforms as float32; refuse anything but a batch of them."""
    if waveforms.ndim != 2 or not waveforms.numel() or not waveforms.is_floating_point():
        fault = f"waveforms of shape {tuple(waveforms.shape)} and type {waveforms.dtype}"
        raise InputError(f"{fault}: must be a non-empty batch (B, N) of floating-point samples")
    return waveforms.float()


def checked_fmax(fmin: float, fmax: float | None, sample_rate: int) -> float:
    """Return the upper end of a range in Hz, by default Nyquist; refuse an impossible range."""
    nyquist = sample_rate / 2
    fmax = nyquist if fmax is None else fmax
    if not 0 <= fmin < fmax <= nyquist:
        allowed = f"0 <= fmin < fmax <= {nyquist:g} Hz, the Nyquist frequency"
        raise InputError(f"fmin={fmin:g} and fmax={fmax:g}: must satisfy {allowed}")
    return fmax
