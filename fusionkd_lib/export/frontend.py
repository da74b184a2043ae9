"""The way from a waveform to spectrograms in products of matrices, as every device computes them.

ONNX has an operator for the STFT, which ONNX Runtime computes hundreds of times slower than torch.
One product with the whole Fourier matrix would hold n_fft^2 constants and more arithmetic than the
network. In two stages (Cooley and Tukey 1965), n_fft = a b, it is two small ones: of 1,024 samples,
with a = b = 32, they and the twiddle factors hold 25 KB.

Waveforms are (B, N), frames (B, T, ...), powers (B, F, T).
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionkd_lib.errors import InputError
from fusionkd_lib.features import ClipFormat
from fusionkd_lib.representations.base import Representation, decibels
from fusionkd_lib.representations.stft import Stft


class FrontEnd(nn.Module):
    """Waveforms (B, N) -> spectrograms (B, 1, F, T) in dB by name, each STFT computed once.

    A waveform shorter than the window is padded as the run padded its clips; of a longer one there
    are more frames.

    Parameters
    ----------
    representations
        By name, from `features.build_representations`.
    clip_format
        What a run brought its clips to.

    Raises
    ------
    InputError
        Where a representation is not summed from an STFT.
    """

    def __init__(
        self, representations: Mapping[str, Representation], clip_format: ClipFormat
    ) -> None:
        super().__init__()
        self.representations = nn.ModuleDict(representations)
        self.clip_format = clip_format
        self.stfts = nn.ModuleDict()
        for name, representation in representations.items():
            if not isinstance(representation, Stft):
                raise InputError(f"{name}: cannot be exported: use one that sums an STFT")
            self.stfts[str(representation.n_fft)] = TwoStageStft(representation)

    def forward(self, waveforms: Tensor) -> dict[str, Tensor]:
        """(B, N) -> (B, 1, F, T) by name."""
        pads_waveform = self.clip_format.pad == "waveform"
        if pads_waveform:
            waveforms = at_least(waveforms, self.clip_format.n_samples)
        powers = {key: stft(waveforms) for key, stft in self.stfts.items()}
        spectrograms = {}
        for name, representation in self.representations.items():
            power = representation.from_stft_power(powers[str(representation.n_fft)])
            x = decibels(power)  # (B, 1, F, T)
            spectrograms[name] = x if pads_waveform else at_least(x, self.clip_format.n_frames)
        return spectrograms


def at_least(x: Tensor, length: int) -> Tensor:
    """Pad the last axis with zeros where it is shorter, whatever length it will have."""
    missing = torch.as_tensor(length - x.shape[-1]).clamp(min=0)
    return F.pad(x, (0, missing))


class TwoStageStft(nn.Module):
    """`Stft.stft_power` by two products of matrices.

    With n = b n1 + n2 and k = k1 + a k2, the sum over n of x[n] exp(-2 pi i n k / (a b)) is a
    transform of length a over n1, a twiddle factor exp(-2 pi i n2 k1 / (a b)), and a transform of
    length b over n2. The samples are real, so that k1 up to a / 2 are enough: frequency k and
    n_fft - k have the same power.

    Parameters
    ----------
    stft
        Whose window, n_fft and hop_length are taken.
    """

    def __init__(self, stft: Stft) -> None:
        super().__init__()
        self.n_fft, self.hop_length = stft.n_fft, stft.hop_length
        # The factors are as near to each other as can be.
        a = next(n for n in range(math.isqrt(self.n_fft), 0, -1) if self.n_fft % n == 0)
        b = self.n_fft // a
        k1, k2 = np.arange(a // 2 + 1), np.arange(b)
        first, twiddle, second = (
            np.exp(-2j * np.pi * np.outer(k, n) / size)
            for k, n, size in ((k1, np.arange(a), a), (k1, k2, a * b), (k2, k2, b))
        )
        both = np.block([[second.real, second.imag], [-second.imag, second.real]])
        k = np.add.outer(k1, a * k2).ravel()
        order = [np.flatnonzero(np.minimum(k, a * b - k) == n)[0] for n in range(a * b // 2 + 1)]
        tables = {"first": np.concatenate([first.real, first.imag]), "second": both}
        tables |= {"cosines": twiddle.real, "sines": twiddle.imag}
        for name, values in tables.items():
            self.register_buffer(name, torch.from_numpy(values).float())
        self.register_buffer("order", torch.from_numpy(np.array(order)))
        self.register_buffer("window", stft.window.reshape(a, b))

    def forward(self, waveforms: Tensor) -> Tensor:
        """(B, N) -> (B, n_fft / 2 + 1, T)."""
        n = self.cosines.shape[0]
        x = self.first @ (self.frames(waveforms) * self.window)  # (B, T, a + 2, b)
        real, imaginary = x[:, :, :n], x[:, :, n:]
        turned = (
            real * self.cosines - imaginary * self.sines,
            real * self.sines + imaginary * self.cosines,
        )
        x = torch.cat(turned, dim=-1) @ self.second  # (B, T, a / 2 + 1, 2 b)
        real, imaginary = x.square().chunk(2, dim=-1)
        return (real + imaginary).flatten(2)[..., self.order].transpose(1, 2)

    def frames(self, waveforms: Tensor) -> Tensor:
        """(B, N) -> (B, T, a, b): frame t is centred on sample t * hop_length."""
        n_frames = 1 + waveforms.shape[-1] // self.hop_length
        half, step = self.n_fft // 2, math.gcd(self.n_fft, self.hop_length)
        n_samples = (n_frames - 1) * self.hop_length + self.n_fft
        blocks = F.pad(waveforms, (half, half))[:, :n_samples].unflatten(1, (-1, step))
        first = torch.arange(n_frames) * (self.hop_length // step)
        rows = first[:, None] + torch.arange(self.n_fft // step)  # (T, blocks of a frame)
        return blocks[:, rows].flatten(2).unflatten(2, self.window.shape)
