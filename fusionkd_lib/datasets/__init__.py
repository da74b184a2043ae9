"""Clip tables of the datasets, opened by name."""

from pathlib import Path
from typing import Any

from fusionkd_lib.catalogue import DATASETS, load
from fusionkd_lib.datasets.clips import Clips

__all__ = ["Clips", "open_clips"]


def open_clips(name: str, root: str | Path | None = None, **settings: Any) -> Clips:
    """Return the clip table of a dataset.

    Parameters
    ----------
    name
        A key of `catalogue.DATASETS`.
    root
        The folder of a dataset on disk.
    settings
        Keys of a parameter file that the dataset has, such as ``clips_per_class`` or ``level``.

    Raises
    ------
    InputError
        As the dataset's loader.

    Examples
    --------
    >>> len(open_clips("urban_synth", clips_per_class=2, n_folds=3))
    60
    """
    entry = DATASETS[name]
    arguments = {entry.settings[key]: value for key, value in settings.items()}
    loader = load(entry.loader)
    return loader(**arguments) if entry.folder is None else loader(root, **arguments)
