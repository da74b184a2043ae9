"""Training batches varied, as pure functions of a batch and a seeded generator.

Spectrograms are a dict of (B, 1, F, T) in dB: every representation of a clip is varied alike.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

MASK_SHARE = 1 / 8  # of the bins and of the frames, at most
MIXUP_ALPHA = 0.2

Spectrograms = Mapping[str, Tensor]


def augment(
    kind: str,
    spectrograms: Spectrograms,
    targets: Tensor,
    *,
    n_classes: int,
    generator: torch.Generator,
) -> tuple[Spectrograms, Tensor]:
    """Vary a batch.

    Parameters
    ----------
    kind
        ``none``, ``masks`` (a band and a span of time hidden: Park et al. 2019) or ``mixup``
        (convex combinations of clips and of their targets: Zhang et al. 2018).
    targets
        (B,) class indices or (B, K).

    Returns
    -------
    spectrograms, targets
        With ``mixup`` the targets are (B, K).
    """
    if kind == "masks":
        # Drawn once: what is hidden in one representation is not to be seen in another.
        draws = torch.rand(2, 2, len(targets), 1, generator=generator)
        return {name: mask(x, draws=draws) for name, x in spectrograms.items()}, targets
    if kind == "mixup":
        return mixup(spectrograms, targets, n_classes=n_classes, generator=generator)
    return spectrograms, targets


def mask(spectrogram: Tensor, *, draws: Tensor) -> Tensor:
    """Hide one band and one span of time of each clip behind the clip's own mean level.

    Parameters
    ----------
    draws
        (2, 2, B, 1) uniform in [0, 1): of the band and of the span, where it begins and how much
        of the largest it is.
    """
    hidden = torch.zeros_like(spectrogram, dtype=torch.bool)
    for axis, drawn in zip((2, 3), draws, strict=True):
        size = spectrogram.shape[axis]
        start, length = drawn * size
        position = torch.arange(size)
        inside = (position >= start) & (position < start + MASK_SHARE * length)  # (B, size)
        shape = (len(spectrogram), 1, -1, 1) if axis == 2 else (len(spectrogram), 1, 1, -1)
        hidden |= inside.view(shape).to(hidden.device)
    return torch.where(hidden, spectrogram.mean(dim=(2, 3), keepdim=True), spectrogram)


def mixup(
    spectrograms: Spectrograms, targets: Tensor, *, n_classes: int, generator: torch.Generator
) -> tuple[Spectrograms, Tensor]:
    """Mix each clip with another one of the batch, all representations in the same proportion."""
    if targets.ndim == 1:
        targets = F.one_hot(targets, n_classes).float()
    partner = torch.randperm(len(targets), generator=generator).to(targets.device)
    share = _beta(MIXUP_ALPHA, generator)
    mixed = {name: share * x + (1 - share) * x[partner] for name, x in spectrograms.items()}
    return mixed, share * targets + (1 - share) * targets[partner]


def _beta(alpha: float, generator: torch.Generator) -> float:
    # Two gamma draws make a beta draw; torch's own samplers take no generator.
    draws = torch._standard_gamma(torch.tensor([alpha, alpha]), generator=generator) + 1e-9
    return float(draws[0] / draws.sum())
