"""Equations 1 to 4 of the paper and the ramp, as pure functions.

Logits are (B, K). Targets are (B,) class indices or (B, K) class probabilities for a single-label
task, and (B, K) in [0, 1], NaN where not annotated, for a multi-label one.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from fusionkd_lib.models import Output

Terms = dict[str, Tensor]  # losses by name: `ce_` or `kd_`, and the classifier


def classification_loss(logits: Tensor, targets: Tensor, *, multi_label: bool) -> Tensor:
    """Categorical or binary cross-entropy, a mean over clips (and tags).

    Source: Eq. 1 and the paragraph before it.

    >>> logits = torch.tensor([[0.0, 0.0]])  # undecided between two classes: log 2
    >>> classification_loss(logits, torch.tensor([0]), multi_label=False)
    tensor(0.6931)
    """
    if not multi_label:
        return F.cross_entropy(logits, targets)
    annotated = ~torch.isnan(targets)
    terms = F.binary_cross_entropy_with_logits(logits, torch.nan_to_num(targets), reduction="none")
    return (terms * annotated).sum() / annotated.sum().clamp(min=1)


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    kind: str = "mse",
    temperature: float = 3.0,
    multi_label: bool = False,
) -> Tensor:
    """How far a branch's logits are from the fused classifier's.

    Parameters
    ----------
    kind
        ``mse`` over clips and classes (section IV-D); ``l2``, the mean norm that Eq. 2 writes;
        ``kl``, T^2 KL(teacher || student) of Hinton et al. 2015, of Bernoullis where multi-label;
        ``standardised_kl``, that of logits of mean 0 and deviation 1 per clip (Sun et al. 2024).

    Source: Eq. 2, one term of its sum.

    Examples
    --------
    >>> student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]])
    >>> distillation_loss(student, teacher), distillation_loss(student, teacher, kind="l2")
    (tensor(2.), tensor(2.))
    """
    if kind == "mse":
        return F.mse_loss(student_logits, teacher_logits)
    if kind == "l2":
        return torch.linalg.vector_norm(student_logits - teacher_logits, dim=1).mean()
    student, teacher = student_logits, teacher_logits
    if kind == "standardised_kl":
        student, teacher = (F.layer_norm(x, x.shape[1:]) for x in (student, teacher))
    student, teacher = student / temperature, teacher / temperature
    divergence = _bernoulli_kl if multi_label else _categorical_kl
    return temperature**2 * divergence(student, teacher)


def _categorical_kl(student: Tensor, teacher: Tensor) -> Tensor:
    log_student, log_teacher = F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


def _bernoulli_kl(student: Tensor, teacher: Tensor) -> Tensor:
    positive = torch.sigmoid(teacher)
    divergence = positive * (F.logsigmoid(teacher) - F.logsigmoid(student))
    divergence = divergence + (1 - positive) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return divergence.mean()


def ramp(progress: float) -> float:
    """Sigmoid-shaped ramp-up exp(-5 (1 - i)^2), i clipped to [0, 1] (section IV-D).

    >>> [round(ramp(i), 3) for i in (0, 0.5, 1)]
    [0.007, 0.287, 1.0]
    """
    return math.exp(-5 * (1 - min(max(progress, 0.0), 1.0)) ** 2)


def ramp_progress(epoch: int, n_epochs: int) -> float:
    """Return i of the ramp: 0 in the first epoch, 1 in the last of the ramp.

    >>> [ramp_progress(epoch, 5) for epoch in (0, 2, 4, 9)]
    [0.0, 0.5, 1.0, 1.0]
    """
    return min(epoch / (n_epochs - 1), 1.0) if n_epochs > 1 else 1.0


@dataclass(frozen=True)
class Distillation:
    """How the branches learn from their teacher.

    Parameters
    ----------
    weight
        lambda of Eq. 4, at the end of its ramp.
    loss, temperature
        As `distillation_loss`.
    teacher
        ``fused``, the fused classifier, or ``mean``, the mean of the branches' logits.
    detach_teacher
        Whether the teacher's gradient is stopped.
    ramp_epochs
        Epochs until lambda has its weight; None: the whole joint phase.
    """

    weight: float = 0.01
    loss: str = "mse"
    temperature: float = 3.0
    teacher: str = "fused"
    detach_teacher: bool = True
    ramp_epochs: int | None = None

    def weight_at(self, epoch: int, *, n_epochs: int) -> float:
        """Return the ramped lambda of an epoch, counted from 0.

        >>> [round(Distillation().weight_at(epoch, n_epochs=3), 4) for epoch in range(3)]
        [0.0001, 0.0029, 0.01]
        """
        return self.weight * ramp(ramp_progress(epoch, self.ramp_epochs or n_epochs))


PAPER = Distillation()


def classification_terms(output: Output, targets: Tensor, *, multi_label: bool) -> Terms:
    """One cross-entropy per classifier: Eq. 1 of a branch, the sum of Eq. 3 of a fused network.

    >>> output = Output("cqt", torch.zeros(1, 2), torch.zeros(1, 8, 2, 2))
    >>> classification_terms(output, torch.tensor([1]), multi_label=False)
    {'ce_cqt': tensor(0.6931)}
    """
    loss = partial(classification_loss, targets=targets, multi_label=multi_label)
    return {f"ce_{name}": loss(logits) for name, logits in output.logits_by_head().items()}


def distillation_terms(output: Output, distillation: Distillation, *, multi_label: bool) -> Terms:
    """One distillation loss per branch; their sum is L_KD (Eq. 2), and of one branch nothing.

    >>> branch = Output("cqt", torch.zeros(1, 2), torch.zeros(1, 8, 2, 2))
    >>> fused = Output("fused", torch.ones(1, 2), torch.zeros(1, 8, 2, 2), {"cqt": branch})
    >>> distillation_terms(fused, PAPER, multi_label=False)
    {'kd_cqt': tensor(1.)}
    """
    teacher, branches = output.logits, output.branches.values()
    if distillation.teacher == "mean" and branches:
        teacher = torch.stack([branch.logits for branch in branches]).mean(dim=0)
    teacher = teacher.detach() if distillation.detach_teacher else teacher
    settings = {"kind": distillation.loss, "temperature": distillation.temperature}
    loss = partial(distillation_loss, teacher_logits=teacher, multi_label=multi_label, **settings)
    return {f"kd_{name}": loss(branch.logits) for name, branch in output.branches.items()}


def total_loss(terms: Terms, *, kd_weight: float = 0.0, fused_weight: float = 1.0) -> Tensor:
    """L = L_CE + lambda L_KD (Eq. 4), of terms named ``ce_...`` and ``kd_...``.

    With ``fused_weight``, that of the fused classifier's own term, and lambda at 0, each branch is
    trained as it would be alone.

    >>> terms = {"ce_cqt": torch.tensor(1.0), "ce_fused": torch.tensor(2.0)}
    >>> total_loss(terms | {"kd_cqt": torch.tensor(10.0)}, kd_weight=0.5)
    tensor(8.)
    """
    weights = {"ce_fused": fused_weight}
    cross_entropy = sum(weights.get(n, 1.0) * x for n, x in terms.items() if n.startswith("ce_"))
    distillation = sum(term for name, term in terms.items() if name.startswith("kd_"))
    return cross_entropy + kd_weight * distillation
