"""Area under the precision-recall curve, as DCASE 2019 Task 5 measures it.

Targets are (n, K), present above 0.5, NaN if not annotated; scores are (n, K) in [0, 1]. A tag
is predicted where its score reaches the threshold. Thresholds are the scores of at least 0.01, and
1. The curve is the trapezoids through its points from (recall 0, precision 1) to (1, 0).

Source: V. Lostanlen, J. Cramer et al., evaluation code of the challenge; its sort is unstable, so
that its values are reproduced to 1e-4 if recalls tie, and to 1e-6 otherwise.
"""

from typing import NamedTuple

import numpy as np

from fusionkd_lib.errors import InputError

LOWEST_THRESHOLD = 0.01


class Counts(NamedTuple):
    """True positives, false positives and positives (T,) at T falling thresholds.

    ``positives`` is true positives and false negatives together; at the fine level it depends on
    the threshold, because an incomplete tag may be hit by a complete one.
    """

    thresholds: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray
    positives: np.ndarray

    def at(self, thresholds: np.ndarray) -> "Counts":
        """Return the counts at other thresholds: each that of the next one here, not below it."""
        rows = len(self.thresholds) - 1 - np.searchsorted(self.thresholds[::-1], thresholds)
        return Counts(thresholds, *(counts[rows] for counts in self[1:]))


def micro_auprc(targets: np.ndarray, scores: np.ndarray) -> float:
    """Pool the counts of all tags at shared thresholds, then take the area: in [0, 1].

    Parameters
    ----------
    targets
        (n, K), present above 0.5, NaN is ignored.
    scores
        (n, K) in [0, 1].

    Raises
    ------
    InputError
        If the shapes differ, or a score is not in [0, 1].

    Source
    ------
    DCASE 2019 Task 5, coarse level.

    Examples
    --------
    >>> micro_auprc(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]))
    1.0
    """
    targets, scores = check_tags(targets, scores)
    # Counting a tag where its score reaches any shared threshold is counting all scores as one tag.
    return area(count(targets.ravel(), scores.ravel()), rising=True)


def macro_auprc(targets: np.ndarray, scores: np.ndarray) -> float:
    """Average `per_class_auprc` over the K tags; parameters and errors as for `micro_auprc`.

    >>> macro_auprc(np.array([[1.0], [0.0]]), np.array([[1.0], [0.1]]))
    1.0
    """
    return float(per_class_auprc(targets, scores).mean())


def per_class_auprc(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Take the area of each tag: (K,), 0 for a tag that is never present.

    Parameters and errors are those of `micro_auprc`.

    >>> per_class_auprc(np.array([[1.0, 0.0]]), np.array([[1.0, 0.1]]))
    array([1., 0.])
    """
    targets, scores = check_tags(targets, scores)
    return np.array([area(count(*tag)) for tag in zip(targets.T, scores.T, strict=True)])


def check_tags(targets: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as (n, K) float64, or raise an `InputError`."""
    targets, scores = np.asarray(targets, dtype=float), np.asarray(scores, dtype=float)
    if targets.ndim != 2 or targets.shape != scores.shape or not targets.size:
        shapes = f"targets {targets.shape} and scores {scores.shape}"
        raise InputError(f"{shapes}: both must be (clips, tags), not empty")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise InputError(f"scores reach {scores.min()} to {scores.max()}: must lie in [0, 1]")
    return targets, scores


def count(targets: np.ndarray, scores: np.ndarray) -> Counts:
    """Count one tag (n,) at each of its falling thresholds."""
    annotated = ~np.isnan(targets)
    present, scores = targets[annotated] > 0.5, scores[annotated]
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    # Clips whose score reaches the threshold at each place: those up to the last of its equals.
    hits = np.concatenate([[0], np.cumsum(present[order])])
    thresholds = falling_thresholds(scores)
    reached = np.searchsorted(-falling, -thresholds, side="right")
    found = hits[reached]
    return Counts(thresholds, found, reached - found, np.full_like(reached, hits[-1]))


def count_fine(
    targets: np.ndarray, targets_x: np.ndarray, scores: np.ndarray, scores_x: np.ndarray
) -> Counts:
    """Count the fine tags of one category, whose truth may be incomplete.

    Parameters
    ----------
    targets, scores
        (n, K) of the complete tags.
    targets_x, scores_x
        (n,) of the incomplete tag X: of this category, its fine tag unknown.

    Notes
    -----
    A complete tag counts as usual, but a clip whose truth holds X forgives wrong complete tags. X
    is one more true positive where anything of the category is predicted and no complete tag is
    right; one false negative where nothing is predicted and X alone is true; and, predicted, one
    false positive where nothing of the category is true (unless all complete tags are predicted,
    whose false positives then say enough).

    Source
    ------
    DCASE 2019 Task 5, fine level.
    """
    annotated = ~np.isnan(targets).any(axis=1) & ~np.isnan(targets_x)
    truth = (targets[annotated] > 0.5)[None]  # (1, n, K)
    truth_x = (targets_x[annotated] > 0.5)[None]  # (1, n)
    thresholds = falling_thresholds(scores[annotated])  # X has no thresholds of its own
    predicted = scores[annotated] >= thresholds[:, None, None]  # (T, n, K)
    predicted_x = scores_x[annotated] >= thresholds[:, None]  # (T, n)

    hits = truth & predicted
    false_alarms = ~truth & predicted & ~truth_x[..., None]
    anything = predicted.any(axis=2) | predicted_x
    hits_x = truth_x & anything & ~hits.any(axis=2)
    misses_x = truth_x & ~truth.any(axis=2) & ~anything
    nothing_true = ~truth_x & ~truth.any(axis=2)
    false_alarms_x = nothing_true & predicted_x & ~predicted.all(axis=2)
    true_positives = hits.sum(axis=(1, 2)) + hits_x.sum(axis=1)
    false_positives = false_alarms.sum(axis=(1, 2)) + false_alarms_x.sum(axis=1)
    positives = truth.sum() + hits_x.sum(axis=1) + misses_x.sum(axis=1)
    return Counts(thresholds, true_positives, false_positives, positives)


def falling_thresholds(scores: np.ndarray) -> np.ndarray:
    """Return 1 and the unique scores of at least 0.01, from high to low."""
    return np.unique(np.append(scores[scores >= LOWEST_THRESHOLD], 1.0))[::-1]


def pool(categories: list[Counts]) -> Counts:
    """Add the counts of categories at the union of their thresholds."""
    thresholds = np.unique(np.concatenate([counts.thresholds for counts in categories]))[::-1]
    shared = [counts.at(thresholds)[1:] for counts in categories]
    return Counts(thresholds, *(sum(counts) for counts in zip(*shared, strict=True)))


def area(counts: Counts, *, rising: bool = False) -> float:
    """Integrate the curve; ``rising`` takes tied recalls from the lowest threshold up.

    The challenge's code does that for its micro average, and the reverse for single categories.
    """
    # Nothing predicted, or nothing to be found: 0, whatever the denominator above 0.
    predicted = counts.true_positives + counts.false_positives
    precision = counts.true_positives / np.maximum(predicted, 0.5)
    recall = counts.true_positives / np.maximum(counts.positives, 0.5)
    if rising:
        precision, recall = precision[::-1], recall[::-1]
    order = np.argsort(recall, kind="stable")
    recall = np.concatenate([[0.0], recall[order], [1.0]])
    precision = np.concatenate([[1.0], precision[order], [0.0]])
    return float(np.trapezoid(precision, recall))
