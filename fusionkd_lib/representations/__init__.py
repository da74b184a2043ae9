"""Waveforms to spectrograms: STFT, log-mel, constant-Q and gammatone, all on one time axis.

Waveforms (B, N) become spectrograms (B, 1, F, T) in dB: ``10 log10`` of a power floored at 1e-10,
hence -100 dB at the least, and absolute, so that a clip does not depend on its batch. Row 0 is the
lowest frequency. Frame t is centred on sample ``t * hop_length`` of the clip, zeros around it, and
T = 1 + N // hop_length: representations differ in F only.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fusionkd_lib.catalogue import REPRESENTATIONS, load
from fusionkd_lib.errors import choose
from fusionkd_lib.representations.base import Representation, checked, decibels
from fusionkd_lib.representations.constant_q import ConstantQ
from fusionkd_lib.representations.stft import Gammatone, LogMel, Stft

__all__ = ["ConstantQ", "Gammatone", "LogMel", "Representation", "Stft", "build", "compute"]


def build(name: str, *, sample_rate: int, hop_length: int = 512, **settings: Any) -> Representation:
    """Return the representation of that name, with the settings of a parameter file.

    Parameters
    ----------
    name
        A key of `catalogue.REPRESENTATIONS`.
    sample_rate, hop_length
        In Hz, and in samples from one frame to the next.
    settings
        Keys of a parameter file, such as ``n_mels`` or ``cqt_bins``; the class has
        defaults for the others.

    Raises
    ------
    InputError
        If the name or a setting of the representation cannot be used.

    Examples
    --------
    >>> build("logmel", sample_rate=16000, n_mels=64).n_bins
    64
    """
    entry = REPRESENTATIONS[choose("representation", name, REPRESENTATIONS)]
    for key in settings:
        choose(f"setting of {name}", key, entry.settings)
    arguments = {entry.settings[key]: value for key, value in settings.items()}
    return load(entry.builder)(sample_rate=sample_rate, hop_length=hop_length, **arguments)


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

    Examples
    --------
    >>> import torch
    >>> modules = {name: build(name, sample_rate=16000) for name in ("logmel", "cqt")}
    >>> {name: tuple(x.shape) for name, x in compute(modules, torch.zeros(2, 16000)).items()}
    {'logmel': (2, 1, 128, 32), 'cqt': (2, 1, 84, 32)}
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
