"""Accuracy, the official AUPRC of DCASE 2019 Task 5, and bootstrap intervals of either.

Single-label targets are (n,) class indices, multi-label ones (n, K) with NaN if not annotated;
scores are (n, K), of any kind for one label and in [0, 1] for many.
"""

from collections.abc import Callable

import numpy as np

from fusionkd_lib.auprc import Counts, check_tags, count, macro_auprc, micro_auprc, per_class_auprc
from fusionkd_lib.errors import InputError, check_counts

Metric = Callable[[np.ndarray, np.ndarray], float]  # metric(targets, scores)


def accuracy(targets: np.ndarray, scores: np.ndarray) -> float:
    """Return the share in [0, 1] of clips whose highest score is their class's.

    Parameters
    ----------
    targets
        (n,) class indices.
    scores
        (n, K); of equal highest scores the first class is taken.

    Raises
    ------
    InputError
        If the shapes do not fit, a target is no class, or a score is NaN.

    Examples
    --------
    >>> accuracy(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    0.5
    """
    targets, scores = _check_classes(targets, scores)
    return float((scores.argmax(axis=1) == targets).mean())


def confusion(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Count clips: (K, K) int64, one row per true class and one column per predicted class.

    Parameters and errors are those of `accuracy`.

    >>> confusion(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    array([[1, 0],
           [1, 0]])
    """
    targets, scores = _check_classes(targets, scores)
    n_classes = scores.shape[1]
    pairs = targets * n_classes + scores.argmax(axis=1)
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def per_class_recall(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the accuracy on the clips of each class: (K,), NaN for a class without clips.

    Parameters and errors are those of `accuracy`.

    >>> per_class_recall(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    array([1., 0.])
    """
    matrix = confusion(targets, scores)
    clips = matrix.sum(axis=1)
    return np.where(clips > 0, matrix.diagonal() / np.maximum(clips, 1), np.nan)


def choose_thresholds(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Find the threshold of each tag that maximises its F1; for validation clips only.

    Parameters
    ----------
    targets
        (n, K), present above 0.5, NaN is ignored.
    scores
        (n, K) in [0, 1].

    Returns
    -------
    numpy.ndarray
        (K,) in [0.01, 1]: predict a tag where its score is at least that. The highest of equally
        good ones; 0.5 for a tag that is never present.

    Raises
    ------
    InputError
        If the shapes differ, or a score is not in [0, 1].

    Examples
    --------
    >>> choose_thresholds(np.array([[0.0], [1.0], [1.0]]), np.array([[0.2], [0.6], [0.9]]))
    array([0.6])
    """
    targets, scores = check_tags(targets, scores)
    tags = [count(*tag) for tag in zip(targets.T, scores.T, strict=True)]
    return np.array([_best_threshold(counts) for counts in tags])


def _best_threshold(counts: Counts) -> float:
    predicted = counts.true_positives + counts.false_positives
    f1 = 2 * counts.true_positives / np.maximum(predicted + counts.positives, 1)
    return float(counts.thresholds[f1.argmax()]) if f1.any() else 0.5


def official(targets: np.ndarray) -> str:
    """Return the metric that a dataset is reported by, as a key of `summary`.

    >>> official(np.array([0, 2, 1])), official(np.array([[0.0, 1.0]]))
    ('accuracy', 'micro_auprc')
    """
    return "micro_auprc" if np.ndim(targets) == 2 else "accuracy"


def summary(targets: np.ndarray, scores: np.ndarray) -> dict[str, float | list[float | None]]:
    """Return every metric of a classifier by name, for (n,) or for (n, K) targets.

    >>> summary(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    {'accuracy': 0.5, 'per_class_recall': [1.0, 0.0]}
    """
    if np.ndim(targets) == 1:
        recall = per_class_recall(targets, scores)
        return {"accuracy": accuracy(targets, scores), "per_class_recall": _or_none(recall)}
    return {
        "micro_auprc": micro_auprc(targets, scores),
        "macro_auprc": macro_auprc(targets, scores),
        "per_class_auprc": _or_none(per_class_auprc(targets, scores)),
    }


def _or_none(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def bootstrap(
    metric: Metric,
    targets: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    *,
    n_resamples: int = 500,
    seed: int = 0,
) -> np.ndarray:
    """Return a metric of samples that draw whole groups with replacement: (n_resamples,).

    Clips of one recording resemble each other: drawing clips would make intervals too narrow.

    Parameters
    ----------
    metric
        ``metric(targets, scores)`` returns one number, such as `accuracy` or `micro_auprc`.
    targets, scores
        n rows each, as the metric requires.
    groups
        (n,) the recording or sensor of each row.
    n_resamples, seed
        Number of draws, and the seed that alone determines the groups drawn.

    Raises
    ------
    InputError
        If the lengths differ, or there are fewer than two groups or one draw.

    Source
    ------
    B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13.

    Examples
    --------
    >>> targets, scores = np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]])
    >>> values = bootstrap(accuracy, targets, scores, np.array(["a", "b"]), n_resamples=100)
    >>> values.shape, set(values.tolist()) == {0.0, 0.5, 1.0}
    ((100,), True)
    """
    targets, scores, groups = np.asarray(targets), np.asarray(scores), np.asarray(groups)
    check_counts(n_resamples=n_resamples)
    lengths = len(targets), len(scores), len(groups)
    if len(set(lengths)) > 1:
        rows = "{}, {} and {} rows".format(*lengths)
        raise InputError(f"targets, scores and groups have {rows}: must have one row per clip")
    _, group_of = np.unique(groups, return_inverse=True)
    rows = np.split(np.argsort(group_of, kind="stable"), np.cumsum(np.bincount(group_of))[:-1])
    if len(rows) < 2:
        raise InputError(f"groups has {len(rows)} recordings: resampling needs at least two")
    drawn = np.random.default_rng(seed).integers(len(rows), size=(n_resamples, len(rows)))
    samples = (np.concatenate([rows[group] for group in groups]) for groups in drawn)
    return np.array([metric(targets[sample], scores[sample]) for sample in samples])


def bootstrap_interval(
    *sampled: Metric | np.ndarray, level: float = 0.95, **draws: int
) -> tuple[float, float]:
    """Return the ends of the percentile interval of a metric, of coverage ``level``.

    The other parameters, errors and the source are those of `bootstrap`.

    >>> targets, scores = np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]])
    >>> bootstrap_interval(accuracy, targets, scores, np.array(["a", "b"]))
    (0.0, 1.0)
    """
    if not 0 < level < 1:
        raise InputError(f"level={level}: must lie in (0, 1)")
    values = bootstrap(*sampled, **draws)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check_classes(targets: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    targets, scores = np.asarray(targets), np.asarray(scores)
    if scores.ndim != 2 or targets.shape != scores.shape[:1] or not scores.size:
        shapes = f"targets {targets.shape} and scores {scores.shape}"
        raise InputError(f"{shapes}: must be (clips,) and (clips, classes), not empty")
    n_classes = scores.shape[1]
    if not np.isin(targets, np.arange(n_classes)).all():
        reach = f"targets reach from {targets.min()} to {targets.max()}"
        raise InputError(f"{reach}: must be classes from 0 to {n_classes - 1}")
    if np.isnan(scores).any():
        raise InputError("scores hold NaN: the network diverged, or a clip was not predicted")
    return targets.astype(np.int64), scores
