"""The assembly of a run, step by step, as chapters 03 and 04 show it.

parameters -> clips and split -> spectrograms -> network -> fit -> scores and metrics -> run folder.
This is the one place that takes a whole `Params` apart; below it, functions take what they need.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fusionkd_lib import features, metrics, models, training
from fusionkd_lib.batches import Data
from fusionkd_lib.catalogue import BASELINES, DATASETS, FUSED, REPRESENTATIONS
from fusionkd_lib.datasets import Clips, open_clips
from fusionkd_lib.datasets.splits import Split, make_split
from fusionkd_lib.errors import InputError, Stopped
from fusionkd_lib.losses import Distillation
from fusionkd_lib.models import Branch, FusionKD, Normalise
from fusionkd_lib.params import Params
from fusionkd_lib.records import Provenance, Record, TestClips
from fusionkd_lib.runs import CHECKPOINT, STOP_FILE, Run, outputs_root, settle, where_from
from fusionkd_lib.speed import resolve_device, set_up_process
from fusionkd_lib.training import Progress, Recipe, Report, fit, print_epoch

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Prepared:
    """Everything that a network is trained and judged on."""

    params: Params
    clips: Clips
    split: Split
    data: Data


def _take(params: Params, keys: Iterable[str]) -> dict[str, Any]:
    return {key: getattr(params, key) for key in keys}


def clip_format(params: Params) -> features.ClipFormat:
    """Return what every clip of a run is brought to."""
    store_dtype = "float16" if "float16_store" in params.shortcuts else "float32"
    shared = _take(params, ("sample_rate", "duration", "hop_length", "pad"))
    return features.ClipFormat(**shared, store_dtype=store_dtype)


def representation_settings(params: Params) -> dict[str, dict[str, Any]]:
    """Return the settings of each representation of a run."""
    return {name: _take(params, REPRESENTATIONS[name].settings) for name in params.representations}


def representations_of(params: Params) -> dict[str, nn.Module]:
    """Build the modules, waveform (B, N) -> (B, 1, F, T) in dB, of a run by name."""
    return features.build_representations(representation_settings(params), clip_format(params))


def recipe_of(params: Params) -> Recipe:
    """Return how the networks of a run are trained, with the shortcuts of this machine."""
    params = settle(params)
    own = {field.name for field in fields(Recipe)} & set(Params.model_fields)
    shared = _take(params, ("temperature", "teacher", "detach_teacher", "ramp_epochs"))
    distillation = Distillation(params.kd_weight, params.kd_loss, **shared)
    return Recipe(**_take(params, own), distillation=distillation)


def data_root(params: Params) -> Path | None:
    """Return the folder of a dataset on disk: ``data_root``, or $FUSIONKD_DATA/<data_folder>.

    Raises
    ------
    InputError
        Where neither is given.
    """
    folder = params.data_folder or DATASETS[params.dataset].folder
    if folder is None or params.data_root:
        return Path(params.data_root) if params.data_root else None
    if not (home := os.environ.get("FUSIONKD_DATA")):
        way_out = f"set data_root, or FUSIONKD_DATA to the folder that holds {folder}"
        raise InputError(f"dataset = {params.dataset} needs its clips: {way_out}")
    return Path(home) / folder


def clips_of(params: Params) -> Clips:
    """Return the clip table of a run."""
    settings = _take(params, DATASETS[params.dataset].settings)
    return open_clips(params.dataset, data_root(params), **settings)


def spectrograms_of(params: Params, clips: Clips) -> dict[str, np.ndarray]:
    """Return the stored spectrograms (n, F, T) of a run's clips, by representation."""
    settings, root = representation_settings(params), outputs_root() / "features"
    return features.load_spectrograms(clips, settings, clip_format(params), root=root)


def data_fingerprint(clips: Clips) -> str:
    """Return the name of everything in a clip table, from the cache of digests of the stores."""
    return features.fingerprint(clips, cache=outputs_root() / "features" / "digests.json")


def prepare(params: Params) -> Prepared:
    """Open the clips of a run, split them, and compute or open their spectrograms."""
    clips = clips_of(params)
    keys = ("fold", "train_folds", "validation", "val_fraction", "drop_leaked", "seed")
    split = make_split(clips, **_take(params, keys))
    if params.judged_on == "validation":
        split = replace(split, test=split.validation)
    device = resolve_device(params.device)
    data = Data(spectrograms_of(params, clips), clips.targets, len(clips.classes), device)
    return Prepared(params, clips, split, data)


def build_branch(
    params: Params, name: str, n_classes: int, normalise: Normalise | None = None, **settings: bool
) -> Branch:
    """Build one branch, its first weights drawn by the seed, or ImageNet's.

    Parameters
    ----------
    settings
        ``initialise``, as of `Branch`.
    """
    torch.manual_seed(params.seed)
    settings |= _take(params, ("trunk", "width", "weights", "tap"))
    return Branch(name, n_classes, hidden=params.head, normalise=normalise, **settings)


def build_fusion(params: Params, branches: list[Branch], n_classes: int) -> FusionKD:
    """Put the fusion module over pretrained branches, its first weights drawn by the seed."""
    torch.manual_seed(params.seed)
    # The first layer grows with the branches; a linear classifier has none.
    hidden = (params.head[0] * len(branches), *params.head[1:]) if params.head else ()
    channels = [models.tap_channels(branch) for branch in branches]
    fusion = models.FusionModule(channels, n_classes, hidden=hidden, fusion=params.fusion)
    return FusionKD(branches, fusion)


def training_statistics(spectrograms: np.ndarray, rows: np.ndarray) -> Normalise:
    """Return mean and deviation in dB over the training clips alone."""
    # In parts, so that memory is bounded by the part and not by the dataset.
    n_values, total, squares = 0, 0.0, 0.0
    for part in np.array_split(rows, -(-len(rows) // 256)):
        values = spectrograms[part].astype(np.float64)
        n_values += values.size
        total += values.sum()
        squares += np.square(values).sum()
    mean = total / n_values
    return Normalise(mean, max(np.sqrt(squares / n_values - mean**2), 1e-3))


def train_branch(params: Params, name: str, *, report: Report = print_epoch) -> Record:
    """Pretrain one branch (section III-B), or return its run where that is finished.

    Parameters
    ----------
    name
        The representation.
    report
        As of `fit`.
    """
    params = settle(params).replace(representations=[name], branch=None)
    run = Run.of(params, branch=name)
    with run.held():
        if run.is_complete:
            return run.record
        set_up_process(threads=params.threads, shortcuts=params.shortcuts)
        prepared = prepare(params)
        normalise = training_statistics(prepared.data.spectrograms[name], prepared.split.train)
        model = build_branch(params, name, prepared.data.n_classes, normalise)
        return _train(run, model, prepared, [], report)


def train_fusion(params: Params, *, report: Report = print_epoch) -> Record:
    """Fuse the pretrained branches and distil back (sections III-C and III-D).

    Branches that are not trained yet are trained first.
    """
    params = settle(params)
    run = Run.of(params)
    if len(params.representations) < 2:
        raise InputError(f"representations = {list(params.representations)}: fusion needs two")
    with run.held():
        if run.is_complete:
            return run.record
        parents = [train_branch(params, name, report=report) for name in params.representations]
        set_up_process(threads=params.threads, shortcuts=params.shortcuts)
        prepared = prepare(params)
        data = data_fingerprint(prepared.clips)
        if stale := [parent.folder for parent in parents if parent.provenance.data != data]:
            fault = "this branch was trained on other clips than there are now"
            way_out = "delete the folder, and the branch is trained again"
            raise InputError(f"{stale[0]}: {fault}: {way_out}")
        branches = [load_branch(parent, tap=params.tap) for parent in parents]
        model = build_fusion(params, branches, prepared.data.n_classes)
        return _train(run, model, prepared, parents, report)


def score_baselines(params: Params) -> Record:
    """Score the test clips as `baselines` does, or return that run where it is finished.

    All training clips are used. Machines are chosen on a fifth of them, in whole recordings.

    Raises
    ------
    InputError
        Where the run is judged on validation clips: its test clips stay unread.
    """
    from fusionkd_lib.baselines import scores_of  # scikit-learn is slow to import

    chosen_on = {"validation": "grouped", "val_fraction": 0.2, "seed": 0}
    if params.judged_on == "validation":
        raise InputError("judged_on = validation: baselines read the test clips: use test")
    params = settle(params).replace(**chosen_on, branch=None)
    run, start = Run.of(params, branch=BASELINES), datetime.now(UTC)
    with run.held():
        if run.is_complete:
            return run.record
        prepared = prepare(params)
        run.begin(params)
        run.write_history([])
        data, split, test = prepared.data, prepared.split, _test_clips(prepared)
        scores = scores_of(data.spectrograms, data.targets, split, n_classes=data.n_classes)
        figures = {head: metrics.summary(test.targets, x) for head, x in scores.items()}
        split = replace(split, train=np.union1d(split.train, split.validation), validation=[])
        prepared, took = replace(prepared, split=split), datetime.now(UTC) - start
        progress = Progress([{"seconds": took.total_seconds()}])
        provenance = _provenance(prepared, progress, test, start, kind=BASELINES)
        run.finish(metrics=figures, scores=scores, weights={}, provenance=provenance, test=test)
        return run.record


def load_branch(run: Record, name: str | None = None, *, tap: int = -1) -> Branch:
    """Build a trained branch, of its own run or of a fusion run, with its weights.

    Parameters
    ----------
    tap
        Which feature layer gives M_j; the weights are the same for all.

    Raises
    ------
    InputError
        Where the run is unfinished, or the weights are another network's.
    """
    name, n_classes = name or run.params.representations[0], len(run.provenance.classes)
    branch = build_branch(run.params.replace(tap=tap), name, n_classes, initialise=False)
    return _with_weights(branch, run, name)


def load_fusion(run: Record) -> FusionKD:
    """Build a trained fused network with its weights."""
    params, n_classes = run.params, len(run.provenance.classes)
    build = partial(build_branch, params, n_classes=n_classes, initialise=False)
    fused = build_fusion(params, [build(name) for name in params.representations], n_classes)
    return _with_weights(fused, run, FUSED)


def _with_weights(model: Network, run: Record, name: str) -> Network:
    """Load weights that must be exactly this network's, and finite."""
    state = run.weights(name)
    odd = {key for key, *_ in _described(state) ^ _described(model.state_dict())}
    if odd := odd | {key for key, x in state.items() if not x.isfinite().all()}:
        path = f"{run.folder / name}.safetensors"
        fault = f"these are not the weights of this network ({min(odd)} differs or is not finite)"
        raise InputError(f"{path}: {fault}: use the run that they came from")
    model.load_state_dict(state)
    return model


def _described(state: Mapping[str, Tensor]) -> set[tuple[str, torch.Size, torch.dtype]]:
    return {(key, x.shape, x.dtype) for key, x in state.items()}


def _train(
    run: Run, model: nn.Module, prepared: Prepared, parents: list[Record], report: Report
) -> Record:
    params, data, start = prepared.params, prepared.data, datetime.now(UTC)
    run.begin(params)

    def write_and_report(history: list[training.Values], n_epochs: int) -> None:
        run.write_history(history)
        report(history, n_epochs)
        if len(history) < n_epochs and os.path.exists(os.environ.get(STOP_FILE, "")):
            raise Stopped(f"stopped after epoch {len(history)}: start it again to go on")

    n_epochs = params.n_epochs("fusion" if parents else "branch")
    settings = {"recipe": recipe_of(params), "checkpoint": run.folder / CHECKPOINT}
    rows = prepared.split.train, prepared.split.validation
    if "store_on_device" in params.shortcuts:
        data = data.on_device()
    progress = fit(model, data, *rows, n_epochs=n_epochs, report=write_and_report, **settings)
    run.write_history(progress.history)
    results, test = judge(model, prepared, progress), _test_clips(prepared)
    told = {"kind": "fusion" if parents else "branch", "parents": parents}
    provenance = _provenance(prepared, progress, test, start, **told)
    run.finish(**results, provenance=provenance, test=test)
    return run.record


def judge(model: nn.Module, prepared: Prepared, progress: Progress) -> dict[str, Any]:
    """Score the test clips with the selected weights: the one time that they are read.

    Returns
    -------
    dict
        ``metrics``, ``scores`` and ``weights`` of every classifier, as `Run.finish` takes them.
    """
    split, data, recipe = prepared.split, prepared.data, recipe_of(prepared.params)
    targets, labels = data.targets[split.test], data.targets[split.validation]
    tags = labels if data.multi_label else np.eye(data.n_classes)[labels]
    scores, figures, weights = {}, {}, {}
    for selected, best in progress.best.items():
        model.load_state_dict(best["state"])
        validation = _scores(model, data, split.validation, recipe)
        test = _scores(model, data, split.test, recipe)
        for head in test if selected == "joint" else [selected]:
            scores[head], weights[head] = test[head], _weights_of(model, head)
            figures[head] = metrics.summary(targets, test[head])
            if validation:
                thresholds = metrics.choose_thresholds(tags, validation[head])
                figures[head]["thresholds"] = thresholds.tolist()
    return {"metrics": figures, "scores": scores, "weights": weights}


def _scores(model: nn.Module, data: Data, rows: np.ndarray, recipe: Recipe) -> training.ByHead:
    """Return scores (n, K) by classifier, in float32 as they will be stored."""
    score = partial(training.probabilities, multi_label=data.multi_label)
    logits = training.predict(model, data, rows, recipe=recipe)
    return {head: score(x) for head, x in logits.items()}


def _weights_of(model: nn.Module, head: str) -> dict[str, Tensor]:
    network = model.branches[head] if isinstance(model, FusionKD) and head != FUSED else model
    return {key: tensor.detach().cpu().clone() for key, tensor in network.state_dict().items()}


def _test_clips(prepared: Prepared) -> TestClips:
    rows, table = prepared.split.test, prepared.clips.table
    columns = (table[name].to_numpy(str)[rows] for name in ("clip", "group"))
    return TestClips(*columns, prepared.data.targets[rows])


def _provenance(
    prepared: Prepared,
    progress: Progress,
    test: TestClips,
    start: datetime,
    *,
    kind: str,
    parents: Iterable[Record] = (),
) -> Provenance:
    clips, split, device = prepared.clips, prepared.split, prepared.data.device
    return Provenance(
        kind=kind,
        metric=metrics.official(clips.targets),
        dataset=clips.dataset,
        data=data_fingerprint(clips),
        data_status=clips.status,
        data_note=clips.note,
        classes=clips.classes,
        **{f"n_{name}": len(getattr(split, name)) for name in ("train", "validation", "test")},
        n_dropped=split.n_dropped,
        test_clips=test.digest,
        parents={parent.name: parent.digest for parent in parents},
        selected_epoch={name: best["epoch"] for name, best in progress.best.items()},
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        started=start.isoformat(timespec="seconds"),
        training_seconds=round(sum(row["seconds"] for row in progress.history), 1),
        **where_from(),
    )
