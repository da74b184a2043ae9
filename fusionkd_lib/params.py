"""The validated description of a run: YAML in, clear errors out.

A parameter file is flat, so that papermill can inject it into a chapter as it is. The only key that
is not a parameter of one run is ``grid``: lists of values, of which every combination is a run.
Times are in seconds, frequencies in Hz. Every default is the paper's setting or, where the paper is
silent, our reading of it (see the appendix of the book).
"""

import itertools
import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError

from fusionkd_lib.catalogue import DATASETS, REPRESENTATIONS, TRUNKS
from fusionkd_lib.errors import InputError, choose, nearest, not_allowed, one_of, seen
from fusionkd_lib.reading import read_yaml

# In the order in which they are written down; `speed` says what each does.
SHORTCUTS = ("bfloat16", "channels_last", "fast_layers", "float16_store", "fused_optimizer")
SHORTCUTS += ("reuse_memory", "store_on_device")
# In the order in which they are applied; `augmentation` says what each does.
AUGMENTATIONS = ("shift", "crop", "level", "masks", "mixup")
MOST_RUNS = 1000  # of a grid
# What other people call a key, where the spelling is too far off to guess it.
SYNONYMS = {"learning_rate": "lr", "sr": "sample_rate", "pair": "representations"}
# Keys of earlier versions, and the way out.
OLD = {name: f"write shortcuts: [{name}], or leave it out" for name in SHORTCUTS}
OLD |= {"precision": OLD["bfloat16"], "store_dtype": OLD["float16_store"]}
OLD |= {"gammatone_method": "leave it out, since there is one method now"}
# What pydantic found -> what is allowed, in the words of this project.
ALLOWED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "too_short": "a list of {min_length} or more",
    "greater_than": "a number above {gt:.10g}",
    "greater_than_equal": "{ge:.10g} or more",
    "less_than": "a number below {lt:.10g}",
    "less_than_equal": "{le:.10g} or less",
}


def _name_of(allowed: Collection[str]) -> BeforeValidator:
    """Check that a value is one of those names."""
    return BeforeValidator(lambda value, info: choose(info.field_name, value, allowed))


def _names_of(allowed: Collection[str], *words: str) -> BeforeValidator:
    """Take names in the order of those allowed, written as a list or as one; none; or a word."""

    def check(value: Any, field: Any) -> str | tuple[str, ...]:
        key, single = field.field_name, ("none", *words)
        if isinstance(value, str) and choose(key, value, (*single, *allowed)) in single:
            return () if value == "none" else value
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list | tuple):
            raise InputError(not_allowed(key, value, "use none or a list of names"))
        chosen = {choose(key, name, allowed) for name in listed}
        return tuple(name for name in allowed if name in chosen)

    return BeforeValidator(check)


Positive = Annotated[int, Field(gt=0, le=2**20)]
Bands = Annotated[int, Field(gt=0, le=1024)]
AboveZero = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Several = Annotated[int, Field(ge=2, le=2**20)]
Listed, NotEmpty = Field(strict=False), Field(min_length=1, strict=False)  # YAML has no tuples
Folds = Annotated[tuple[Positive, ...], NotEmpty, AfterValidator(lambda x: tuple(sorted({*x})))]
Representation = Annotated[str, _name_of(REPRESENTATIONS)]


class Params(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """Everything that decides one run; unknown keys and wrong types are refused."""

    # The clips
    dataset: Annotated[str, _name_of(DATASETS)] = "urban_synth"
    data_root: str | None = None  # else $FUSIONKD_DATA/<data_folder>
    data_folder: str | None = None  # else the dataset's own name
    data_status: Literal["stand-in"] | None = None  # what a copy cannot say of itself
    allow_partial: bool = False
    clips_per_class: Bands = 24  # urban_synth: in each fold
    n_scenes: Positive = 120  # urban_synth_scenes: in each fold
    n_folds: Annotated[int, Field(ge=3, le=100)] = 5  # urban synth
    data_seed: Seed = 0  # urban synth
    sample_rate: Annotated[int, Field(ge=2000, le=192000)] = 44100
    duration: Annotated[float, Field(ge=0.05, le=600)] = 4.0
    pad: Literal["waveform", "spectrogram"] = "waveform"

    # The evaluation
    fold: Positive = 1  # the test fold; SONYC-UST has its own split, fold 1
    train_folds: Folds | None = None  # else all; the test fold is left out of them
    validation: Literal["next_fold", "grouped", "none"] = "next_fold"
    val_fraction: Share = 0.1  # of the training clips, by whole recordings or sensors
    judged_on: Literal["test", "validation"] = "test"  # validation: the test clips stay unread
    drop_leaked: bool = True  # no training on recordings that also sit in the test fold
    level: Literal["coarse", "fine"] = "coarse"
    labels: Literal["any", "majority", "mean"] = "any"
    coarse_labels: Literal["shipped", "recomputed"] = "shipped"

    # The representations
    representations: Annotated[tuple[Representation, ...], NotEmpty] = ("logmel", "gammatone")
    n_fft: Annotated[int, Field(ge=16, le=2**15)] = 1024
    hop_length: Positive = 512
    n_mels: Bands = 128
    fmin: NotNegative = 20.0
    fmax: AboveZero | None = None  # else Nyquist
    cqt_bins: Bands = 84
    bins_per_octave: Bands = 12
    cqt_fmin: Annotated[float, Field(ge=1)] = 32.703  # C1
    gammatone_bands: Bands = 128

    # The networks
    trunk: Annotated[str, _name_of(TRUNKS)] = "mobilenet_v2"
    width: Annotated[float, Field(gt=0, le=2)] = 1.0
    weights: Literal["scratch", "imagenet"] = "scratch"
    head: Annotated[tuple[Positive, ...], Listed] = (1280, 512)  # []: a linear one
    tap: Annotated[int, Field(lt=0)] = -1  # the feature layer that is M_j, from the end
    fusion: Literal["gap", "conv"] = "gap"

    # The training
    epochs: Positive = 100
    joint_epochs: Positive | None = None  # else as many as epochs
    batch_size: Several = 64
    micro_batch: Several | None = None  # BatchNorm then sees micro-batches
    lr: AboveZero = 0.01
    lr_factor: Share = 0.1
    patience: Annotated[int, Field(ge=0)] = 5
    weight_decay: NotNegative = 0.0
    schedule: Literal["plateau", "one_cycle"] = "plateau"
    warm_up: Share = 0.1  # of one_cycle
    optimizer: Literal["amsgrad", "adamw"] = "amsgrad"
    augmentation: Annotated[tuple[str, ...], _names_of(AUGMENTATIONS)] = ()
    views: Literal["same", "own"] = "same"  # of a clip's representations, as they are varied
    mixup_alpha: AboveZero = 0.3
    ema_decay: Share | None = None  # else the weights of the last step are judged
    kd_weight: NotNegative = 0.01
    kd_loss: Literal["mse", "l2", "kl", "standardised_kl"] = "mse"
    temperature: AboveZero = 3.0  # of both kl
    teacher: Literal["fused", "mean"] = "fused"  # of the branches: the mean is of their logits
    detach_teacher: bool = True
    ramp_epochs: Positive | None = None  # else the whole joint phase
    fused_weight: NotNegative = 1.0  # of its own loss; 0, and kd_weight 0: branches go on alone
    select: Literal["joint", "per_head", "last"] = "joint"  # which epoch is judged
    seed: Seed = 0

    # The machine: what can change the last bits is part of the run
    device: str = "auto"
    threads: Bands = 2
    shortcuts: Annotated[Literal["all"] | tuple[str, ...], _names_of(SHORTCUTS, "all")] = ()

    # The notebook: which branch chapter 03 trains; else the first
    branch: Representation | None = None

    def model_post_init(self, context: Any) -> None:
        """Refuse values that do not go with others."""
        for key, way_out in _conflicts(self):
            value = self.model_dump(mode="json", include={key})[key]
            raise InputError(not_allowed(key, value, way_out))

    @property
    def pair(self) -> str:
        """The representations as a row of a table names them, such as ``logmel + cqt``."""
        return " + ".join(self.representations)

    def n_epochs(self, kind: str) -> int:
        """Return how many epochs a run of a kind has; ``baselines`` have none."""
        joint = self.joint_epochs or self.epochs
        return {"branch": self.epochs, "fusion": joint, "baselines": 0}[kind]

    def replace(self, **changes: Any) -> "Params":
        """Return these parameters with some changed, validated again."""
        return make_params({**self.model_dump(exclude_defaults=True), **changes})


def _conflicts(params: Params) -> Iterator[tuple[str, str]]:
    """Yield keys that do not go with others, and the way out."""
    dataset, trunk = DATASETS[params.dataset], TRUNKS[params.trunk]
    n_folds = dataset.n_folds or params.n_folds
    last_folds = {"fold": params.fold, "train_folds": max(params.train_folds or (1,))}
    if len(set(params.representations)) < len(params.representations):
        yield "representations", "use each name once"
    if params.branch is not None and params.branch not in params.representations:
        yield "branch", f"use one of {', '.join(params.representations)}"
    for key, last in last_folds.items():
        if last > n_folds:
            yield key, f"{params.dataset} has folds 1 to {n_folds}"
    for key in ("data_status", "data_root", "data_folder"):
        if dataset.folder is None and getattr(params, key):
            yield key, f"leave it out, since {params.dataset} is synthesised"
    for key, lowest in dataset.lowest.items():
        if getattr(params, key) < lowest:
            yield key, f"{params.dataset} is synthesised from {lowest} up"
    if params.judged_on == "validation" and params.validation == "none":
        yield "validation", "use grouped, since the run is judged on validation clips"
    if params.judged_on == "validation" and params.select != "last":
        yield "select", "use last, since clips that an epoch was chosen on do not judge it"
    if params.micro_batch is not None and params.micro_batch > params.batch_size:
        yield "micro_batch", f"use at most batch_size = {params.batch_size}"
    if params.weights == "imagenet" and params.width != 1:
        yield "width", "ImageNet weights exist for width 1.0 alone"
    if trunk.widths and params.width not in trunk.widths:
        yield "width", f"{params.trunk} comes in width {' and '.join(map(str, trunk.widths))}"
    if params.tap < -trunk.depth:
        yield "tap", f"{params.trunk} has {trunk.depth} feature layers, -{trunk.depth} to -1"


def make_params(values: Mapping[str, Any], *, source: str = "parameters") -> Params:
    """Validate a mapping of parameters.

    Parameters
    ----------
    values
        Keys and plain values, as YAML gives them.
    source
        The file or notebook they came from, for the message.

    Raises
    ------
    InputError
        Naming the first wrong key, its value, what is allowed and the nearest right spelling.
    """
    try:
        return Params(**values)
    except ValidationError as error:
        problems = error.errors()
        n_more = len({problem["loc"][:1] for problem in problems}) - 1
        more = f" (and {n_more} more)" if n_more else ""
        raise InputError(f"{source}: {_sentence(problems[0])}{more}") from None
    except TypeError:
        odd = next(key for key in values if not isinstance(key, str))
        raise InputError(f"{source}: the key {seen(odd)} is not text: write key: value") from None


def _sentence(problem: dict[str, Any]) -> str:
    """Say what pydantic found in the words of this project."""
    key, value = str(problem["loc"][0]) if problem["loc"] else "", problem["input"]
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(key)
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        words = re.findall("'([^']+)'", context["expected"])
        return not_allowed(key, value, one_of(value, words))
    is_number = isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]+[eE][-+]?\d+", value)
    hint = " (YAML reads 1e-3 as text: write 1.0e-3)" if is_number else ""
    allowed = ALLOWED.get(kind, "another value").format(**context)
    return not_allowed(key, value, f"use {allowed}{hint}")


def _unknown(key: str) -> str:
    if key in OLD:
        return f"'{key}' is a key of an earlier version: {OLD[key]}"
    hint = nearest(SYNONYMS.get(key, key), Params.model_fields)
    return f"unknown key '{seen(key)}': {hint or 'leave it out'}"


def load_params(path: str | Path) -> list[Params]:
    """Read a parameter file: one run, or every combination of its ``grid``.

    Raises
    ------
    InputError
        Naming the file, the key and the way out.
    """
    values = read_yaml(path)
    grid = values.pop("grid", {})
    if not isinstance(grid, dict) or not all(isinstance(v, list) and v for v in grid.values()):
        raise InputError(f"{path}: grid = {seen(grid)} must give a list of values for each key")
    if twice := [key for key in grid if key in values]:
        raise InputError(f"{path}: '{twice[0]}' stands both alone and in the grid: keep one")
    if (n_runs := math.prod(map(len, grid.values()))) > MOST_RUNS:
        raise InputError(f"{path}: grid has {n_runs:,} runs: use at most {MOST_RUNS:,} in a file")
    cells = [dict(zip(grid, cell, strict=True)) for cell in itertools.product(*grid.values())]
    return [make_params(values | cell, source=str(path)) for cell in cells]


def notebook_params(namespace: Mapping[str, Any]) -> Params:
    """Validate a chapter's parameters, those that papermill injected included.

    papermill only warns of a parameter that the notebook does not know; here it is refused.

    Parameters
    ----------
    namespace
        The notebook's ``globals()``.

    Raises
    ------
    InputError
        As `make_params`.
    """
    cells = [cell for cell in namespace.get("In", []) if cell.startswith("# Parameters\n")]
    injected = [name for cell in cells for name in re.findall(r"^(\w+) =", cell, re.MULTILINE)]
    names = [name for name in (*Params.model_fields, *injected) if name in namespace]
    return make_params({name: namespace[name] for name in names}, source="this notebook")
