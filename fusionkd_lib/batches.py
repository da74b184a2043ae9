"""From the stores to a batch: the order of an epoch, its cuts, and the tensors of one cut."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from fusionkd_lib.features import forget_pages

CLIPS_AT_ONCE = 256  # on their way to the device


@dataclass(frozen=True)
class Data:
    """Spectrograms and targets of all clips; a batch is cut out by row numbers.

    Parameters
    ----------
    spectrograms
        Representation -> (n, F, T) in dB: an array, memory-mapped, or a tensor on the device.
    targets
        (n,) class indices or (n, K).
    """

    spectrograms: Mapping[str, np.ndarray | Tensor]
    targets: np.ndarray
    n_classes: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def multi_label(self) -> bool:
        """Whether a clip may carry several tags."""
        return self.targets.ndim == 2

    def batch(self, rows: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
        """Return spectrograms (B, 1, F, T) by representation, and targets (B,) or (B, K)."""
        targets = torch.from_numpy(self.targets[rows]).to(self.device)
        cut = {name: self._cut(stored, rows) for name, stored in self.spectrograms.items()}
        return {name: x.float()[:, None] for name, x in cut.items()}, targets

    def _cut(self, stored: np.ndarray | Tensor, rows: np.ndarray) -> Tensor:
        if isinstance(stored, Tensor):
            return stored[torch.from_numpy(rows).to(stored.device)]
        values = torch.from_numpy(stored[rows]).to(self.device)
        forget_pages(stored)
        return values

    def on_device(self) -> "Data":
        """Copy the spectrograms to the device, where batches are then cut without a transfer."""
        moved = {name: self._move(stored) for name, stored in self.spectrograms.items()}
        return replace(self, spectrograms=moved)

    def _move(self, stored: np.ndarray) -> Tensor:
        # Part by part, so that a memory-mapped store does not become resident on the way.
        first = torch.from_numpy(stored[:1].copy())
        whole = torch.empty(stored.shape, dtype=first.dtype, device=self.device)
        for rows in np.array_split(np.arange(len(stored)), -(-len(stored) // CLIPS_AT_ONCE)):
            whole[rows[0] : rows[-1] + 1] = self._cut(stored, rows)
        return whole


def batches(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut row numbers into batches; a last one of a single clip joins the one before it.

    BatchNorm over one clip has no deviation to divide by, and raises.
    """
    cuts = list(range(size, len(rows), size))
    if cuts and len(rows) - cuts[-1] == 1:
        cuts.pop()
    return np.split(rows, cuts)


def shuffled(rows: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Return the rows in the order of an epoch, which the seed and the epoch alone decide."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def chance_of(*, seed: int, epoch: int) -> torch.Generator:
    """Return the generator of an epoch's augmentation, apart from that of its order."""
    drawn = np.random.default_rng([seed, epoch, 1]).integers(2**63)
    return torch.Generator().manual_seed(int(drawn))


def shares(parts: Sequence[Tensor]) -> list[dict[str, Tensor | float]]:
    """Return how much each part of a batch weighs in the batch's loss terms, by kind of term.

    A cross-entropy is a mean over what is annotated, a distillation loss one over clips: weighted
    so, the terms of the parts add up to those of the whole batch.

    Parameters
    ----------
    parts
        Targets (B,) or (B, K) of each part, as the loss sees them.
    """
    annotated = [(~part.isnan()).sum() for part in parts]  # read nowhere: a device need not wait
    total, n_clips = sum(annotated).clamp(min=1), sum(map(len, parts))
    pairs = zip(annotated, parts, strict=True)
    return [{"ce": n / total, "kd": len(part) / n_clips} for n, part in pairs]
