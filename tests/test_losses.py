"""Losses: Eq. 1 to 4 worked by hand in NumPy, torch.distributions, the ramp's end points."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Categorical, kl_divergence

from fusionkd_lib.losses import (
    PAPER,
    Distillation,
    classification_loss,
    classification_terms,
    distillation_loss,
    distillation_terms,
    ramp,
    ramp_progress,
    total_loss,
)
from fusionkd_lib.models import FUSED, Branch, FusionKD, FusionModule, Output

NAN = float("nan")
KINDS = ["mse", "l2", "kl", "standardised_kl"]


def logits(seed: int, *, n: int = 6, n_classes: int = 5) -> torch.Tensor:
    return 2 * torch.randn(n, n_classes, generator=torch.Generator().manual_seed(seed))


def output(**by_head: torch.Tensor) -> Output:
    """Return the output of a fused network whose classifiers gave these logits."""
    nothing = torch.zeros(1, 1, 1, 1)
    *branches, _ = by_head
    return Output(
        FUSED, by_head[FUSED], nothing, {n: Output(n, by_head[n], nothing) for n in branches}
    )


# Eq. 1 and 3: classification


def test_cross_entropy_of_a_hand_worked_batch():
    # Softmax of (log 1, log 2, log 5) is (1, 2, 5) / 8; of equal logits a third each.
    x = torch.tensor([[1.0, 2.0, 5.0], [1.0, 1.0, 1.0]]).log()
    loss = classification_loss(x, torch.tensor([1, 0]), multi_label=False)
    assert loss.item() == pytest.approx((-math.log(2 / 8) - math.log(1 / 3)) / 2)


def test_cross_entropy_takes_class_probabilities_as_it_takes_indices():
    x, targets = logits(0), torch.tensor([0, 4, 2, 2, 1, 3])
    share, other = 0.3, targets.flip(0)
    mixed = share * torch.eye(5)[targets] + (1 - share) * torch.eye(5)[other]
    expected = share * classification_loss(x, targets, multi_label=False)
    expected = expected + (1 - share) * classification_loss(x, other, multi_label=False)
    torch.testing.assert_close(classification_loss(x, mixed, multi_label=False), expected)


def test_an_untrained_guess_costs_log_k():
    loss = classification_loss(torch.zeros(4, 10), torch.arange(4), multi_label=False)
    assert loss.item() == pytest.approx(math.log(10))


def test_binary_cross_entropy_of_a_hand_worked_batch_with_volunteers_votes():
    # Logits log 3 and -log 3 are probabilities 3/4 and 1/4.
    x = torch.tensor([[3.0, 1 / 3], [3.0, 3.0]]).log()
    targets = torch.tensor([[1.0, 0.0], [2 / 3, 0.0]])
    by_hand = [
        -math.log(3 / 4),
        -math.log(3 / 4),
        -2 / 3 * math.log(3 / 4) - 1 / 3 * math.log(1 / 4),
        -math.log(1 / 4),
    ]
    loss = classification_loss(x, targets, multi_label=True)
    assert loss.item() == pytest.approx(np.mean(by_hand))


def test_tags_that_were_not_annotated_neither_count_nor_teach():
    x = logits(1, n=4, n_classes=3).requires_grad_()
    targets = torch.tensor([[1.0, 0, NAN], [NAN, NAN, NAN], [0, 1.0, 1.0], [NAN, 0, 0]])
    loss = classification_loss(x, targets, multi_label=True)
    loss.backward()
    known = ~np.isnan(targets.numpy())
    p = 1 / (1 + np.exp(-x.detach().numpy().astype(float)))
    terms = np.where(targets.numpy() == 1, -np.log(p), -np.log(1 - p))[known]
    assert loss.item() == pytest.approx(terms.mean())
    assert len(terms) == 7
    assert (x.grad[~torch.from_numpy(known)] == 0).all()
    assert (x.grad[torch.from_numpy(known)] != 0).all()


def test_a_batch_without_a_single_annotation_costs_nothing():
    x = logits(2).requires_grad_()
    loss = classification_loss(x, torch.full_like(x, NAN), multi_label=True)
    loss.backward()
    assert loss.item() == 0
    assert (x.grad == 0).all()


def test_huge_logits_keep_losses_and_gradients_finite():
    x = torch.tensor([[1e4, -1e4]], requires_grad=True)
    teacher = -x.detach()
    losses = [classification_loss(x, torch.tensor([[0.0, 1.0]]), multi_label=True)]
    for kind in KINDS:
        losses += [
            distillation_loss(x, teacher, kind=kind, multi_label=multi_label)
            for multi_label in (False, True)
        ]
    sum(losses).backward()
    assert all(math.isfinite(loss.item()) and loss.item() > 0 for loss in losses)
    assert x.grad.isfinite().all()


# Eq. 2: distillation


def test_mse_is_the_mean_over_clips_and_classes():
    student, teacher = (
        torch.tensor([[1.0, 2.0], [0.0, 4.0]]),
        torch.tensor([[3.0, 2.0], [1.0, 1.0]]),
    )
    assert distillation_loss(student, teacher).item() == (4 + 0 + 1 + 9) / 4


def test_l2_is_the_mean_norm_that_eq_2_writes():
    student, teacher = (
        torch.tensor([[3.0, 4.0], [1.0, 1.0]]),
        torch.tensor([[0.0, 0.0], [1.0, 6.0]]),
    )
    assert distillation_loss(student, teacher, kind="l2").item() == (5 + 5) / 2
    student, teacher = logits(3), logits(4)
    expected = np.linalg.norm((student - teacher).numpy(), axis=1).mean()
    assert distillation_loss(student, teacher, kind="l2").item() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_kl_agrees_with_torch_distributions(temperature):
    student, teacher = logits(5), logits(6)
    expected = temperature**2 * kl_divergence(
        Categorical(logits=teacher / temperature), Categorical(logits=student / temperature)
    )
    loss = distillation_loss(student, teacher, kind="kl", temperature=temperature)
    torch.testing.assert_close(loss, expected.mean())


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_multi_label_kl_is_of_bernoullis_and_agrees_with_torch_distributions(temperature):
    student, teacher = logits(7), logits(8)
    expected = temperature**2 * kl_divergence(
        Bernoulli(logits=teacher / temperature), Bernoulli(logits=student / temperature)
    )
    loss = distillation_loss(student, teacher, kind="kl", temperature=temperature, multi_label=True)
    torch.testing.assert_close(loss, expected.mean())


def test_standardised_logits_are_compared_whatever_their_size_and_level():
    student, teacher = logits(5).double(), logits(6).double()

    def standardised(x: torch.Tensor) -> Categorical:
        return Categorical(
            logits=torch.tensor((x.numpy().T - x.numpy().mean(1)) / x.numpy().std(1)).T / 2
        )

    expected = 4 * kl_divergence(standardised(teacher), standardised(student)).mean()
    for scale, level in ((1, 0), (5, 3)):
        loss = distillation_loss(
            scale * student + level, teacher, kind="standardised_kl", temperature=2.0
        )
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("multi_label", [False, True])
def test_a_student_that_agrees_costs_nothing_and_its_gradient_is_zero(kind, multi_label):
    teacher = logits(9)
    student = teacher.clone().requires_grad_()
    loss = distillation_loss(student, teacher, kind=kind, multi_label=multi_label)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(student.grad, torch.zeros_like(teacher), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("multi_label", [False, True])
def test_a_step_down_the_gradient_brings_the_student_nearer(kind, multi_label):
    student, teacher = logits(10).requires_grad_(), logits(11)
    loss = distillation_loss(student, teacher, kind=kind, multi_label=multi_label)
    (gradient,) = torch.autograd.grad(loss, student)
    nearer = student - 0.01 * gradient
    assert distillation_loss(nearer, teacher, kind=kind, multi_label=multi_label) < loss


# The ramp


def test_the_ramp_rises_from_exp_minus_five_to_one():
    assert ramp(0) == pytest.approx(math.exp(-5))
    assert ramp(0.5) == pytest.approx(math.exp(-1.25))
    assert ramp(1) == 1
    values = [ramp(i / 100) for i in range(101)]
    assert all(before < after for before, after in itertools.pairwise(values))


def test_the_ramp_is_clipped_at_its_ends():
    assert (ramp(-0.5), ramp(1.5)) == (ramp(0), ramp(1))


def test_progress_counts_from_the_first_epoch_to_the_last_of_the_ramp():
    assert [ramp_progress(epoch, 5) for epoch in range(7)] == [0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert ramp_progress(0, 1) == 1  # a ramp of one epoch is none


@pytest.mark.parametrize(
    ("ramp_epochs", "share"),
    [
        (None, [-5, -3.2, -1.8, -0.8, -0.2, 0]),  # -5 (1 - i / 5)^2
        (3, [-5, -1.25, 0, 0, 0, 0]),
        (1, [0] * 6),
        (11, [-5, -4.05, -3.2, -2.45, -1.8, -1.25]),  # not yet at its end
    ],
)
def test_lambda_has_its_weight_at_the_end_of_its_ramp(ramp_epochs, share):
    distillation = Distillation(weight=0.5, ramp_epochs=ramp_epochs)
    weights = [distillation.weight_at(epoch, n_epochs=6) for epoch in range(6)]
    assert weights == pytest.approx([0.5 * math.exp(x) for x in share])


# Eq. 3 and 4: the sums


def test_every_classifier_has_a_term_and_the_total_is_eq_4():
    by_head = {"logmel": logits(0), "cqt": logits(1), "gammatone": logits(2), FUSED: logits(3)}
    targets = torch.tensor([0, 1, 2, 3, 4, 0])
    terms = classification_terms(output(**by_head), targets, multi_label=False)
    terms |= distillation_terms(output(**by_head), PAPER, multi_label=False)
    heads, students = (*by_head,), ("logmel", "cqt", "gammatone")
    assert list(terms) == [f"ce_{n}" for n in heads] + [f"kd_{n}" for n in students]

    def cross_entropy(x: np.ndarray) -> float:
        p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
        return -np.log(p[np.arange(6), targets.numpy()]).mean()

    arrays = {name: x.numpy().astype(float) for name, x in by_head.items()}
    eq_2 = sum(np.mean((arrays[name] - arrays[FUSED]) ** 2) for name in students)
    eq_3 = sum(cross_entropy(x) for x in arrays.values())
    assert total_loss(terms).item() == pytest.approx(eq_3)
    assert total_loss(terms, kd_weight=0.4).item() == pytest.approx(eq_3 + 0.4 * eq_2)


@pytest.mark.parametrize("multi_label", [False, True])
def test_distillation_is_of_the_kind_and_temperature_that_is_asked_for(multi_label):
    by_head = {"cqt": logits(1), FUSED: logits(3)}
    asked = Distillation(loss="kl", temperature=2.0)
    terms = distillation_terms(output(**by_head), asked, multi_label=multi_label)
    make = Bernoulli if multi_label else Categorical
    teacher, student = (make(logits=by_head[name] / 2) for name in (FUSED, "cqt"))
    torch.testing.assert_close(terms, {"kd_cqt": 4 * kl_divergence(teacher, student).mean()})


def test_the_mean_of_the_branches_can_teach_instead_of_the_fused_classifier():
    by_head = {"cqt": logits(1), "logmel": logits(2), FUSED: logits(3)}
    terms = distillation_terms(output(**by_head), Distillation(teacher="mean"), multi_label=False)
    # Half of their difference separates each of two branches from the mean.
    apart = ((logits(1) - logits(2)) ** 2).mean() / 4
    torch.testing.assert_close(terms, {"kd_cqt": apart, "kd_logmel": apart})


@pytest.mark.parametrize("teacher", ["fused", "mean"])
def test_a_branch_alone_has_eq_1_and_no_distillation(teacher):
    alone = Output("cqt", logits(4), torch.zeros(1, 1, 1, 1))
    assert distillation_terms(alone, Distillation(teacher=teacher), multi_label=False) == {}
    terms = classification_terms(alone, torch.zeros(6, dtype=torch.int64), multi_label=False)
    assert list(terms) == ["ce_cqt"]
    assert total_loss(terms, kd_weight=0.5) == terms["ce_cqt"]


# Whose gradient


@pytest.fixture
def network() -> tuple[FusionKD, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    branches = [Branch(name, 3, width=0.25, hidden=(16, 8)) for name in ("logmel", "cqt")]
    model = FusionKD(branches, FusionModule([1280, 1280], 3, hidden=(16, 8)))
    inputs = {name: torch.randn(4, 1, 32, 33) for name in ("logmel", "cqt")}
    return model, inputs


def gradients(model: torch.nn.Module) -> float:
    return sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_detached_teacher_is_not_pulled_towards_its_pupils(network, kind):
    model, inputs = network
    terms = distillation_terms(
        model(inputs), Distillation(loss=kind, detach_teacher=True), multi_label=False
    )
    sum(terms.values()).backward()
    assert gradients(model.fusion) == 0
    assert all(gradients(branch) > 0 for branch in model.branches.values())


def test_a_pupils_lesson_reaches_no_other_pupil(network):
    model, inputs = network
    distillation_terms(model(inputs), PAPER, multi_label=False)["kd_cqt"].backward()
    assert gradients(model.branches["cqt"]) > 0
    assert gradients(model.branches["logmel"]) == 0


def test_a_teacher_that_is_not_detached_is_pulled(network):
    model, inputs = network
    pulled = Distillation(detach_teacher=False)
    sum(distillation_terms(model(inputs), pulled, multi_label=False).values()).backward()
    assert gradients(model.fusion) > 0
