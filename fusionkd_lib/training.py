"""Epoch, fit, predict, checkpoint and resume (section IV-D).

A run that is stopped and started again goes on from its last epoch and ends, on the CPU with the
same number of threads, bit for bit where an uninterrupted one ends: everything that changes from
epoch to epoch is in the checkpoint, and what is drawn at random depends on the seed and the epoch
alone.
"""

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fusionkd_lib import losses
from fusionkd_lib.augmentation import augment
from fusionkd_lib.batches import Data, batches, shuffled
from fusionkd_lib.errors import InputError
from fusionkd_lib.fast_layers import use_fast_layers
from fusionkd_lib.machine import autocast, resolve_fast_layers
from fusionkd_lib.models import Branch, Output
from fusionkd_lib.params import Params

Report = Callable[[list[dict[str, float]], int], None]


def apply(model: nn.Module, spectrograms: Mapping[str, Tensor]) -> Output:
    """Run a branch on its own representation, or a fused network on all of them."""
    return model(spectrograms[model.name] if isinstance(model, Branch) else spectrograms)


def loss_terms(
    output: Output, targets: Tensor, *, multi_label: bool, params: Params
) -> dict[str, Tensor]:
    """Return the named terms of Eq. 1 for a branch, of Eq. 4 for a fused network."""
    return losses.classification_terms(output, targets, multi_label=multi_label) | (
        losses.distillation_terms(
            output,
            kind=params.kd_loss,
            temperature=params.temperature,
            detach_teacher=params.detach_teacher,
            multi_label=multi_label,
        )
    )


def kd_weight(epoch: int, *, n_epochs: int, params: Params) -> float:
    """Return the ramped lambda of an epoch, counted from 0."""
    progress = losses.ramp_progress(epoch, params.ramp_epochs or n_epochs)
    return params.kd_weight * losses.ramp(progress)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Data,
    rows: np.ndarray,
    *,
    epoch: int,
    weight: float,
    params: Params,
) -> dict[str, float]:
    """Train on every row once; return the mean of each loss term over the clips."""
    model.train()
    generator = torch.Generator().manual_seed(params.seed * 1_000_003 + epoch)
    sums: dict[str, Tensor] = {}
    for batch in batches(shuffled(rows, seed=params.seed, epoch=epoch), params.batch_size):
        optimizer.zero_grad(set_to_none=True)
        for part in batches(batch, params.micro_batch or params.batch_size):
            inputs, targets = data.batch(part)
            inputs, targets = augment(
                params.augmentation, inputs, targets, n_classes=data.n_classes, generator=generator
            )
            with autocast(params, data.device):
                output = apply(model, inputs)
            terms = loss_terms(output, targets, multi_label=data.multi_label, params=params)
            total = losses.total_loss(terms, kd_weight=weight)
            (total * (len(part) / len(batch))).backward()
            for name, term in (terms | {"loss": total}).items():
                # Summed where it is: to read a figure would wait for the device in every step.
                sums[name] = sums.get(name, 0.0) + term.detach() * len(part)
        optimizer.step()
    return {name: float(total) / len(rows) for name, total in sums.items()}


@torch.inference_mode()
def predict(
    model: nn.Module, data: Data, rows: np.ndarray, *, params: Params
) -> dict[str, np.ndarray]:
    """Return the logits (len(rows), K) of every classifier, in evaluation mode."""
    model.eval()
    logits: dict[str, list[Tensor]] = {}
    for batch in batches(rows, params.micro_batch or params.batch_size):
        inputs, _ = data.batch(batch)
        with autocast(params, data.device):
            output = apply(model, inputs)
        for name, values in output.logits_by_head().items():
            logits.setdefault(name, []).append(values.float())
    return {name: torch.cat(values).cpu().numpy() for name, values in logits.items()}


def probabilities(logits: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """Logits (n, K) -> scores (n, K) in [0, 1]."""
    values = torch.from_numpy(logits)
    return (torch.sigmoid(values) if multi_label else torch.softmax(values, dim=1)).numpy()


def validation_losses(
    model: nn.Module, data: Data, rows: np.ndarray, *, params: Params
) -> dict[str, float]:
    """Return the classification loss of every classifier; their sum is Eq. 1 or Eq. 3."""
    targets = torch.from_numpy(data.targets[rows])
    return {
        name: float(
            losses.classification_loss(
                torch.from_numpy(logits), targets, multi_label=data.multi_label
            )
        )
        for name, logits in predict(model, data, rows, params=params).items()
    }


@dataclass
class Progress:
    """What a fit has come to: the epochs behind it and the best weights so far.

    ``best`` is one entry ``"joint"``, or with ``select: per_head`` one for each classifier.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, dict[str, Any]] = field(default_factory=dict)

    def keep_best(self, criteria: Mapping[str, float], model: nn.Module) -> None:
        """Keep the weights where a criterion is lower than ever before."""
        for name, value in criteria.items():
            if name not in self.best or value < self.best[name]["value"]:
                state = {key: x.detach().cpu().clone() for key, x in model.state_dict().items()}
                self.best[name] = {"value": value, "epoch": len(self.history), "state": state}


def make_optimizer(model: nn.Module, params: Params) -> torch.optim.Optimizer:
    """AMSGrad Adam (section IV-D)."""
    return torch.optim.Adam(
        model.parameters(),
        lr=params.lr,
        weight_decay=params.weight_decay,
        amsgrad=True,
        fused=params.fused_optimizer or None,
    )


def print_epoch(history: list[dict[str, float]], n_epochs: int) -> None:
    """Print one line for a person who watches."""
    row = history[-1]
    validation = f"  validation {row['val_loss']:.3f}" if "val_loss" in row else ""
    print(
        f"epoch {row['epoch']:3d}/{n_epochs}  loss {row['loss']:.3f}{validation}  "
        f"lr {row['lr']:.0e}  {row['seconds']:.1f} s"
    )


def set_up_model(model: nn.Module, device: torch.device, params: Params) -> None:
    """Have a network on its device, in the layout and with the layers that a run asks for."""
    model.to(device)
    if params.channels_last:
        model.to(memory_format=torch.channels_last)
    if resolve_fast_layers(params.fast_layers, device):
        use_fast_layers(model)


def fit(
    model: nn.Module,
    data: Data,
    train: np.ndarray,
    validation: np.ndarray,
    *,
    n_epochs: int,
    params: Params,
    checkpoint: Path,
    report: Report = print_epoch,
) -> Progress:
    """Train a branch or a fused network, from its last checkpoint where there is one.

    Parameters
    ----------
    train, validation
        Row numbers; without validation rows the last epoch is kept, and the training loss drives
        the learning rate.
    checkpoint
        File that holds the whole state after each epoch.
    report
        Called after each epoch with the history so far and the number of epochs.

    Raises
    ------
    InputError
        Where training diverges, naming the epoch and the terms, or the checkpoint is unreadable.

    Source: section IV-D.
    """
    set_up_model(model, data.device, params)
    optimizer = make_optimizer(model, params)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=params.lr_factor, patience=params.patience
    )
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    progress = load_checkpoint(checkpoint, parts)
    for epoch in range(len(progress.history), n_epochs):
        started = time.perf_counter()
        row: dict[str, float] = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"]}
        row["kd_weight"] = kd_weight(epoch, n_epochs=n_epochs, params=params)
        row |= train_epoch(
            model, optimizer, data, train, epoch=epoch, weight=row["kd_weight"], params=params
        )
        criteria = _validate(model, data, validation, row, params)
        _refuse_divergence(row)
        schedule.step(sum(criteria.values()))
        row["seconds"] = round(time.perf_counter() - started, 3)
        progress.history.append(row)
        _keep(progress, criteria, model, last_epoch=not len(validation), params=params)
        save_checkpoint(checkpoint, parts, progress)
        report(progress.history, n_epochs)
    return progress


def _validate(
    model: nn.Module, data: Data, rows: np.ndarray, row: dict[str, float], params: Params
) -> dict[str, float]:
    """Add the validation losses to an epoch's row; return what drives schedule and selection."""
    if not len(rows):
        return {"joint": row["loss"]}
    criteria = validation_losses(model, data, rows, params=params)
    row |= {f"val_ce_{name}": value for name, value in criteria.items()}
    row["val_loss"] = sum(criteria.values())
    return criteria


def _keep(
    progress: Progress,
    criteria: Mapping[str, float],
    model: nn.Module,
    *,
    last_epoch: bool,
    params: Params,
) -> None:
    if last_epoch:
        progress.best.clear()
    joint = params.select == "joint" or last_epoch
    progress.keep_best({"joint": sum(criteria.values())} if joint else criteria, model)


def _refuse_divergence(row: Mapping[str, float]) -> None:
    if all(math.isfinite(value) for value in row.values()):
        return
    terms = ", ".join(f"{name} = {value:.3g}" for name, value in row.items() if name != "epoch")
    raise InputError(
        f"training diverged in epoch {row['epoch']} ({terms}): use a smaller lr than the "
        "parameters have"
    )


def save_checkpoint(path: Path, parts: Mapping[str, Any], progress: Progress) -> None:
    """Write the state after an epoch, so that the file is the old one or the whole new one."""
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"history": progress.history, "best": progress.best}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def load_checkpoint(path: Path, parts: Mapping[str, Any]) -> Progress:
    """Restore the state after the last epoch; where there is no checkpoint, begin."""
    if not path.exists():
        return Progress()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return Progress(history=state["history"], best=state["best"])
    except Exception as error:  # whatever torch finds wrong with a file, the way out is one
        raise InputError(
            f"{path}: this checkpoint cannot be gone on from ({type(error).__name__}): delete it, "
            "and the run begins anew"
        ) from None
