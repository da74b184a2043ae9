"""Training batches varied, as pure functions of a batch and of what is drawn for it.

ByName are a mapping of name to (B, 1, F, T) in dB, all with one T; targets are (B,) class
indices, or (B, K) in [0, 1] with NaN where not annotated. Draws are (4, B), uniform in [0, 1): up
to four numbers per clip, of which an operation takes the first ones.
"""

from collections.abc import Mapping, Sequence

import torch
from scipy.special import betaincinv
from torch import Generator, Tensor
from torch.nn import functional as F

from fusionkd_lib.errors import InputError

CROP_SHARE = 7 / 8  # of the frames, that stay
LEVEL_REACH = 6.0  # dB
MASK_SHARE = 1 / 8  # of the bins and of the frames, at most
MIXUP_ALPHA = 0.3

ByName = Mapping[str, Tensor]


def augment(
    kinds: Sequence[str],
    spectrograms: ByName,
    targets: Tensor,
    *,
    n_classes: int,
    generator: Generator,
    views: str = "same",
    alpha: float = MIXUP_ALPHA,
) -> tuple[ByName, Tensor]:
    """Vary a batch in the chosen ways, one after the other in the order of `OPERATIONS`, then mix.

    Parameters
    ----------
    kinds
        Any of ``shift``, ``crop``, ``level``, ``masks`` and ``mixup``.
    generator
        On the CPU, so that what is drawn does not depend on the device of the batch.
    views
        ``same``: a clip's draws hold for all its representations; ``own``: each has its own, but
        for mixup, since the representations share their targets.
    alpha
        Of `mixup`.

    Returns
    -------
    spectrograms, targets
        With ``mixup`` the targets are (B, K).

    Raises
    ------
    InputError
        If a kind or ``views`` is none of those above.
    """
    if not {*kinds} <= {*OPERATIONS, "mixup"} or views not in ("same", "own"):
        allowed = f"a list of {', '.join(OPERATIONS)} and mixup, and views is same or own"
        raise InputError(f"augmentation = {kinds!r}, views = {views!r}: it is {allowed}")
    n_views = len(spectrograms) if views == "own" else 1
    for kind, operation in OPERATIONS.items():
        # Drawn also where it is not used: no kind's draws depend on which others are chosen.
        draws = torch.rand(n_views, 4, len(targets), generator=generator)
        if kind in kinds:
            spectrograms = {
                name: operation(x, draws=draws[view % n_views].to(x.device))
                for view, (name, x) in enumerate(spectrograms.items())
            }
    if "mixup" in kinds:
        return mixup(spectrograms, targets, n_classes=n_classes, generator=generator, alpha=alpha)
    return spectrograms, targets


def shift(spectrogram: Tensor, *, draws: Tensor) -> Tensor:
    """Begin each clip at a frame of its own; what was before that follows the end."""
    n_frames = spectrogram.shape[3]
    return _frames(spectrogram, draws[0] * n_frames, n_frames)


def crop(spectrogram: Tensor, *, draws: Tensor) -> Tensor:
    """Keep `CROP_SHARE` of each clip's frames, in one piece, from a frame of its own on."""
    n_frames = spectrogram.shape[3]
    n_kept = round(CROP_SHARE * n_frames)
    return _frames(spectrogram, draws[0] * (n_frames - n_kept + 1), n_kept)


def _frames(spectrogram: Tensor, start: Tensor, n_frames: int) -> Tensor:
    """Take frames of each clip from its start (B,) on, around the end."""
    frames = start.long()[:, None] + torch.arange(n_frames, device=start.device)  # (B, n_frames)
    index = (frames % spectrogram.shape[3])[:, None, None]
    return spectrogram.gather(3, index.expand(*spectrogram.shape[:3], -1))


def level(spectrogram: Tensor, *, draws: Tensor) -> Tensor:
    """Make each clip louder or softer by up to `LEVEL_REACH`."""
    return spectrogram + LEVEL_REACH * (2 * draws[0].view(-1, 1, 1, 1) - 1)


def masks(spectrogram: Tensor, *, draws: Tensor) -> Tensor:
    """Hide one band and one span of time of each clip behind the clip's own mean level.

    Parameters
    ----------
    draws
        Where the band begins and how much of the largest it is; the same of the span.

    Source: D. Park et al., SpecAugment, Interspeech 2019.
    """
    n_bins, n_frames = spectrogram.shape[2:]
    band = _inside(n_bins, *draws[:2])[:, None, :, None]
    span = _inside(n_frames, *draws[2:])[:, None, None, :]
    return torch.where(band | span, spectrogram.mean(dim=(2, 3), keepdim=True), spectrogram)


def _inside(size: int, start: Tensor, length: Tensor) -> Tensor:
    """Return which places are hidden (B, size), given shares (B,) of the size and of the most."""
    position = torch.arange(size, device=start.device) - (start * size)[:, None]
    return (position >= 0) & (position < (MASK_SHARE * size * length)[:, None])


def mixup(
    spectrograms: ByName, targets: Tensor, *, n_classes: int, generator: Generator, alpha: float
) -> tuple[ByName, Tensor]:
    """Mix each clip and its targets with another clip's, in shares of Beta(alpha, alpha).

    What is mixed is the networks' input, in dB. In a sum of powers the louder clip alone would be
    heard (a tenth of it is 10 dB less), whatever the targets say.

    Source: H. Zhang et al., mixup: Beyond empirical risk minimization, ICLR 2018.
    """
    if targets.ndim == 1:
        targets = F.one_hot(targets, n_classes).float()
    partner = torch.randperm(len(targets), generator=generator)
    # The inverse of the distribution function, since torch's own sampler takes no generator.
    draws = torch.rand(len(targets), generator=generator, dtype=torch.float64)
    share = torch.from_numpy(betaincinv(alpha, alpha, draws.numpy())).float()

    def mix(values: Tensor) -> Tensor:
        of_own = share.to(values.device).view(-1, *[1] * (values.ndim - 1))
        return of_own * values + (1 - of_own) * values[partner.to(values.device)]

    return {name: mix(x) for name, x in spectrograms.items()}, mix(targets)


OPERATIONS = {"shift": shift, "crop": crop, "level": level, "masks": masks}
