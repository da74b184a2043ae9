"""Training: it learns, it goes on where it stopped bit for bit, and it selects on validation."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional as F

from fusionkd_lib import experiment, speed, training
from fusionkd_lib.augmentation import augment
from fusionkd_lib.batches import Data, batches, chance_of, shares, shuffled
from fusionkd_lib.cli import main
from fusionkd_lib.datasets.splits import make_split
from fusionkd_lib.errors import InputError
from fusionkd_lib.losses import Distillation
from fusionkd_lib.models import FUSED, Branch, FusionKD, FusionModule, Output
from fusionkd_lib.params import AUGMENTATIONS
from fusionkd_lib.speed import resolve, resolve_device
from fusionkd_lib.speed.fast_layers import FastStem
from fusionkd_lib.training import (
    WHOLE,
    Progress,
    Recipe,
    fit,
    one_cycle,
    predict,
    probabilities,
    train_epoch,
    train_step,
    validation_losses,
)

K, T = 3, 33
BINS = {"logmel": 32, "cqt": 40}
TRAIN, VALIDATION, TEST = np.arange(24), np.arange(24, 33), np.arange(33, 39)
FASTER = resolve("all", torch.device("cpu"))  # on this machine
has_bfloat16 = pytest.mark.skipif(
    "bfloat16" not in FASTER, reason="this processor does not compute in bfloat16"
)


def toy(*, multi_label: bool = False, seed: int = 0) -> Data:
    """Clips of three classes, each a band of its own that is 2 above unit noise."""
    generator = np.random.default_rng(seed)
    targets = generator.permutation(np.arange(39) % K)
    spectrograms = {}
    for name, n_bins in BINS.items():
        x = generator.standard_normal((39, n_bins, T)).astype(np.float32)
        for row, target in enumerate(targets):
            x[row, 10 * target : 10 * target + 10] += 2
        spectrograms[name] = x
    return Data(spectrograms, np.eye(K, dtype=np.float32)[targets] if multi_label else targets, K)


def branch(seed: int = 0) -> Branch:
    torch.manual_seed(seed)
    return Branch("logmel", K, width=0.25, hidden=(16, 8))


def fused(seed: int = 0) -> FusionKD:
    torch.manual_seed(seed)
    branches = [Branch(name, K, width=0.25, hidden=(16, 8)) for name in BINS]
    return FusionKD(branches, FusionModule([1280, 1280], K, hidden=(32, 8)))


class Linear(nn.Module):
    """Softmax regression: no BatchNorm, and gradients in closed form."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(BINS["logmel"] * T, K)

    def forward(self, spectrograms: dict[str, torch.Tensor]) -> Output:
        x = spectrograms["logmel"]
        return Output("linear", self.linear(x.flatten(1)), x)


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(batch_size=8, lr=0.003)


def train(
    model: nn.Module,
    folder: Path,
    recipe: Recipe,
    *,
    data: Data | None = None,
    n_epochs: int = 3,
    rows: np.ndarray = TRAIN,
    validation: np.ndarray = VALIDATION,
    report=lambda history, n_epochs: None,
) -> Progress:
    return fit(
        model,
        data or toy(),
        rows,
        validation,
        n_epochs=n_epochs,
        recipe=recipe,
        checkpoint=folder / "checkpoint.pt",
        report=report,
    )


class PowerCutError(Exception):
    """What interrupts a run."""


def cut_after(epoch: int):
    def report(history, n_epochs):
        if len(history) == epoch:
            raise PowerCutError

    return report


def column(progress: Progress, name: str) -> list[float]:
    return [row[name] for row in progress.history]


def untimed(progress: Progress) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in progress.history]


def assert_same(model: nn.Module, progress: Progress, other: nn.Module, others: Progress) -> None:
    """Assert that two trainings agree in every bit."""
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert untimed(progress) == untimed(others)
    torch.testing.assert_close(progress.best, others.best, rtol=0, atol=0)


# One step, written out


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.003, amsgrad=True)


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if targets.ndim == 1:
        return F.cross_entropy(logits, targets)
    terms = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return terms.sum() / terms.numel()  # every tag of these clips is annotated


def told(step: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in step.items()}


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_step_of_a_branch_is_eq_1_bit_for_bit(multi_label):
    spectrograms, targets = toy(multi_label=multi_label).batch(TRAIN[:8])
    ours, by_hand = branch(), branch()
    optimizers = [optimizer_of(network) for network in (ours, by_hand)]
    for _ in range(3):
        step = train_step(
            ours, optimizers[0], [(spectrograms, targets, WHOLE)], multi_label=multi_label
        )
        loss = cross_entropy(by_hand(spectrograms).logits, targets)
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        assert told(step) == {"ce_logmel": loss.item(), "loss": loss.item()}
    torch.testing.assert_close(ours.state_dict(), by_hand.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_step_of_a_fused_network_is_eq_2_to_4_bit_for_bit(multi_label):
    spectrograms, targets = toy(multi_label=multi_label).batch(TRAIN[:8])
    ours, by_hand = fused(), fused()
    optimizers = [optimizer_of(network) for network in (ours, by_hand)]
    for _ in range(3):
        step = train_step(
            ours,
            optimizers[0],
            [(spectrograms, targets, WHOLE)],
            multi_label=multi_label,
            kd_weight=0.4,
        )
        output = by_hand(spectrograms)
        logmel, cqt = (output.branches[name].logits for name in ("logmel", "cqt"))
        teacher = output.logits.detach()
        terms = {
            "ce_logmel": cross_entropy(logmel, targets),
            "ce_cqt": cross_entropy(cqt, targets),
            "ce_fused": cross_entropy(output.logits, targets),
            "kd_logmel": F.mse_loss(logmel, teacher),
            "kd_cqt": F.mse_loss(cqt, teacher),
        }
        eq_3 = terms["ce_logmel"] + terms["ce_cqt"] + terms["ce_fused"]
        loss = eq_3 + 0.4 * (terms["kd_logmel"] + terms["kd_cqt"])
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        assert told(step) == told(terms) | {"loss": loss.item()}
    torch.testing.assert_close(ours.state_dict(), by_hand.state_dict(), rtol=0, atol=0)


def test_without_the_fused_loss_and_lambda_each_branch_is_trained_as_alone_bit_for_bit():
    spectrograms, targets = toy().batch(TRAIN[:8])
    ours, apart = fused(), fused().branches
    ours_optimizer = optimizer_of(ours)
    optimizers = {name: optimizer_of(network) for name, network in apart.items()}
    for _ in range(3):
        whole = [(spectrograms, targets, WHOLE)]
        train_step(ours, ours_optimizer, whole, recipe=Recipe(fused_weight=0.0))
        for name, network in apart.items():
            optimizers[name].zero_grad()
            cross_entropy(network(spectrograms).logits, targets).backward()
            optimizers[name].step()
    torch.testing.assert_close(ours.branches.state_dict(), apart.state_dict(), rtol=0, atol=0)


# Learning


@pytest.mark.parametrize("multi_label", [False, True])
def test_every_head_learns_a_single_batch_by_heart(recipe, tmp_path, multi_label):
    recipe = replace(recipe, lr=0.01, batch_size=12)
    data, rows = toy(multi_label=multi_label), TRAIN[:12]
    progress = train(fused(), tmp_path, recipe, data=data, rows=rows, n_epochs=10)
    for head in (*BINS, FUSED):
        losses = column(progress, f"ce_{head}")
        assert losses[0] == pytest.approx(math.log(2 if multi_label else K), rel=0.3)
        assert losses[-1] < 0.8 * losses[0]


def test_what_is_learned_holds_for_clips_never_seen(recipe, tmp_path):
    model = Linear()
    train(model, tmp_path, recipe)
    logits = predict(model, toy(), TEST, recipe=recipe)["linear"]
    assert logits.argmax(axis=1).tolist() == toy().targets[TEST].tolist()


def test_the_loss_of_an_epoch_is_the_mean_over_clips_and_eq_4(recipe, tmp_path):
    recipe = replace(recipe, distillation=Distillation(weight=0.5))
    progress = train(fused(), tmp_path, recipe, n_epochs=2)
    for row in progress.history:
        eq_3 = row["ce_logmel"] + row["ce_cqt"] + row["ce_fused"]
        eq_4 = eq_3 + row["kd_weight"] * (row["kd_logmel"] + row["kd_cqt"])
        assert row["loss"] == pytest.approx(eq_4)
        assert row["val_loss"] == pytest.approx(
            row["val_ce_logmel"] + row["val_ce_cqt"] + row["val_ce_fused"]
        )


def test_lambda_follows_the_ramp_over_the_phase_or_over_its_own_epochs(recipe, tmp_path):
    ramp = [0.5 * math.exp(-5 * (1 - i / 2) ** 2) for i in range(3)]
    recipe = replace(recipe, distillation=Distillation(weight=0.5))
    progress = train(fused(), tmp_path / "phase", recipe)
    assert column(progress, "kd_weight") == pytest.approx(ramp)
    own = replace(recipe, distillation=Distillation(weight=0.5, ramp_epochs=2))
    progress = train(fused(), tmp_path / "own", own)
    assert column(progress, "kd_weight") == pytest.approx([0.5 * math.exp(-5), 0.5, 0.5])


def test_distillation_changes_the_students_and_brings_them_nearer_to_the_teacher(recipe, tmp_path):
    models, distances = {}, {}
    for weight in (0.0, 10.0):
        models[weight] = fused()
        distillation = Distillation(weight=weight, ramp_epochs=1)
        changed = replace(recipe, lr=0.01, distillation=distillation)
        progress = train(models[weight], tmp_path / str(weight), changed, n_epochs=5)
        distances[weight] = {name: column(progress, f"kd_{name}") for name in BINS}
    for name in BINS:
        assert distances[10.0][name][-1] < distances[0.0][name][-1] / 2
        # The first convolution of the branch: the lesson reaches the whole of it.
        key = f"branches.{name}.stem.1.weight"
        assert (models[0.0].state_dict()[key] != models[10.0].state_dict()[key]).any()


def test_with_lambda_zero_the_distance_that_is_measured_teaches_nothing(recipe, tmp_path):
    models = {}
    for kind in ("mse", "kl"):
        models[kind] = fused()
        changed = replace(recipe, distillation=Distillation(weight=0.0, loss=kind))
        train(models[kind], tmp_path / kind, changed, n_epochs=1)
    states = [model.state_dict() for model in models.values()]
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_the_rate_falls_tenfold_where_validation_does_not_improve(recipe, tmp_path):
    data = toy()
    data.targets[VALIDATION] = (data.targets[VALIDATION] + 1) % K  # so that learning makes it worse
    progress = train(Linear(), tmp_path, replace(recipe, patience=1), data=data, n_epochs=6)
    assert int(np.argmin(column(progress, "val_loss"))) == 0
    # The first epoch is the best; two without improvement are one more than patience has.
    assert column(progress, "lr") == pytest.approx([3e-3] * 3 + [3e-4] * 2 + [3e-5])


# The rate along one cycle


def test_one_cycle_rises_in_a_line_and_falls_along_a_cosine_to_zero():
    for warm_up in (0.1, 0.25, 0.5):
        rising = [one_cycle(warm_up * share, warm_up=warm_up) for share in (0, 0.25, 0.5, 1)]
        assert rising == pytest.approx([0, 0.25, 0.5, 1])
        # The cosine at 0, 45, 60, 90, 120, 135 and 180 degrees.
        shares = (0, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 1)
        falling = [one_cycle(warm_up + (1 - warm_up) * x, warm_up=warm_up) for x in shares]
        root = math.sqrt(1 / 2)
        expected = [1, (1 + root) / 2, 3 / 4, 1 / 2, 1 / 4, (1 - root) / 2, 0]
        assert falling == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("optimizer", ["amsgrad", "adamw"])
def test_every_step_of_one_cycle_has_a_rate_above_zero_and_at_most_the_highest(optimizer):
    for n_steps in (1, 2, 9, 40):
        recipe, rates = Recipe(schedule="one_cycle", optimizer=optimizer), []
        stepped = training.make_optimizer(Linear(), recipe)
        schedule = training.make_schedule(stepped, recipe, n_steps=n_steps)
        for _ in range(n_steps):
            rates.append(stepped.param_groups[0]["lr"])
            stepped.step()
            schedule.step()
        assert min(rates) > 0
        assert max(rates) <= recipe.lr
        assert stepped.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_a_training_goes_through_one_cycle_step_by_step(recipe, tmp_path):
    recipe = replace(recipe, schedule="one_cycle", warm_up=1 / 3)
    progress = train(branch(), tmp_path, recipe, rows=TRAIN[:17], n_epochs=4)
    # Of 8 steps, two an epoch, number i (from 0) stands at (i + 1) / 9: the first of an epoch at
    # 1/9 (a third of the rise), 3/9 (the top), 5/9 and 7/9 (60 and 120 degrees of the fall).
    expected = [recipe.lr * share for share in (1 / 3, 1, 3 / 4, 1 / 4)]
    assert column(progress, "lr") == pytest.approx(expected)


# Optimisers


def test_adamw_shrinks_weights_by_themselves_and_adam_through_the_gradient():
    for optimizer, expected in (("adamw", 2 * (1 - 0.1 * 0.5)), ("amsgrad", 2 - 0.1)):
        layer = nn.Linear(1, 1, bias=False)
        nn.init.constant_(layer.weight, 2.0)
        layer.weight.grad = torch.zeros(1, 1)
        recipe = Recipe(optimizer=optimizer, lr=0.1, weight_decay=0.5)
        training.make_optimizer(layer, recipe).step()
        assert layer.weight.item() == pytest.approx(expected)


# A moving average


@pytest.mark.parametrize("make", [Linear, branch, fused])
def test_what_is_judged_is_the_moving_average_of_weights_and_statistics(make, recipe, tmp_path):
    recipe = replace(recipe, ema_decay=0.7, select="last")
    states, model = [], make()
    progress = train(
        model,
        tmp_path,
        recipe,
        rows=TRAIN[:8],  # a step is an epoch
        report=lambda *_: states.append({k: x.double().clone() for k, x in weights(model).items()}),
    )
    average = states[0]
    for state in states[1:]:
        average = {key: 0.7 * average[key] + 0.3 * state[key] for key in average}
    best = progress.best["joint"]
    found = {key: best["state"][key].double() for key in average}
    torch.testing.assert_close(found, average, rtol=1e-5, atol=1e-7)
    assert any((found[key] != states[-1][key]).any() for key in average)
    model.load_state_dict(best["state"])
    losses = validation_losses(model, toy(), VALIDATION, recipe=recipe)
    assert progress.history[-1]["val_loss"] == pytest.approx(sum(losses.values()))


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return all that is averaged: weights, means and variances, not the count of batches."""
    return {key: x for key, x in model.state_dict().items() if x.is_floating_point()}


def test_the_average_leaves_the_training_as_it_is(recipe, tmp_path):
    models = branch(), branch()
    for model, decay in zip(models, (None, 0.7), strict=True):
        changed = replace(recipe, ema_decay=decay, select="last")
        progress = train(model, tmp_path / str(decay), changed, n_epochs=2)
        judged = progress.best["joint"]["state"]
        same = all((judged[key] == x).all() for key, x in weights(model).items())
        assert same == (decay is None)
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict(), rtol=0, atol=0)


# The same again


def test_equal_parameters_give_equal_bits_and_another_seed_does_not(recipe, tmp_path):
    first, again, other = branch(), branch(), branch()
    progress = train(first, tmp_path / "first", recipe, n_epochs=2)
    torch.rand(7)  # whoever drew from the global generator
    assert_same(first, progress, again, train(again, tmp_path / "again", recipe, n_epochs=2))
    others = train(other, tmp_path / "other", replace(recipe, seed=1), n_epochs=2)
    assert untimed(others) != untimed(progress)


def test_the_order_of_an_epoch_is_of_its_seed_and_number_alone():
    rows = np.arange(100, 150)
    first = shuffled(rows, seed=3, epoch=4)
    assert sorted(first) == list(rows)
    np.testing.assert_array_equal(first, shuffled(rows, seed=3, epoch=4))
    others = [shuffled(rows, seed=3, epoch=5), shuffled(rows, seed=4, epoch=4)]
    assert all((first != other).any() for other in others)


def test_what_an_epoch_draws_is_of_its_seed_and_number_alone():
    def draws(seed: int, epoch: int) -> list[float]:
        return torch.rand(4, generator=chance_of(seed=seed, epoch=epoch)).tolist()

    first = draws(3, 4)
    torch.rand(7)
    assert draws(3, 4) == first
    assert len({tuple(draws(seed, epoch)) for seed in range(4) for epoch in range(4)}) == 16


VARIANTS = {
    "a branch": (branch, {}),
    "a fused network": (fused, {}),
    "a falling rate": (branch, {"patience": 0, "lr": 0.05}),
    "one cycle": (branch, {"schedule": "one_cycle"}),
    "a moving average": (fused, {"ema_decay": 0.7}),
    "AdamW, one cycle, a moving average": (
        branch,
        {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "one_cycle", "ema_decay": 0.7},
    ),
    "the last epoch": (branch, {"select": "last", "ema_decay": 0.7}),
    "all that is drawn": (
        fused,
        {
            "augmentation": AUGMENTATIONS,
            "views": "own",
            "select": "per_head",
            "micro_batch": 3,
            "batch_size": 6,
        },
    ),
    "all that is fast": (branch, {"augmentation": ("masks",), "shortcuts": FASTER}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(variant, recipe, tmp_path):
    make, settings = VARIANTS[variant]
    recipe = replace(recipe, **settings)
    options = {"rows": TRAIN[:12], "n_epochs": 4}
    whole = make()
    expected = train(whole, tmp_path / "whole", recipe, **options)
    if variant in ("a falling rate", "one cycle"):
        assert len(set(column(expected, "lr"))) > 1
    with pytest.raises(PowerCutError):
        train(make(), tmp_path / "cut", recipe, report=cut_after(2), **options)
    resumed = make(seed=99)  # nothing of the new network may stay
    torch.manual_seed(99)
    epochs = []
    progress = train(
        resumed,
        tmp_path / "cut",
        recipe,
        report=lambda history, n_epochs: epochs.append(len(history)),
        **options,
    )
    assert epochs == [3, 4]  # only what was missing was trained
    assert_same(resumed, progress, whole, expected)


def test_a_power_cut_while_a_checkpoint_is_written_costs_one_epoch(recipe, tmp_path, monkeypatch):
    expected_model = branch()
    expected = train(expected_model, tmp_path / "whole", recipe)
    save, saved = torch.save, []

    def save_half(state, file):
        saved.append(len(state["history"]))
        if len(saved) == 2:
            Path(file).write_bytes(b"half a checkpoint")
            raise PowerCutError
        save(state, file)

    monkeypatch.setattr(torch, "save", save_half)
    with pytest.raises(PowerCutError):
        train(branch(), tmp_path / "cut", recipe)
    resumed = branch()
    assert_same(resumed, train(resumed, tmp_path / "cut", recipe), expected_model, expected)
    assert saved == [1, 2, 2, 3]


def test_a_finished_training_is_not_trained_again(recipe, tmp_path):
    progress = train(branch(), tmp_path, recipe, n_epochs=2)
    again = branch()
    assert_same(
        again, train(again, tmp_path, recipe, n_epochs=2, report=cut_after(2)), again, progress
    )


@pytest.mark.parametrize("damage", ["garbage", "cut", "another network's"])
def test_a_checkpoint_that_cannot_be_gone_on_from_is_named_with_the_way_out(
    damage, recipe, tmp_path
):
    path = tmp_path / "checkpoint.pt"
    train(fused() if damage == "another network's" else branch(), tmp_path, recipe, n_epochs=1)
    if damage == "garbage":
        path.write_bytes(b"not a checkpoint")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"checkpoint\.pt: this checkpoint cannot .*: delete it"):
        train(branch(), tmp_path, recipe)
    path.unlink()
    assert len(train(branch(), tmp_path, recipe, n_epochs=1).history) == 1


# Batches


def test_batches_hold_every_row_once_and_never_a_single_clip():
    for n in range(2, 30):
        for size in range(2, 12):
            parts = batches(np.arange(n), size)
            np.testing.assert_array_equal(np.concatenate(parts), np.arange(n))
            lengths = [len(part) for part in parts]
            assert set(lengths[:-1]) <= {size}
            assert 2 <= lengths[-1] <= size + 1


@pytest.mark.parametrize("make", [branch, fused])
@pytest.mark.parametrize("micro_batch", [None, 4])
def test_a_last_batch_of_one_clip_is_trained_on_with_the_one_before(
    make, micro_batch, recipe, tmp_path
):
    recipe = replace(recipe, micro_batch=micro_batch)
    progress = train(make(), tmp_path, recipe, rows=TRAIN[:17], n_epochs=1)
    assert math.isfinite(column(progress, "loss")[0])


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_a_batch_in_parts_has_the_whole_batchs_gradient(micro_batch, recipe):
    data, rows, model = toy(), np.arange(7), Linear()
    x = data.spectrograms["logmel"][rows].reshape(7, -1).astype(np.float64)
    weight, bias = (p.detach().numpy().astype(np.float64).copy() for p in model.parameters())
    scores = np.exp(x @ weight.T + bias)
    error = scores / scores.sum(axis=1, keepdims=True) - np.eye(K)[data.targets[rows]]
    row = train_epoch(
        model,
        torch.optim.SGD(model.parameters(), lr=1.0),
        data,
        rows,
        epoch=0,
        kd_weight=0.0,
        recipe=replace(recipe, batch_size=7, micro_batch=micro_batch),
    )
    after_weight, after_bias = (p.detach().numpy() for p in model.parameters())
    np.testing.assert_allclose(weight - after_weight, error.T @ x / 7, atol=1e-5)
    np.testing.assert_allclose(bias - after_bias, error.mean(axis=0), atol=1e-5)
    ce = -np.log((scores / scores.sum(axis=1, keepdims=True))[rows, data.targets[rows]])
    assert row == {"ce_linear": pytest.approx(ce.mean()), "loss": pytest.approx(ce.mean())}


class Pair(nn.Module):
    """Two linear branches and a linear classifier over both: a fused network without BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleDict({name: nn.Linear(n * T, K) for name, n in BINS.items()})
        self.fused = nn.Linear(sum(BINS.values()) * T, K)

    def forward(self, spectrograms: dict[str, torch.Tensor]) -> Output:
        flat = {name: x.flatten(1) for name, x in spectrograms.items()}
        branches = {name: Output(name, self.layers[name](x), x) for name, x in flat.items()}
        together = torch.cat(list(flat.values()), dim=1)
        return Output(FUSED, self.fused(together), together, branches)


@pytest.mark.parametrize("micro_batch", [None, 2, 3, 5])
def test_parts_with_tags_that_were_not_annotated_have_the_whole_batchs_gradient(
    micro_batch, recipe
):
    data, model, rows = toy(multi_label=True), Pair(), np.arange(12)
    # Parts of few and of many annotations, and one of none.
    data.targets[:6, 0] = data.targets[2:4] = data.targets[4, 1] = np.nan
    x, targets = data.batch(rows)
    output, known = model(x), ~targets.isnan()
    terms = {
        f"ce_{name}": -torch.where(targets == 1, F.logsigmoid(z), F.logsigmoid(-z))[known].mean()
        for name, z in output.logits_by_head().items()
    }
    terms |= {
        f"kd_{name}": (branch.logits - output.logits.detach()).square().mean()
        for name, branch in output.branches.items()
    }
    total = sum(term if name.startswith("ce_") else 0.5 * term for name, term in terms.items())
    gradients = torch.autograd.grad(total, list(model.parameters()))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    row = train_epoch(
        model,
        torch.optim.SGD(model.parameters(), lr=1.0),
        data,
        rows,
        epoch=0,
        kd_weight=0.5,
        recipe=replace(recipe, batch_size=12, micro_batch=micro_batch),
    )
    assert row == pytest.approx(told(terms | {"loss": total}))
    for old, new, gradient in zip(before, model.parameters(), gradients, strict=True):
        torch.testing.assert_close(old - new, gradient, rtol=1e-4, atol=1e-6)


def test_a_part_weighs_in_cross_entropy_by_annotations_and_in_distillation_by_clips():
    nan = math.nan
    parts = [
        torch.tensor([[1.0, 0], [nan, 1]]),
        torch.tensor([[nan, nan]]),
        torch.tensor([[0.0, nan], [1, 1]]),
    ]
    assert shares(parts) == [
        {"ce": 3 / 6, "kd": 2 / 5},
        {"ce": 0, "kd": 1 / 5},
        {"ce": 3 / 6, "kd": 2 / 5},
    ]
    indices = torch.arange(5).split(2)
    assert shares(indices) == [{"ce": n / 5, "kd": n / 5} for n in (2, 2, 1)]
    assert shares([torch.full((2, 2), nan)]) == [{"ce": 0, "kd": 1}]


def test_tags_that_mixup_left_without_annotation_do_not_weigh(recipe):
    # Each clip lacks one of three tags, so that a mixed clip lacks one or two.
    data, model, rows, seen = toy(multi_label=True), Pair(), np.arange(12), []
    data.targets[rows, rows % K] = np.nan
    model.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    settings = {"augmentation": ("mixup",), "mixup_alpha": 5.0, "batch_size": 12, "micro_batch": 5}
    recipe = replace(recipe, **settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    row = train_epoch(model, optimizer, data, rows, epoch=0, kd_weight=0.0, recipe=recipe)
    order, generator = shuffled(rows, seed=0, epoch=0), chance_of(seed=0, epoch=0)
    losses, counts = [], []
    for part, (inputs, output) in zip(batches(order, 5), seen, strict=True):
        plain = data.batch(part)
        mixed, targets = augment(("mixup",), *plain, n_classes=K, generator=generator, alpha=5.0)
        torch.testing.assert_close(mixed, inputs, rtol=0, atol=0)
        known = ~targets.isnan()
        losses += [F.binary_cross_entropy_with_logits(output.logits[known], targets[known]).item()]
        counts += [int(known.sum())]
    assert sum(counts) < 24
    assert row["ce_fused"] == pytest.approx(np.average(losses, weights=counts))


def test_the_losses_told_are_means_over_clips_whatever_the_batches(recipe):
    data, model = toy(), Linear()
    told = [
        train_epoch(
            model,
            torch.optim.SGD(model.parameters(), lr=0.0),
            data,
            TRAIN[:17],
            epoch=0,
            kd_weight=0.0,
            recipe=replace(recipe, batch_size=size),
        )["loss"]
        for size in (2, 5, 16, 17)
    ]
    assert told == pytest.approx([told[0]] * 4)
    expected = validation_losses(model, data, TRAIN[:17], recipe=recipe)["linear"]
    assert told[0] == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_batches_cut_on_the_device_are_those_cut_from_the_disk(monkeypatch, dtype):
    monkeypatch.setattr(
        "fusionkd_lib.batches.CLIPS_AT_ONCE", 7
    )  # fewer than there are, and no divisor
    data = toy()
    stored = {name: x.astype(dtype) for name, x in data.spectrograms.items()}
    data = replace(data, spectrograms=stored)
    moved, rows = data.on_device(), np.array([30, 2, 2, 17])
    assert all(isinstance(x, torch.Tensor) for x in moved.spectrograms.values())
    torch.testing.assert_close(moved.batch(rows), data.batch(rows), rtol=0, atol=0)
    assert moved.batch(rows)[0]["cqt"].dtype == torch.float32


def test_predictions_are_in_the_rows_order_and_do_not_depend_on_the_batch(recipe):
    model, data, rows = fused(), toy(), np.array([5, 30, 2, 17, 9])
    first = predict(model, data, rows, recipe=recipe)
    again = predict(model, data, rows[::-1], recipe=replace(recipe, batch_size=2))
    assert list(first) == [*BINS, FUSED]
    for name, logits in first.items():
        assert logits.shape == (5, K)
        np.testing.assert_allclose(again[name], logits[::-1], atol=1e-5)


def test_a_network_is_judged_in_single_precision_whatever_it_trains_in(recipe):
    model, data = fused(), toy()
    plain = predict(model, data, TEST, recipe=recipe)
    rounded = predict(model, data, TEST, recipe=replace(recipe, shortcuts=("bfloat16",)))
    for name, logits in plain.items():
        np.testing.assert_array_equal(rounded[name], logits)


def test_scores_are_softmax_or_sigmoid():
    logits = np.log([[1, 2, 5]]).astype(np.float32)
    np.testing.assert_allclose(
        probabilities(logits, multi_label=False), [[1 / 8, 2 / 8, 5 / 8]], rtol=1e-6
    )
    np.testing.assert_allclose(
        probabilities(logits, multi_label=True), [[1 / 2, 2 / 3, 5 / 6]], rtol=1e-6
    )


# Divergence


@pytest.mark.parametrize("validation", [VALIDATION, VALIDATION[:0]])
def test_a_training_that_diverges_stops_with_epoch_and_terms_named(recipe, tmp_path, validation):
    model = fused()

    def poison(history, n_epochs):
        if len(history) == 1:
            nn.init.constant_(model.branches["cqt"].head[-1].bias, math.nan)

    recipe = replace(recipe, batch_size=24)  # one step: the others are not poisoned yet
    with pytest.raises(
        InputError,
        match=r"diverged in epoch 2 \(.*ce_logmel = \d.*ce_cqt = nan.*ce_fused = \d.*smaller lr",
    ):
        train(model, tmp_path, recipe, validation=validation, report=poison)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert len(state["history"]) == 1  # the last good epoch is what is kept


def test_a_rate_that_is_far_too_large_is_told_of_and_not_trained_on(recipe, tmp_path):
    with pytest.raises(InputError, match=r"training diverged in epoch \d .*use a smaller lr"):
        train(Linear(), tmp_path, replace(recipe, lr=1e35), n_epochs=5)


# Selection


def test_the_best_joint_epoch_is_kept_for_all_heads(recipe, tmp_path):
    model = fused()
    progress = train(model, tmp_path, replace(recipe, lr=0.02), n_epochs=4)
    losses = column(progress, "val_loss")
    assert list(progress.best) == ["joint"]
    best = progress.best["joint"]
    assert best["epoch"] == 1 + int(np.argmin(losses))
    model.load_state_dict(best["state"])
    again = validation_losses(model, toy(), VALIDATION, recipe=recipe)
    assert sum(again.values()) == best["value"] == min(losses)


def test_per_head_each_head_keeps_its_own_best_epoch(recipe, tmp_path):
    model = fused()
    recipe = replace(recipe, select="per_head", lr=0.02)
    progress = train(model, tmp_path, recipe, n_epochs=4)
    assert list(progress.best) == [*BINS, FUSED]
    for head, best in progress.best.items():
        losses = column(progress, f"val_ce_{head}")
        assert (best["epoch"], best["value"]) == (1 + int(np.argmin(losses)), min(losses))
        model.load_state_dict(best["state"])
        assert validation_losses(model, toy(), VALIDATION, recipe=recipe)[head] == min(losses)


def test_criteria_that_disagree_keep_weights_of_different_epochs():
    progress, model = Progress(), Linear()
    for epoch, values in enumerate([(3, 1), (1, 2), (2, 1)], start=1):
        nn.init.constant_(model.linear.bias, epoch)
        progress.history.append({})
        progress.keep_best(dict(zip("ab", values, strict=True)), model)
    kept = {
        name: (best["value"], best["epoch"], best["state"]["linear.bias"].tolist())
        for name, best in progress.best.items()
    }
    assert kept == {"a": (1, 2, [2] * K), "b": (1, 1, [1] * K)}  # of equals the first


def test_the_last_epoch_is_kept_where_that_is_asked_for_however_good_another_was(recipe, tmp_path):
    data, model = toy(), Linear()
    data.targets[VALIDATION] = (data.targets[VALIDATION] + 1) % K  # so that learning makes it worse
    progress = train(model, tmp_path, replace(recipe, select="last"), data=data)
    losses = column(progress, "val_loss")
    assert int(np.argmin(losses)) == 0
    best = progress.best["joint"]
    assert (best["epoch"], best["value"]) == (3, losses[2])
    torch.testing.assert_close(best["state"], model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("select", ["joint", "per_head"])
def test_without_validation_the_last_epoch_is_kept(recipe, tmp_path, select):
    model = fused()
    recipe = replace(recipe, select=select, lr=0.02)
    progress = train(model, tmp_path, recipe, validation=VALIDATION[:0])
    assert list(progress.best) == ["joint"]
    assert progress.best["joint"]["epoch"] == 3
    torch.testing.assert_close(progress.best["joint"]["state"], model.state_dict(), rtol=0, atol=0)
    assert not any(name.startswith("val_") for name in progress.history[0])


def test_clips_of_the_test_fold_touch_nothing(recipe, tmp_path):
    models = branch(), branch()
    spoiled = toy()
    for x in spoiled.spectrograms.values():
        x[TEST] = np.nan
    spoiled.targets[TEST] = -1
    progress = train(models[0], tmp_path / "clean", recipe)
    others = train(models[1], tmp_path / "spoiled", recipe, data=spoiled)
    assert_same(models[0], progress, models[1], others)


def test_validation_clips_select_and_never_teach(recipe, tmp_path):
    models = branch(), branch()
    other = toy()
    other.targets[VALIDATION] = (other.targets[VALIDATION] + 1) % K
    progress = train(models[0], tmp_path / "right", recipe, n_epochs=2)
    others = train(models[1], tmp_path / "wrong", recipe, data=other, n_epochs=2)
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict(), rtol=0, atol=0)
    assert column(progress, "val_loss") != column(others, "val_loss")


def test_a_run_that_is_judged_on_validation_clips_never_reads_a_test_clip(tiny, monkeypatch):
    params = tiny(
        representations=["logmel", "cqt"], judged_on="validation", select="last", epochs=1
    )
    clips = experiment.clips_of(params)
    split = make_split(clips, fold=1)
    stored = {name: x.copy() for name, x in experiment.spectrograms_of(params, clips).items()}
    for x in stored.values():
        x[split.test] = np.nan
    targets = clips.targets.copy()
    targets[split.test] = -1
    monkeypatch.setattr(experiment, "clips_of", lambda _: replace(clips, targets=targets))
    monkeypatch.setattr(experiment, "spectrograms_of", lambda *_: stored)
    record = experiment.train_fusion(params, report=lambda *_: None)
    assert set(record.scores) == {"logmel", "cqt", FUSED}
    for scores in record.scores.values():
        assert scores.shape == (len(split.validation), 10)
        assert np.isfinite(scores).all()
    names = clips.table["clip"].to_numpy(str)[split.validation]
    np.testing.assert_array_equal(record.test.clips, names)
    np.testing.assert_array_equal(record.test.targets, clips.targets[split.validation])


# The machine


@has_bfloat16
@pytest.mark.parametrize("make", [branch, fused])
def test_bfloat16_agrees_with_float32_in_the_first_epoch(make, recipe, tmp_path):
    recipe, told = replace(recipe, batch_size=24), []
    for precision in ("float32", "bfloat16"):
        shortcuts = () if precision == "float32" else (precision,)
        model, changed = make(), replace(recipe, shortcuts=shortcuts)
        row = train(model, tmp_path / precision, changed, n_epochs=1).history[0]
        told.append((row["loss"], row["val_loss"]))
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    # Eight bits of mantissa are 0.4 % a rounding; normalising a batch of 24 enlarges that.
    assert told[1] == pytest.approx(told[0], rel=0.05)
    assert told[1] != told[0]


@pytest.mark.parametrize("shortcut", ["channels_last", "fast_layers", "fused_optimizer"])
def test_what_is_only_faster_agrees_within_rounding(shortcut, recipe, tmp_path):
    if shortcut not in FASTER:
        pytest.skip("torch.compile does not work here")
    recipe = replace(recipe, batch_size=24)
    plain = train(branch(), tmp_path / "plain", recipe, n_epochs=1)
    faster = replace(recipe, shortcuts=(shortcut,))
    fast = train(branch(), tmp_path / "fast", faster, n_epochs=1)
    assert column(fast, "loss") == pytest.approx(column(plain, "loss"), rel=1e-3)
    assert column(fast, "val_loss") == pytest.approx(column(plain, "val_loss"), rel=1e-3)


@pytest.mark.parametrize("shortcuts", [("fast_layers",), ()])
def test_a_network_has_fast_layers_where_they_are_wanted(shortcuts):
    model = fused()
    speed.set_up_model(model, torch.device("cpu"), shortcuts)
    assert any(isinstance(module, FastStem) for module in model.modules()) == bool(shortcuts)


FAULTS = """
import resource, sys, torch
from fusionkd_lib.speed import set_up_process

set_up_process(threads=1, shortcuts=sys.argv[1:])
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24) + 1  # two tensors of 16,384 pages
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's and Linux's own")
def test_reused_memory_is_not_faulted_in_anew():
    last = {}
    for reuse in (True, False):
        command = [sys.executable, "-c", FAULTS, *["reuse_memory"] * reuse]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        last[reuse] = int(answer.stdout.split()[-1])
    assert last[True] < 1000
    assert last[False] > 20 * last[True]


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="device = 'gpu' is not to be had here: use auto or cpu"):
        resolve_device("gpu")
    with pytest.raises(InputError, match="device = 'cuda:99' is not to be had here"):
        resolve_device("cuda:99")


def test_auto_takes_what_the_machine_has(monkeypatch):
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)  # else a GPU would have to be there
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda answer=there: answer)
        assert resolve_device("auto").type == kind


@pytest.mark.parametrize("supported", [True, False])
def test_all_shortcuts_are_those_that_pay_on_the_machine(monkeypatch, supported):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: supported)
    monkeypatch.setattr(speed, "can_compile", lambda: True)
    both = {"channels_last", "fused_optimizer"} | ({"bfloat16"} if supported else set())
    assert set(resolve("all", torch.device("cpu"))) == both | {"fast_layers", "reuse_memory"}
    assert set(resolve("all", torch.device("cuda"))) == both | {"store_on_device"}
    assert resolve((), torch.device("cpu")) == ()


@pytest.mark.parametrize(
    ("supported", "shortcuts", "device", "told"),
    [
        (False, ["bfloat16", "channels_last"], "cpu", True),
        (False, ["bfloat16"], "auto", True),
        (False, ["bfloat16"], "cuda", False),
        (False, ["channels_last"], "cpu", False),
        (True, ["bfloat16"], "cpu", False),
    ],
)
def test_a_shortcut_that_is_slow_on_this_machine_is_told_once(
    monkeypatch, tmp_path, supported, shortcuts, device, told
):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("fusionkd_lib.engine.execute", lambda *_, **__: {})
    monkeypatch.setenv("FUSIONKD_OUTPUTS", str(tmp_path))
    path = tmp_path / "run.yaml"
    lines = "representations: [logmel, gammatone]", f"shortcuts: {shortcuts}", f"device: {device}"
    path.write_text("\n".join(lines))  # two branches, a pair, a store, baselines
    answer = CliRunner().invoke(main, ["run", str(path)])
    assert answer.exit_code == 0, answer.output
    assert len(answer.stderr.splitlines()) == told
    assert ("ten times slower than float32: leave the name out" in answer.stderr) == told


def test_a_recipe_takes_all_the_shortcuts_of_the_machine(tiny):
    assert experiment.recipe_of(tiny(shortcuts="all")).shortcuts == FASTER
    assert experiment.recipe_of(tiny(shortcuts=["channels_last"])).shortcuts == ("channels_last",)


def test_a_line_for_each_epoch_tells_what_counts(recipe, tmp_path, capsys):
    train(branch(), tmp_path, recipe, n_epochs=2, report=training.print_epoch)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert all("loss" in line and "validation" in line and "lr 3e-03" in line for line in lines)


def test_a_history_is_plain_data(recipe, tmp_path):
    history = train(fused(), tmp_path, recipe, n_epochs=1).history
    assert json.loads(json.dumps(history)) == history
