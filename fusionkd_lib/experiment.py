"""The assembly of a run, step by step, as chapters 03 and 04 show it.

parameters -> clips and split -> spectrograms -> network -> fit -> scores and metrics -> run folder.
This is the one place that takes a whole `Params` apart; below it, functions take what they need.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fusionkd_lib import metrics
from fusionkd_lib.batches import Data
from fusionkd_lib.catalogue import DATASETS, FUSED, REPRESENTATIONS
from fusionkd_lib.datasets import Clips, open_clips
from fusionkd_lib.datasets.splits import Split, make_split
from fusionkd_lib.errors import InputError, Stopped
from fusionkd_lib.features import ClipFormat, build_representations, fingerprint, load_spectrograms
from fusionkd_lib.losses import Distillation
from fusionkd_lib.models import Branch, FusionKD, FusionModule, Normalise, tap_channels
from fusionkd_lib.params import Params
from fusionkd_lib.records import Provenance, Record, TestClips
from fusionkd_lib.runs import CHECKPOINT, STOP_FILE, Run, outputs_root, settle, where_from
from fusionkd_lib.speed import resolve_device, set_up_process
from fusionkd_lib.training import (
    Progress,
    Recipe,
    Report,
    fit,
    predict,
    print_epoch,
    probabilities,
)


@dataclass(frozen=True)
class Prepared:
    """Everything that a network is trained and judged on."""

    clips: Clips
    split: Split
    data: Data


def clip_format(params: Params) -> ClipFormat:
    """Return what every clip of a run is brought to."""
    store_dtype = "float16" if "float16_store" in params.shortcuts else "float32"
    return ClipFormat(
        params.sample_rate, params.duration, params.hop_length, params.pad, store_dtype
    )


def representation_settings(params: Params) -> dict[str, dict[str, Any]]:
    """Return the settings of each representation of a run."""
    return {
        name: {key: getattr(params, key) for key in REPRESENTATIONS[name].settings}
        for name in params.representations
    }


def representations_of(params: Params) -> dict[str, nn.Module]:
    """Build the modules, waveform (B, N) -> (B, 1, F, T) in dB, of a run by name."""
    return build_representations(representation_settings(params), clip_format(params))


def recipe_of(params: Params) -> Recipe:
    """Return how the networks of a run are trained."""
    own = {field.name for field in fields(Recipe)} & set(Params.model_fields)
    distillation = Distillation(
        weight=params.kd_weight,
        loss=params.kd_loss,
        temperature=params.temperature,
        detach_teacher=params.detach_teacher,
        ramp_epochs=params.ramp_epochs,
    )
    return Recipe(**{key: getattr(params, key) for key in own}, distillation=distillation)


def data_root(params: Params) -> Path | None:
    """Return the folder of a dataset on disk: ``data_root``, or $FUSIONKD_DATA/<data_folder>.

    Raises
    ------
    InputError
        Where neither is given.
    """
    folder, home = DATASETS[params.dataset].folder, os.environ.get("FUSIONKD_DATA")
    if folder is None or params.data_root:
        return Path(params.data_root) if params.data_root else None
    if not home:
        raise InputError(
            f"dataset = {params.dataset} needs its clips: set data_root, or FUSIONKD_DATA to the "
            f"folder that holds {params.data_folder or folder}"
        )
    return Path(home) / (params.data_folder or folder)


def clips_of(params: Params) -> Clips:
    """Return the clip table of a run."""
    settings = {key: getattr(params, key) for key in DATASETS[params.dataset].settings}
    return open_clips(params.dataset, data_root(params), **settings)


def spectrograms_of(params: Params, clips: Clips) -> dict[str, np.ndarray]:
    """Return the stored spectrograms (n, F, T) of a run's clips, by representation."""
    settings = representation_settings(params)
    return load_spectrograms(clips, settings, clip_format(params), root=outputs_root() / "features")


def data_fingerprint(clips: Clips) -> str:
    """Return the name of everything in a clip table, from the cache of digests of the stores."""
    return fingerprint(clips, cache=outputs_root() / "features" / "digests.json")


def prepare(params: Params) -> Prepared:
    """Open the clips of a run, split them, and compute or open their spectrograms."""
    clips = clips_of(params)
    split = make_split(
        clips,
        fold=params.fold,
        train_folds=params.train_folds,
        validation=params.validation,
        val_fraction=params.val_fraction,
        drop_leaked=params.drop_leaked,
        seed=params.seed,
    )
    if params.judged_on == "validation":
        split = replace(split, test=split.validation)
    device = resolve_device(params.device)
    data = Data(spectrograms_of(params, clips), clips.targets, len(clips.classes), device)
    return Prepared(clips, split, data)


def build_branch(
    params: Params,
    name: str,
    n_classes: int,
    normalise: Normalise | None = None,
    *,
    initialise: bool = True,
) -> Branch:
    """Build one branch, its first weights drawn by the seed, or ImageNet's."""
    torch.manual_seed(params.seed)
    return Branch(
        name,
        n_classes,
        trunk=params.trunk,
        width=params.width,
        weights=params.weights,
        hidden=params.head,
        tap=params.tap,
        normalise=normalise,
        initialise=initialise,
    )


def build_fusion(params: Params, branches: list[Branch], n_classes: int) -> FusionKD:
    """Put the fusion module over pretrained branches, its first weights drawn by the seed."""
    torch.manual_seed(params.seed)
    hidden = tuple(params.head)
    if hidden:  # the first layer grows with the branches
        hidden = (hidden[0] * len(branches), *hidden[1:])
    channels = [tap_channels(branch) for branch in branches]
    return FusionKD(
        branches, FusionModule(channels, n_classes, hidden=hidden, fusion=params.fusion)
    )


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
        return _train(run, model, prepared, params, parents=[], report=report)


def train_fusion(params: Params, *, report: Report = print_epoch) -> Record:
    """Fuse the pretrained branches and distil back (sections III-C and III-D).

    Branches that are not trained yet are trained first.
    """
    params = settle(params)
    run = Run.of(params)
    if run.is_complete:
        return run.record
    if len(params.representations) < 2:
        raise InputError(f"representations = {list(params.representations)}: fusion needs two")
    parents = [train_branch(params, name, report=report) for name in params.representations]
    with run.held():
        if run.is_complete:
            return run.record
        set_up_process(threads=params.threads, shortcuts=params.shortcuts)
        prepared = prepare(params)
        _refuse_other_data(parents, data_fingerprint(prepared.clips))
        branches = [load_branch(parent, tap=params.tap) for parent in parents]
        model = build_fusion(params, branches, prepared.data.n_classes)
        return _train(run, model, prepared, params, parents=parents, report=report)


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
    name = name or run.params.representations[0]
    params = run.params.replace(tap=tap)
    model = build_branch(params, name, len(run.provenance.classes), initialise=False)
    load_weights(model, run.weights(name), source=run.folder / f"{name}.safetensors")
    return model


def load_fusion(run: Record) -> FusionKD:
    """Build a trained fused network with its weights."""
    params, n_classes = run.params, len(run.provenance.classes)
    branches = [
        build_branch(params, name, n_classes, initialise=False) for name in params.representations
    ]
    model = build_fusion(params, branches, n_classes)
    load_weights(model, run.weights(FUSED), source=run.folder / f"{FUSED}.safetensors")
    return model


def load_weights(model: nn.Module, state: Mapping[str, torch.Tensor], *, source: Path) -> None:
    """Load weights that must be exactly this network's, and finite.

    Raises
    ------
    InputError
        Naming the file and the first weight that is not.
    """
    wanted = model.state_dict()
    odd = set(wanted) ^ set(state) | {
        key
        for key in set(wanted) & set(state)
        if (wanted[key].shape, wanted[key].dtype) != (state[key].shape, state[key].dtype)
        or not torch.isfinite(state[key]).all()
    }
    if odd:
        raise InputError(
            f"{source}: these are not the weights of this network ({min(odd)} differs or is not "
            "finite): use the run that they came from"
        )
    model.load_state_dict(state)


def _refuse_other_data(parents: list[Record], data: str) -> None:
    for parent in parents:
        if parent.provenance.data != data:
            raise InputError(
                f"{parent.folder}: this branch was trained on other clips than there are now: "
                "delete the folder, and the branch is trained again"
            )


def _train(
    run: Run,
    model: nn.Module,
    prepared: Prepared,
    params: Params,
    *,
    parents: list[Record],
    report: Report,
) -> Record:
    run.begin(params)
    started, data, recipe = datetime.now(UTC), prepared.data, recipe_of(params)

    def write_and_report(history: list[dict[str, float]], n_epochs: int) -> None:
        run.write_history(history)
        report(history, n_epochs)
        if len(history) < n_epochs and os.path.exists(os.environ.get(STOP_FILE, "")):
            raise Stopped(f"stopped after epoch {len(history)}: start it again to go on")

    progress = fit(
        model,
        data.on_device() if "store_on_device" in params.shortcuts else data,
        prepared.split.train,
        prepared.split.validation,
        n_epochs=(params.joint_epochs if parents else None) or params.epochs,
        recipe=recipe,
        checkpoint=run.folder / CHECKPOINT,
        report=write_and_report,
    )
    run.write_history(progress.history)
    results = judge(model, prepared, progress, recipe)
    test = _test_clips(prepared)
    provenance = _provenance(prepared, progress, parents, started=started)
    run.finish(**results, provenance=provenance, test=test)
    return run.record


def judge(
    model: nn.Module, prepared: Prepared, progress: Progress, recipe: Recipe
) -> dict[str, Any]:
    """Score the test clips with the selected weights: the one time that they are read.

    Returns
    -------
    dict
        ``metrics``, ``scores`` and ``weights`` of every classifier, as `Run.finish` takes them.
    """
    split, data = prepared.split, prepared.data
    scores, found, weights = {}, {}, {}
    for selected, best in progress.best.items():
        model.load_state_dict(best["state"])
        on_validation = _scores(model, data, split.validation, recipe)
        for head, values in _scores(model, data, split.test, recipe).items():
            if selected not in ("joint", head):
                continue
            scores[head] = values
            found[head] = metrics.summary(data.targets[split.test], values)
            if len(split.validation):
                tags = _as_tags(data.targets[split.validation], data.n_classes)
                thresholds = metrics.choose_thresholds(tags, on_validation[head])
                found[head]["thresholds"] = thresholds.tolist()
            weights[head] = _weights_of(model, head)
    return {"metrics": found, "scores": scores, "weights": weights}


def _as_tags(targets: np.ndarray, n_classes: int) -> np.ndarray:
    return targets if targets.ndim == 2 else np.eye(n_classes)[targets]


def _scores(
    model: nn.Module, data: Data, rows: np.ndarray, recipe: Recipe
) -> dict[str, np.ndarray]:
    """Return scores (n, K) by classifier, rounded as they will be stored."""
    if not len(rows):
        return {}
    logits = predict(model, data, rows, recipe=recipe)
    return {
        head: probabilities(x, multi_label=data.multi_label).astype(np.float16).astype(np.float32)
        for head, x in logits.items()
    }


def _weights_of(model: nn.Module, head: str) -> dict[str, torch.Tensor]:
    network = model.branches[head] if isinstance(model, FusionKD) and head != FUSED else model
    return {key: tensor.detach().cpu().clone() for key, tensor in network.state_dict().items()}


def _test_clips(prepared: Prepared) -> TestClips:
    rows, table = prepared.split.test, prepared.clips.table
    columns = (table[name].to_numpy(str)[rows] for name in ("clip", "group"))
    return TestClips(*columns, prepared.data.targets[rows])


def _provenance(
    prepared: Prepared, progress: Progress, parents: list[Record], *, started: datetime
) -> Provenance:
    clips, split, device = prepared.clips, prepared.split, prepared.data.device
    return Provenance(
        kind="fusion" if parents else "branch",
        metric=metrics.official(clips.targets),
        dataset=clips.dataset,
        data=data_fingerprint(clips),
        data_status=clips.status,
        data_note=clips.note,
        classes=clips.classes,
        n_train=len(split.train),
        n_validation=len(split.validation),
        n_test=len(split.test),
        n_dropped=split.n_dropped,
        test_clips=_test_clips(prepared).digest,
        parents={parent.name: parent.digest for parent in parents},
        selected_epoch={name: best["epoch"] for name, best in progress.best.items()},
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        started=started.isoformat(timespec="seconds"),
        training_seconds=round(sum(row["seconds"] for row in progress.history), 1),
        **where_from(),
    )
