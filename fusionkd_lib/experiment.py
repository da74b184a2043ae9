"""The assembly of a run, step by step, as chapters 03 and 04 show it.

parameters -> clips and split -> spectrograms -> network -> fit -> scores and metrics -> run folder.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fusionkd_lib import metrics
from fusionkd_lib.batches import Data
from fusionkd_lib.datasets import Clips, sonyc_ust, urban_synth, urbansound8k
from fusionkd_lib.datasets.splits import Split, make_split
from fusionkd_lib.errors import InputError
from fusionkd_lib.features import fingerprint, load_spectrograms
from fusionkd_lib.machine import (
    resolve_device,
    resolve_fast_layers,
    resolve_precision,
    set_up_machine,
)
from fusionkd_lib.models import FUSED, Branch, FusionKD, FusionModule, Normalise, tap_channels
from fusionkd_lib.params import DATA_FOLDERS, Params
from fusionkd_lib.runs import (
    CHECKPOINT,
    COMPLETE,
    STOP_FILE,
    Run,
    file_digest,
    outputs_root,
    where_from,
)
from fusionkd_lib.training import Progress, Report, fit, predict, print_epoch, probabilities


@dataclass(frozen=True)
class Prepared:
    """Everything that a network is trained and judged on."""

    clips: Clips
    split: Split
    data: Data


def data_root(params: Params) -> Path:
    """Return the folder of a dataset on disk: ``data_root``, or $FUSIONKD_DATA/<data_folder>.

    Raises
    ------
    InputError
        Where neither is given.
    """
    if params.data_root:
        return Path(params.data_root)
    if not os.environ.get("FUSIONKD_DATA"):
        raise InputError(
            f"dataset = {params.dataset} needs its clips: set data_root, or FUSIONKD_DATA to the "
            f"folder that holds {params.data_folder or DATA_FOLDERS[params.dataset]}"
        )
    folder = params.data_folder or DATA_FOLDERS[params.dataset]
    return Path(os.environ["FUSIONKD_DATA"]) / folder


def open_clips(params: Params) -> Clips:
    """Return the clip table of a run."""
    if params.dataset == "urban_synth":
        return urban_synth.clips(
            clips_per_class=params.clips_per_class,
            n_folds=params.n_folds,
            duration=params.duration,
            seed=params.data_seed,
        )
    if params.dataset == "urban_synth_scenes":
        return urban_synth.scenes(
            n_scenes=params.n_scenes,
            n_folds=params.n_folds,
            duration=params.duration,
            seed=params.data_seed,
        )
    root = data_root(params)
    if params.dataset == "urbansound8k":
        clips = urbansound8k.clips(root, allow_partial=params.allow_partial)
        return replace(clips, status=params.data_status or clips.status)
    return sonyc_ust.clips(
        root,
        level=params.level,
        labels=params.labels,
        coarse_labels=params.coarse_labels,
        allow_partial=params.allow_partial,
        status=params.data_status,
    )


def prepare(params: Params) -> Prepared:
    """Open the clips of a run, split them, and compute or open their spectrograms."""
    clips = open_clips(params)
    split = make_split(clips, params)
    spectrograms = load_spectrograms(clips, params, outputs_root() / "features")
    device = resolve_device(params.device)
    return Prepared(clips, split, Data(spectrograms, clips.targets, len(clips.classes), device))


def build_branch(params: Params, name: str, n_classes: int, normalise: Normalise) -> Branch:
    """Build one branch, its first weights drawn by the seed."""
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
    )


def build_fusion(params: Params, branches: list[Branch], n_classes: int) -> FusionKD:
    """Put the fusion module over pretrained branches, its first weights drawn by the seed."""
    torch.manual_seed(params.seed)
    hidden = (params.head[0] * len(branches), params.head[1])
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


def train_branch(params: Params, name: str, *, report: Report = print_epoch) -> Run:
    """Pretrain one branch (section III-B), or return its run where that is finished.

    Parameters
    ----------
    name
        The representation.
    report
        As of `fit`.
    """
    run = Run.of(params, branch=name)
    with run.held():
        if run.is_complete:
            return run
        set_up_machine(params)
        params = params.replace(representations=[name], branch=None)
        prepared = prepare(params)
        normalise = training_statistics(prepared.data.spectrograms[name], prepared.split.train)
        model = build_branch(params, name, prepared.data.n_classes, normalise)
        return _train(run, model, prepared, params, parents=[], report=report)


def train_fusion(params: Params, *, report: Report = print_epoch) -> Run:
    """Fuse the pretrained branches and distil back (sections III-C and III-D).

    Branches that are not trained yet are trained first.
    """
    run = Run.of(params)
    if run.is_complete:
        return run
    if len(params.representations) < 2:
        raise InputError(f"representations = {list(params.representations)}: fusion needs two")
    parents = [train_branch(params, name, report=report) for name in params.representations]
    with run.held():
        if run.is_complete:
            return run
        set_up_machine(params)
        prepared = prepare(params)
        _refuse_other_data(parents, data_fingerprint(prepared.clips))
        branches = [load_branch(parent) for parent in parents]
        for branch in branches:
            branch.tap = len(branch.trunk) + params.tap
        model = build_fusion(params, branches, prepared.data.n_classes)
        return _train(run, model, prepared, params, parents=parents, report=report)


def load_branch(run: Run, name: str | None = None) -> Branch:
    """Build a trained branch, of its own run or of a fusion run, with its weights.

    Raises
    ------
    InputError
        Where the run is unfinished, or the weights are another network's.
    """
    name = name or run.params.representations[0]
    model = build_branch(
        run.params.replace(weights="scratch"), name, len(run.provenance["classes"]), Normalise()
    )
    load_weights(model, run.weights(name), source=run.folder / f"{name}.safetensors")
    return model


def load_fusion(run: Run) -> FusionKD:
    """Build a trained fused network with its weights."""
    params, n_classes = run.params.replace(weights="scratch"), len(run.provenance["classes"])
    names = params.representations
    branches = [build_branch(params, name, n_classes, Normalise()) for name in names]
    model = build_fusion(params, branches, n_classes)
    load_weights(model, run.weights(FUSED), source=run.folder / f"{FUSED}.safetensors")
    return model


def load_weights(model: nn.Module, state: Mapping[str, torch.Tensor], *, source: Path) -> None:
    """Load weights that must be exactly this network's."""
    try:
        model.load_state_dict(state)
    except RuntimeError:
        wanted = model.state_dict()
        odd = sorted(
            (set(wanted) ^ set(state))
            | {k for k in set(wanted) & set(state) if wanted[k].shape != state[k].shape}
        )
        raise InputError(
            f"{source}: these are the weights of another network ({odd[0]} differs): use the run "
            "that they came from"
        ) from None


def _refuse_other_data(parents: list[Run], data: str) -> None:
    for parent in parents:
        if parent.provenance["data"] != data:
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
    parents: list[Run],
    report: Report,
) -> Run:
    run.begin(params)
    started = datetime.now(UTC)

    def write_and_report(history: list[dict[str, float]], n_epochs: int) -> None:
        run.write_history(history)
        report(history, n_epochs)
        if len(history) < n_epochs and os.path.exists(os.environ.get(STOP_FILE, "")):
            raise InputError(f"stopped after epoch {len(history)}: start it again to go on")

    data = prepared.data
    if params.store_on_device and data.device.type != "cpu":
        data = data.on_device()
    progress = fit(
        model,
        data,
        prepared.split.train,
        prepared.split.validation,
        n_epochs=(params.joint_epochs if parents else None) or params.epochs,
        params=params,
        checkpoint=run.folder / CHECKPOINT,
        report=write_and_report,
    )
    run.write_history(progress.history)
    results = judge(model, prepared, progress, params)
    provenance = _provenance(prepared, params, parents) | {
        "selected_epoch": {name: best["epoch"] for name, best in progress.best.items()},
        "started": started.isoformat(timespec="seconds"),
        "training_seconds": round(sum(row["seconds"] for row in progress.history), 1),
    }
    run.finish(**results, provenance=provenance)
    return run


def judge(
    model: nn.Module, prepared: Prepared, progress: Progress, params: Params
) -> dict[str, Any]:
    """Score the test clips with the selected weights: the one time that they are read.

    Returns
    -------
    dict
        ``metrics``, ``scores`` and ``weights`` of every classifier, as `Run.finish` takes them.
    """
    split, data, table = prepared.split, prepared.data, prepared.clips.table
    scores = {"clips": table["clip"].to_numpy(str)[split.test]}
    scores |= {
        "groups": table["group"].to_numpy(str)[split.test],
        "targets": data.targets[split.test],
    }
    figures, weights = {}, {}
    for selected, best in progress.best.items():
        model.load_state_dict(best["state"])
        on_validation = _scores(model, prepared, split.validation, params)
        for name, values in _scores(model, prepared, split.test, params).items():
            if selected not in ("joint", name):
                continue
            scores[name] = values
            figures[name] = metrics.summary(scores["targets"], values)
            if len(split.validation):
                figures[name]["thresholds"] = metrics.choose_thresholds(
                    _as_tags(data.targets[split.validation], data.n_classes), on_validation[name]
                ).tolist()
            weights[name] = _weights_of(model, name)
    return {"metrics": figures, "scores": scores, "weights": weights}


def _as_tags(targets: np.ndarray, n_classes: int) -> np.ndarray:
    return targets if targets.ndim == 2 else np.eye(n_classes)[targets]


def _scores(
    model: nn.Module, prepared: Prepared, rows: np.ndarray, params: Params
) -> dict[str, np.ndarray]:
    if not len(rows):
        return {}
    logits = predict(model, prepared.data, rows, params=params)
    multi_label = prepared.data.multi_label
    return {name: probabilities(x, multi_label=multi_label) for name, x in logits.items()}


def _weights_of(model: nn.Module, name: str) -> dict[str, torch.Tensor]:
    network = model.branches[name] if isinstance(model, FusionKD) and name != FUSED else model
    return {key: tensor.detach().cpu().clone() for key, tensor in network.state_dict().items()}


def _provenance(prepared: Prepared, params: Params, parents: list[Run]) -> dict[str, Any]:
    clips, split = prepared.clips, prepared.split
    device = prepared.data.device
    return where_from() | {
        "kind": "fusion" if parents else "branch",
        "dataset": clips.dataset,
        "data": data_fingerprint(clips),
        "data_status": clips.status,
        "data_note": clips.note,
        "classes": list(clips.classes),
        "n_train": len(split.train),
        "n_validation": len(split.validation),
        "n_test": len(split.test),
        "n_dropped": split.n_dropped,
        "parents": {parent.name: file_digest(parent.folder / COMPLETE) for parent in parents},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": resolve_precision(params.precision),
        "fast_layers": resolve_fast_layers(params.fast_layers, device),
        "threads": params.threads,
        "seed": params.seed,
    }


def data_fingerprint(clips: Clips) -> str:
    """Return the name of everything in a clip table, from the cache of digests of the stores."""
    return fingerprint(clips, cache=outputs_root() / "features" / "digests.json")
