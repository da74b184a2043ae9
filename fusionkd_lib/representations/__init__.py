"""Waveforms to spectrograms: STFT, log-mel, constant-Q and gammatone, all on one time axis.

Waveforms (B, N) become spectrograms (B, 1, F, T) in dB: ``10 log10`` of a power floored at 1e-10,
hence -100 dB at the least, and absolute, so that a clip does not depend on its batch. Row 0 is the
lowest frequency. Frame t is centred on sample ``t * hop_length`` of the clip, zeros around it, and
T = 1 + N // hop_length: representations differ in F only.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from fusionkd_lib.errors import InputError
from fusionkd_lib.representations.base import Representation, checked, decibels
from fusionkd_lib.representations.constant_q import ConstantQ
from fusionkd_lib.representations.stft import Gammatone, LogMel, Stft

__all__ = [
    "NAMES",
    "ConstantQ",
    "Gammatone",
    "LogMel",
    "Representation",
    "Stft",
    "build",
    "compute",
]

NAMES = ("stft", "logmel", "cqt", "gammatone")


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
    gammatone_bands
        Number of filters of `Gammatone`.

    Raises
    ------
    InputError
        If the name or a parameter of the representation cannot be used.
    """
    timing = {"sample_rate": sample_rate, "hop_length": hop_length}
    bands = {**timing, "n_fft": n_fft, "fmin": fmin, "fmax": fmax}
    match name:
        case "stft":
            return Stft(**timing, n_fft=n_fft)
        case "logmel":
            return LogMel(**bands, n_mels=n_mels)
        case "cqt":
            return ConstantQ(
                **timing, n_bins=cqt_bins, bins_per_octave=bins_per_octave, fmin=cqt_fmin
            )
        case "gammatone":
            return Gammatone(**bands, n_bands=gammatone_bands)
    raise InputError(f"representation={name!r}: must be one of {', '.join(NAMES)}")


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
    waveforms = checked(waveforms)
    stft_powers: dict[tuple[int, int], Tensor] = {}
    spectrograms = {}
    for name, representation in representations.items():
        if not isinstance(representation, Stft):
            spectrograms[name] = representation(waveforms)
            continue
        key = (representation.n_fft, representation.hop_length)
        if key not in stft_powers:
            stft_powers[key] = representation.stft_power(waveforms)
        spectrograms[name] = decibels(representation.from_stft_power(stft_powers[key]))
    return spectrograms
