"""The one table that every dataset comes as.

One row per clip, in a fixed order. Waveforms are mono float32 in [-1, 1] and are read on demand.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True, eq=False)
class Clips:
    """The clips of a dataset with their folds, recordings and targets.

    Parameters
    ----------
    dataset
        The dataset's name as it appears in a table, such as ``"UrbanSound8K"``.
    classes
        K class names, in the order of the targets.
    table
        One row per clip: ``clip`` (unique name), ``fold`` (1, 2, ... or ``"train"`` and
        ``"validate"``), ``group`` (the recording or sensor, whose clips must not be split between
        training and evaluation), ``path`` (the audio file; None for a synthesised clip).
    targets
        (n,) int64 class indices of a single-label task, or (n, K) float32 in [0, 1] of a
        multi-label one, NaN for a tag that was not annotated.
    status
        ``"real"``, ``"partial"``, ``"stand-in"`` or ``"synthetic"``: what results on it may claim.
    read
        ``read(index, sample_rate)`` -> (N,) float32, the whole clip at that rate.
    note
        One sentence for captions: the number of clips per fold, and their nature.
    recipe
        Everything that determines a synthesised sound: generator version, seed, settings.
    events
        Onsets and offsets in seconds where they are known: ``clip``, ``label``, ``onset``,
        ``offset``.
    """

    dataset: str
    classes: tuple[str, ...]
    table: pd.DataFrame
    targets: np.ndarray
    status: str
    read: Callable[[int, int], np.ndarray]
    note: str = ""
    recipe: str = ""
    events: pd.DataFrame | None = None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def multi_label(self) -> bool:
        """Whether a clip may carry several tags."""
        return self.targets.ndim == 2
