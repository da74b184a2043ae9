"""What is known of each representation, trunk and dataset, said in this one place.

Parameters, runs, tables, figures and the command line look it up here. Nothing heavy is imported:
a class or function is named as ``module:name`` and imported by `load` when it is needed. To add an
entry, follow the recipe in CONTRIBUTING.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

# Heads, the classifiers of a run, beside those that are named after representations.
FUSED = "fused"
MEAN = "mean"  # of the scores of a pair's branches
CHANCE, NEAREST, SUPPORT_VECTORS = "chance", "nearest", "svm"  # of the run that is called baselines
BASELINES = "baselines"


@dataclass(frozen=True)
class Representation:
    """A way to look at a sound.

    Parameters
    ----------
    label, colour
        What tables call it, and its colour in every figure.
    builder
        A subclass of `representations.base.Representation`.
    settings
        Key of a parameter file -> the builder's argument; rate and hop are given to all.
    """

    label: str
    colour: str
    builder: str
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Trunk:
    """A network's feature layers.

    Parameters
    ----------
    builder
        ``builder(width=1.0, pretrained=False)`` -> feature layers and their last channel count.
    depth
        Number of feature layers, from which `tap` chooses.
    widths
        The factors on its channel counts that it comes in; None: any.
    """

    builder: str
    depth: int
    widths: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Dataset:
    """A set of clips.

    Parameters
    ----------
    title
        What tables call it.
    loader
        ``loader(root, **settings)`` -> `Clips`, or ``loader(**settings)`` of a synthesised one.
    settings
        Key of a parameter file -> the loader's argument.
    n_folds
        Folds that can be tested; None: as many as the key ``n_folds`` says.
    folder
        Its folder in $FUSIONKD_DATA; None: it is synthesised.
    lowest
        Key -> the least value from which it can be synthesised.
    own
        Whether it is the user's own, which cannot be fetched and is known by its place.
    """

    title: str
    loader: str
    settings: Mapping[str, str]
    n_folds: int | None = None
    folder: str | None = None
    lowest: Mapping[str, float] = field(default_factory=dict)
    own: bool = False


def _keys(*same: str, **renamed: str) -> dict[str, str]:
    """Return key -> argument of keys that have the argument's name, and of those that do not."""
    return {key: key for key in same} | renamed


_PLACE = "fusionkd_lib.representations"
_MEL = _keys("n_fft", "n_mels", "fmin", "fmax")
_CONSTANT_Q = _keys("bins_per_octave", cqt_bins="n_bins", cqt_fmin="fmin")
_GAMMATONE = _keys("n_fft", "fmin", "fmax", gammatone_bands="n_bands")
# Colours: Okabe and Ito's palette, which colour-blind readers can tell apart.
REPRESENTATIONS = {
    "stft": Representation("STFT", "#CC79A7", f"{_PLACE}.stft:Stft", _keys("n_fft")),
    "logmel": Representation("Log-mel", "#0072B2", f"{_PLACE}.stft:LogMel", _MEL),
    "cqt": Representation("CQT", "#D55E00", f"{_PLACE}.constant_q:ConstantQ", _CONSTANT_Q),
    "gammatone": Representation("Gammatone", "#009E73", f"{_PLACE}.stft:Gammatone", _GAMMATONE),
}

TRUNKS = {
    "mobilenet_v2": Trunk("fusionkd_lib.trunks:mobilenet_v2", depth=19),
    "efficientnet_lite0": Trunk("fusionkd_lib.trunks:efficientnet_lite0", depth=18, widths=(1.0,)),
    "shufflenet_v2": Trunk("fusionkd_lib.trunks:shufflenet_v2", depth=6, widths=(0.5, 1.0)),
    "squeezenet1_1": Trunk("fusionkd_lib.trunks:squeezenet1_1", depth=13, widths=(1.0,)),
}

_MADE = "fusionkd_lib.datasets.urban_synth"
_MADE_KEYS = _keys("n_folds", "duration", data_seed="seed")
_LOWEST = {"sample_rate": 8000, "duration": 0.25}  # Hz and seconds
_FOLDER_KEYS = _keys("allow_partial", data_status="status")
_SONYC_KEYS = _FOLDER_KEYS | _keys("level", "labels", "coarse_labels")
_OWN = "fusionkd_lib.datasets.folder:clips"
DATASETS = {
    "urban_synth": Dataset(
        "urban synth", f"{_MADE}:clips", _keys("clips_per_class") | _MADE_KEYS, lowest=_LOWEST
    ),
    "urban_synth_scenes": Dataset(
        "urban synth scenes", f"{_MADE}:scenes", _keys("n_scenes") | _MADE_KEYS, lowest=_LOWEST
    ),
    "urbansound8k": Dataset(
        "UrbanSound8K", "fusionkd_lib.datasets.urbansound8k:clips", _FOLDER_KEYS, 10, "UrbanSound8K"
    ),
    "sonyc_ust": Dataset(
        "SONYC-UST", "fusionkd_lib.datasets.sonyc_ust:clips", _SONYC_KEYS, 1, "SONYC-UST"
    ),
    # Its number of folds is known once it is opened.
    "folder": Dataset("folder", _OWN, _keys(data_status="status"), 100, "folder", own=True),
}


LABELS = {
    FUSED: "Fused classifier",
    MEAN: "Mean of branches (KD)",
    CHANCE: "Chance",
    NEAREST: "Nearest neighbour",
    SUPPORT_VECTORS: "SVM, all",
}


def baselines_of(representations: Sequence[str]) -> list[str]:
    """Return the heads of baselines: one machine for each representation, and one for several."""
    alone = [f"{SUPPORT_VECTORS}_{name}" for name in representations]
    return [CHANCE, NEAREST, *alone, *[SUPPORT_VECTORS] * (len(alone) > 1)]


def load(name: str) -> Any:
    """Import what an entry names as ``module:name``.

    >>> load("fusionkd_lib.catalogue:FUSED")
    'fused'
    """
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def label(head: str) -> str:
    """Return what tables and figures call a classifier.

    >>> label("cqt"), label("fused"), label("svm_cqt")
    ('CQT', 'Fused classifier', 'SVM, CQT')
    """
    if head in REPRESENTATIONS:
        return REPRESENTATIONS[head].label
    kind, _, name = head.partition("_")
    return f"SVM, {label(name)}" if name else LABELS[kind]


def licence(dataset: str) -> str:
    """Return the licence of a dataset, as its loader's module tells it.

    >>> licence("urbansound8k")
    'CC BY-NC 3.0'
    """
    module = import_module(DATASETS[dataset].loader.partition(":")[0])
    return getattr(module, "LICENCE", "unknown")
