"""The way from a waveform to spectrograms in products of matrices, as every device computes them.

ONNX has an operator for the STFT, which ONNX Runtime computes hundreds of times slower than torch.
One product with the whole Fourier matrix would hold n_fft^2 constants and more arithmetic than the
network. In two stages (Cooley and Tukey 1965), n_fft = a b, it is two small ones: of 1,024 samples,
with a = b = 32, they and the twiddle factors hold 25 KB.

Waveforms are (B, N), frames (B, T, ...), powers (B, F, T).
"""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionkd_lib import representations
from fusionkd_lib.errors import InputError
from fusionkd_lib.features import ClipFormat
from fusionkd_lib.representations import LogMel, Stft


class FrontEnd(nn.Module):
    """Waveforms (B, N) -> spectrograms (B, 1, F, T) in dB by name, each STFT computed once.

    A waveform shorter than the window is padded as the run padded its clips; of a longer one there
    are more frames.

    Parameters
    ----------
    modules
        By name, from `features.build_representations`.
    clip_format
        What a run brought its clips to.

    Raises
    ------
    InputError
        Where a representation is not summed from an STFT.
    """

    def __init__(self, modules: Mapping[str, nn.Module], clip_format: ClipFormat) -> None:
        super().__init__()
        self.form, self.representations = clip_format, nn.ModuleDict(copy.deepcopy(modules))
        for name, representation in self.representations.items():
            if not isinstance(representation, Stft):
                raise InputError(f"{name}: cannot be exported: use a branch that sums an STFT")
            representation.stft_power = TwoStageStft(representation).power

    def forward(self, waveforms: Tensor) -> dict[str, Tensor]:
        """(B, N) -> (B, 1, F, T) by name."""
        for mel in filter(lambda module: isinstance(module, LogMel), self.representations.values()):
            mel.weights = from_places(mel.weights.numpy(), 0 * waveforms.shape[0])
        if self.form.pad == "waveform":
            waveforms = lengthened(waveforms, self.form.n_samples - waveforms.shape[-1])
        spectrograms = representations.compute(self.representations, waveforms)
        missing = self.form.n_frames - 1 - waveforms.shape[-1] // self.form.hop_length
        return {name: lengthened(x, missing) for name, x in spectrograms.items()}


def from_places(weights: np.ndarray, none: int) -> Tensor:
    """Return weights, mostly zeros, made from those that are not: a file then holds these alone.

    The size depends on `none`, which is 0 whatever the input: of constants alone, the exporter
    would compute the weights and store them.
    """
    places = torch.from_numpy(np.flatnonzero(weights))
    values = torch.from_numpy(weights[weights != 0])
    return torch.zeros(weights.size + none).scatter(0, places, values).view(*weights.shape)


def lengthened(x: Tensor, missing: int) -> Tensor:
    """Put zeros at the end of the last axis where some are missing, whatever its length will be."""
    return F.pad(x, (0, torch.as_tensor(missing).clamp(min=0)))


class TwoStageStft:
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
        self.n_fft, self.hop_length = stft.n_fft, stft.hop_length
        # The factors are as near to each other as can be.
        a = next(n for n in range(int(self.n_fft**0.5), 0, -1) if self.n_fft % n == 0)
        b = self.n_fft // a
        k1, n2 = np.arange(a // 2 + 1), np.arange(b)
        self.first = torch.cat(fourier(k1, np.arange(a), a))
        self.cosines, self.sines = fourier(k1, n2, a * b)
        real, imaginary = fourier(n2, n2, b)
        self.second = torch.cat([real, imaginary], 1), torch.cat([-imaginary, real], 1)
        k = np.add.outer(k1, a * n2).ravel()
        self.order = np.unique(np.minimum(k, a * b - k), return_index=True)[1]
        self.window = stft.window.reshape(a, b)

    def power(self, waveforms: Tensor) -> Tensor:
        """(B, N) -> (B, n_fft / 2 + 1, T)."""
        x = self.first @ (self.frames(waveforms) * self.window)  # (B, T, a + 2, b)
        real, imaginary = x.chunk(2, dim=2)
        x = (real * self.cosines - imaginary * self.sines) @ self.second[0]
        x = x + (real * self.sines + imaginary * self.cosines) @ self.second[1]
        # (B, T, a / 2 + 1, 2 b)
        real, imaginary = x.square().chunk(2, dim=-1)
        return (real + imaginary).flatten(2)[..., self.order].transpose(1, 2)

    def frames(self, waveforms: Tensor) -> Tensor:
        """(B, N) -> (B, T, a, b): frame t is centred on sample t * hop_length."""
        n_frames = 1 + waveforms.shape[-1] // self.hop_length
        half, step = self.n_fft // 2, int(np.gcd(self.n_fft, self.hop_length))
        n_samples = (n_frames - 1) * self.hop_length + self.n_fft
        blocks = F.pad(waveforms, (half, half))[:, :n_samples].unflatten(1, (-1, step))
        first = torch.arange(n_frames) * (self.hop_length // step)
        rows = first[:, None] + torch.arange(self.n_fft // step)  # (T, blocks of a frame)
        return blocks[:, rows].flatten(2).unflatten(2, self.window.shape)


def fourier(k: np.ndarray, n: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
    """Return the real and the imaginary part of exp(-2 pi i k n / size), each (k, n)."""
    values = np.exp(-2j * np.pi * np.outer(k, n) / size)
    return torch.from_numpy(values.real).float(), torch.from_numpy(values.imag).float()
