"""The training step, epoch, fit, predict, checkpoint and resume (section IV-D).

A run that is stopped and started again goes on from its last epoch and ends, on the CPU with the
same number of threads, bit for bit where an uninterrupted one ends: everything that changes from
epoch to epoch is in the checkpoint, and what is drawn at random depends on the seed and the epoch
alone.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fusionkd_lib import losses
from fusionkd_lib.augmentation import augment
from fusionkd_lib.batches import Data, batches, chance_of, shares, shuffled
from fusionkd_lib.errors import InputError
from fusionkd_lib.speed import autocast, set_up_model
from fusionkd_lib.storage import replacing

Values = dict[str, float]
ByHead = dict[str, np.ndarray]
Report = Callable[[list[Values], int], None]
# Spectrograms by representation, targets, and the part's share of the batch by kind of term.
Part = tuple[Mapping[str, Tensor], Tensor, Mapping[str, Tensor | float]]
WHOLE = {"ce": 1.0, "kd": 1.0}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are the paper's, or our reading of it.

    Parameters
    ----------
    batch_size, micro_batch
        Clips in a step, and in each of its parts where one does not fit into memory.
    optimizer, lr, weight_decay
        ``"amsgrad"`` (the paper's) or ``"adamw"``.
    schedule
        ``"plateau"``: the rate is cut by ``lr_factor`` after ``patience`` epochs without a better
        validation loss (the paper's); ``"one_cycle"``: it rises for a share ``warm_up`` of the
        steps, then falls to 0 along a cosine.
    augmentation, views, mixup_alpha
        As of `augment`.
    ema_decay
        Of the moving average of weights and BatchNorm statistics that is judged in their place.
    distillation
        How the branches of a fused network learn from it.
    fused_weight
        As of `losses.total_loss`.
    select
        ``"joint"``: one best epoch for all classifiers; ``"per_head"``: each has its own;
        ``"last"``: the last epoch.
    seed
        Decides the order of the clips and how they are varied.
    shortcuts
        Names of `speed`.
    """

    batch_size: int = 64
    micro_batch: int | None = None
    optimizer: str = "amsgrad"
    lr: float = 0.01
    schedule: str = "plateau"
    warm_up: float = 0.1
    lr_factor: float = 0.1
    patience: int = 5
    weight_decay: float = 0.0
    augmentation: tuple[str, ...] = ()
    views: str = "same"
    mixup_alpha: float = 0.3
    ema_decay: float | None = None
    distillation: losses.Distillation = losses.PAPER
    fused_weight: float = 1.0
    select: str = "joint"
    seed: int = 0
    shortcuts: tuple[str, ...] = ()


PAPER = Recipe()


def train_step(
    model: nn.Module,
    optimizer: Optimizer,
    parts: Iterable[Part],
    *,
    multi_label: bool = False,
    kd_weight: float = 0.0,
    recipe: Recipe = PAPER,
) -> losses.Terms:
    """Take one step down the gradient of Eq. 1 for a branch, of Eq. 4 for a fused network.

    Parameters
    ----------
    parts
        The batch, as a rule in one part: (spectrograms, targets, `WHOLE`).
    kd_weight
        lambda of this step.
    recipe
        Its ``distillation``, ``fused_weight`` and ``shortcuts`` count here.

    Returns
    -------
    dict
        The loss terms of the batch by name, and their total as ``loss``.
    """
    optimizer.zero_grad(set_to_none=True)
    step: losses.Terms = {}
    for spectrograms, targets, share in parts:
        with autocast(targets.device, recipe.shortcuts):
            output = model(spectrograms)
        terms = losses.classification_terms(output, targets, multi_label=multi_label)  # Eq. 1 or 3
        terms |= losses.distillation_terms(output, recipe.distillation, multi_label=multi_label)
        terms = {name: share[name[:2]] * term for name, term in terms.items()}
        total = losses.total_loss(terms, kd_weight=kd_weight, fused_weight=recipe.fused_weight)
        total.backward()
        for name, term in (terms | {"loss": total}).items():
            step[name] = step.get(name, 0.0) + term.detach()
    optimizer.step()
    return step


def train_epoch(
    model: nn.Module,
    optimizer: Optimizer,
    data: Data,
    rows: np.ndarray,
    *,
    epoch: int,
    kd_weight: float,
    recipe: Recipe,
) -> Values:
    """Train on every row once; return the mean of each loss term over the clips."""
    model.train()
    generator = chance_of(seed=recipe.seed, epoch=epoch)
    settings = {"multi_label": data.multi_label, "kd_weight": kd_weight, "recipe": recipe}
    sums: losses.Terms = {}
    for batch in batches(shuffled(rows, seed=recipe.seed, epoch=epoch), recipe.batch_size):
        step = train_step(model, optimizer, _parts(data, batch, generator, recipe), **settings)
        for name, term in step.items():
            # Summed where it is: to read a figure would wait for the device in every step.
            sums[name] = sums.get(name, 0.0) + term * len(batch)
    return {name: float(total) / len(rows) for name, total in sums.items()}


def _parts(data: Data, batch: np.ndarray, generator: torch.Generator, recipe: Recipe) -> list[Part]:
    settings = {"generator": generator, "views": recipe.views, "alpha": recipe.mixup_alpha}
    varied = [
        augment(recipe.augmentation, *data.batch(rows), n_classes=data.n_classes, **settings)
        for rows in batches(batch, recipe.micro_batch or recipe.batch_size)
    ]
    weights = shares([targets for _, targets in varied])
    return [(*part, share) for part, share in zip(varied, weights, strict=True)]


@torch.inference_mode()
def predict(model: nn.Module, data: Data, rows: np.ndarray, *, recipe: Recipe) -> ByHead:
    """Return the logits (n, K) of every classifier, in evaluation mode; nothing of no rows.

    They are computed in single precision, whatever the network trains in: rounding to bfloat16
    names many clips otherwise, and which ones is luck.
    """
    model.eval()
    logits: dict[str, list[Tensor]] = {}
    for batch in batches(rows, recipe.micro_batch or recipe.batch_size) if len(rows) else ():
        inputs, _ = data.batch(batch)
        for name, values in model(inputs).logits_by_head().items():
            logits.setdefault(name, []).append(values)
    return {name: torch.cat(values).cpu().numpy() for name, values in logits.items()}


def probabilities(logits: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """Logits (n, K) -> scores (n, K) in [0, 1]."""
    values = torch.from_numpy(logits)
    return (torch.sigmoid(values) if multi_label else torch.softmax(values, dim=1)).numpy()


def validation_losses(model: nn.Module, data: Data, rows: np.ndarray, *, recipe: Recipe) -> Values:
    """Return the classification loss of every classifier; their sum is Eq. 1 or Eq. 3."""
    targets = torch.from_numpy(data.targets[rows])
    loss = partial(losses.classification_loss, targets=targets, multi_label=data.multi_label)
    logits = predict(model, data, rows, recipe=recipe)
    return {name: loss(torch.from_numpy(x)).item() for name, x in logits.items()}


@dataclass
class Progress:
    """What a fit has come to: the epochs behind it and the best weights so far.

    ``best`` has one entry ``"joint"``, or with ``select: per_head`` one per classifier.
    """

    history: list[Values] = field(default_factory=list)
    best: dict[str, dict[str, Any]] = field(default_factory=dict)

    def keep_best(self, criteria: Mapping[str, float], model: nn.Module) -> None:
        """Keep the weights where a criterion is lower than ever before."""
        for name, value in criteria.items():
            if name not in self.best or value < self.best[name]["value"]:
                state = {key: x.detach().cpu().clone() for key, x in model.state_dict().items()}
                self.best[name] = {"value": value, "epoch": len(self.history), "state": state}


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """AMSGrad Adam (section IV-D), or AdamW (Loshchilov and Hutter 2019)."""
    settings = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    settings["fused"] = "fused_optimizer" in recipe.shortcuts or None
    if recipe.optimizer == "adamw":
        return AdamW(model.parameters(), **settings)
    return Adam(model.parameters(), amsgrad=True, **settings)


def one_cycle(progress: float, *, warm_up: float) -> float:
    """Return the share of the highest learning rate at a share of all steps (Smith 2018).

    >>> [round(one_cycle(p, warm_up=0.1), 3) for p in (0.05, 0.1, 0.55, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if progress < warm_up:
        return progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


def make_schedule(optimizer: Optimizer, recipe: Recipe, *, n_steps: int) -> LRScheduler:
    """Return the schedule of the learning rate over that many steps."""
    if recipe.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, factor=recipe.lr_factor, patience=recipe.patience)
    cycle = partial(one_cycle, warm_up=recipe.warm_up)
    # The first step is not taken at a rate of 0, nor the last.
    return LambdaLR(optimizer, lambda step: cycle((step + 1) / (n_steps + 1)))


def print_epoch(history: list[Values], n_epochs: int) -> None:
    """Print one line for a person who watches."""
    row = history[-1]
    validation = f"  validation {row['val_loss']:.3f}" if "val_loss" in row else ""
    epoch = f"epoch {row['epoch']:3d}/{n_epochs}  loss {row['loss']:.3f}{validation}"
    print(f"{epoch}  lr {row['lr']:.0e}  {row['seconds']:.1f} s")


def fit(
    model: nn.Module,
    data: Data,
    train: np.ndarray,
    validation: np.ndarray,
    *,
    n_epochs: int,
    recipe: Recipe,
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
    n_steps = n_epochs * len(batches(train, recipe.batch_size))
    parts = _set_up(model, data.device, recipe, n_steps)
    optimizer, judged = parts["optimizer"], parts["average"].module if "average" in parts else model
    progress = load_checkpoint(checkpoint, parts)
    for epoch in range(len(progress.history), n_epochs):
        started, lr = time.perf_counter(), optimizer.param_groups[0]["lr"]
        kd_weight = recipe.distillation.weight_at(epoch, n_epochs=n_epochs)
        row = {"epoch": epoch + 1, "lr": lr, "kd_weight": kd_weight}
        settings = {"epoch": epoch, "kd_weight": kd_weight, "recipe": recipe}
        row |= train_epoch(model, optimizer, data, train, **settings)
        validated = validation_losses(judged, data, validation, recipe=recipe)
        row |= {f"val_ce_{head}": loss for head, loss in validated.items()}
        if validated:
            row["val_loss"] = sum(validated.values())
        _refuse_divergence(row)
        criterion = row.get("val_loss", row["loss"])
        if recipe.schedule == "plateau":
            parts["schedule"].step(criterion)
        row["seconds"] = round(time.perf_counter() - started, 3)
        progress.history.append(row)
        if recipe.select == "last" or not validated:
            progress.best.clear()
        by_head = validated if recipe.select == "per_head" else {}
        progress.keep_best(by_head or {"joint": criterion}, judged)
        save_checkpoint(checkpoint, parts, progress)
        report(progress.history, n_epochs)
    return progress


def _set_up(model: nn.Module, device: torch.device, recipe: Recipe, n_steps: int) -> dict[str, Any]:
    """Return what a fit carries from step to step and a checkpoint keeps.

    After each step of the optimiser the schedule moves on, where it goes by steps, and the moving
    average follows.
    """
    set_up_model(model, device, recipe.shortcuts)
    optimizer = make_optimizer(model, recipe)
    schedule = make_schedule(optimizer, recipe, n_steps=n_steps)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    if recipe.schedule == "one_cycle":
        optimizer.register_step_post_hook(lambda *_: schedule.step())
    if recipe.ema_decay is not None:
        averaging = get_ema_multi_avg_fn(recipe.ema_decay)
        average = AveragedModel(model, multi_avg_fn=averaging, use_buffers=True)
        optimizer.register_step_post_hook(lambda *_: average.update_parameters(model))
        parts["average"] = average
    return parts


def _refuse_divergence(row: Mapping[str, float]) -> None:
    terms = ", ".join(f"{name} = {value:.3g}" for name, value in row.items() if name != "epoch")
    if not all(map(math.isfinite, row.values())):
        raise InputError(f"training diverged in epoch {row['epoch']} ({terms}): use a smaller lr")


def save_checkpoint(path: Path, parts: Mapping[str, Any], progress: Progress) -> None:
    """Write the state after an epoch, so that the file is the old one or the whole new one."""
    state = {name: part.state_dict() for name, part in parts.items()} | vars(progress)
    with replacing(path) as partial:
        torch.save(state, partial)


def load_checkpoint(path: Path, parts: Mapping[str, Any]) -> Progress:
    """Restore the state after the last epoch; where there is no checkpoint, begin."""
    if not path.is_file():
        return Progress()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return Progress(history=state["history"], best=state["best"])
    except Exception as error:  # whatever torch finds wrong with a file, the way out is one
        fault = f"this checkpoint cannot be read ({type(error).__name__})"
        raise InputError(f"{path}: {fault}: delete it, and the run begins anew") from None
