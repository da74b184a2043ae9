"""What a network has to beat: chance, the nearest neighbour, and support vector machines.

They are pure functions on arrays, look at three statistics per band, and use no random numbers.
Targets are (n,) class indices, or (n, K) tags, present above 0.5, with NaN if not annotated; scores
are (n, K) in [0, 1].
"""

from collections.abc import Mapping

import numpy as np
from scipy.special import softmax
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances_argmin
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from fusionkd_lib.catalogue import baselines_of
from fusionkd_lib.datasets.splits import Split

CLIPS_AT_ONCE = 256
COSTS = (1.0, 10.0, 100.0)  # C
GAMMAS = (0.1, 0.3, 1.0)  # over the number of features, each of unit deviation


def scores_of(
    spectrograms: Mapping[str, np.ndarray], targets: np.ndarray, split: Split, *, n_classes: int
) -> dict[str, np.ndarray]:
    """Score the test clips with every baseline of a pair, by head, in float32.

    All clips for training and validation are fitted; machines are chosen on the latter.

    Parameters
    ----------
    spectrograms
        Representation -> (n, F, T) in dB of all clips.
    """
    rows = np.union1d(split.train, split.validation)
    known, chosen_on = targets[rows], np.isin(rows, split.validation)
    statistics = [band_statistics(values) for values in spectrograms.values()]
    both, shared = np.hstack(statistics), {"n_classes": n_classes}
    machines = [
        support_vectors(x[rows], known, x[split.test], validation=chosen_on, **shared)
        for x in (*statistics, *[both] * (len(statistics) > 1))
    ]
    nearest = nearest_neighbour(both[rows], known, both[split.test], **shared)
    scores = [chance(known, len(split.test), **shared), nearest, *machines]
    heads = baselines_of(list(spectrograms))
    return {head: x.astype(np.float32) for head, x in zip(heads, scores, strict=True)}


def band_statistics(spectrograms: np.ndarray) -> np.ndarray:
    """Return mean, deviation and maximum over time of each band: (n, F, T) in dB -> (n, 3F).

    A memory-mapped array is read part by part.
    """
    statistics = np.empty((len(spectrograms), 3 * spectrograms.shape[1]), np.float32)
    for first in range(0, len(spectrograms), CLIPS_AT_ONCE):
        rows = slice(first, first + CLIPS_AT_ONCE)
        part = np.asarray(spectrograms[rows], np.float32)
        statistics[rows] = np.hstack([part.mean(axis=2), part.std(axis=2), part.max(axis=2)])
    return statistics


def chance(train_targets: np.ndarray, n_test: int, *, n_classes: int) -> np.ndarray:
    """Score every clip with each class's or tag's share of the training clips.

    The commonest class has the highest score; a tag that was never annotated has 0.
    """
    tags = _tags(train_targets, n_classes)
    shares = np.nansum(tags, axis=0) / np.maximum((~np.isnan(tags)).sum(axis=0), 1)
    return np.tile(shares, (n_test, 1))


def nearest_neighbour(
    train_x: np.ndarray, train_targets: np.ndarray, test_x: np.ndarray, *, n_classes: int
) -> np.ndarray:
    """Score each clip with the targets of the nearest training clip.

    Features (n, D) are standardised, distances Euclidean. A tag that is not annotated there scores
    its `chance`.
    """
    scaler = StandardScaler().fit(train_x)
    nearest = pairwise_distances_argmin(scaler.transform(test_x), scaler.transform(train_x))
    tags = _tags(train_targets, n_classes)[nearest]
    return np.where(np.isnan(tags), chance(train_targets, len(tags), n_classes=n_classes), tags)


def support_vectors(
    train_x: np.ndarray,
    train_targets: np.ndarray,
    test_x: np.ndarray,
    *,
    validation: np.ndarray,
    n_classes: int,
) -> np.ndarray:
    """Score clips with a support vector machine on standardised features, RBF kernel.

    C and gamma are those of `COSTS` and `GAMMAS` that score best on the validation clips, the
    smaller ones where several do; then all training clips are fitted.

    Parameters
    ----------
    train_x, test_x
        (n, D) features, such as `band_statistics`.
    validation
        (n,) bool: the training clips to choose on; they share no recording with the others.

    Returns
    -------
    numpy.ndarray
        For classes, the softmax of the one-vs-rest decisions. For tags, with one machine each, the
        logistic function of the decision, fitted to the validation clips; a tag that is always
        or never present there, or among the others, scores its `chance`.

    Source: B. Boser et al., COLT 1992; J. Platt, Probabilistic outputs for SVMs, 1999.
    """
    if train_targets.ndim == 1:
        machine = _search(train_x, train_targets, validation, scoring="accuracy")
        decisions = machine.decision_function(test_x).reshape(len(test_x), -1)
        if decisions.shape[1] == 1:  # two classes have one decision, for the second
            decisions = np.hstack([-decisions, decisions])
        scores = np.zeros((len(test_x), n_classes))
        scores[:, machine.classes_] = softmax(decisions, axis=1)
        return scores
    scores = chance(train_targets, len(test_x), n_classes=n_classes)
    for k, tag in enumerate(train_targets.T):
        known = ~np.isnan(tag)
        present, chosen_on = tag[known] > 0.5, validation[known]
        if all(len(np.unique(present[part])) == 2 for part in (chosen_on, ~chosen_on)):
            scores[:, k] = _tag_scores(train_x[known], present, test_x, chosen_on)
    return scores


def _search(x: np.ndarray, labels: np.ndarray, validation: np.ndarray, *, scoring: str) -> Pipeline:
    # Without ties, the class that is predicted is the one of the highest decision.
    machine = make_pipeline(StandardScaler(), SVC(break_ties=True))
    grid = {"svc__C": COSTS, "svc__gamma": [gamma / x.shape[1] for gamma in GAMMAS]}
    split = PredefinedSplit(np.where(validation, 0, -1))
    search = GridSearchCV(machine, grid, scoring=scoring, cv=split, error_score="raise")
    return search.fit(x, labels).best_estimator_


def _tag_scores(
    train_x: np.ndarray, present: np.ndarray, test_x: np.ndarray, validation: np.ndarray
) -> np.ndarray:
    machine = _search(train_x, present, validation, scoring="average_precision")
    held_out = clone(machine).fit(train_x[~validation], present[~validation])
    decisions = held_out.decision_function(train_x[validation])[:, None]
    logistic = LogisticRegression().fit(decisions, present[validation])
    return logistic.predict_proba(machine.decision_function(test_x)[:, None])[:, 1]


def _tags(targets: np.ndarray, n_classes: int) -> np.ndarray:
    """Return targets as (n, K) in 0 and 1, with NaN if not annotated."""
    if targets.ndim == 1:
        return np.eye(n_classes)[targets]
    return np.where(np.isnan(targets), np.nan, targets > 0.5)
