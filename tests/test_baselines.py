"""Baselines: hand-worked cases, and scikit-learn's own machines beside them."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from fusionkd_lib import baselines, experiment
from fusionkd_lib.baselines import (
    COSTS,
    GAMMAS,
    band_statistics,
    chance,
    nearest_neighbour,
    support_vectors,
)
from fusionkd_lib.catalogue import BASELINES
from fusionkd_lib.errors import InputError
from fusionkd_lib.records import Record
from fusionkd_lib.runs import run_name

NAN = np.nan
PAIR = ["logmel", "gammatone"]


def clouds(n: int, *, n_classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features (n, 6) of overlapping classes, on scales that differ, and the classes."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(n_classes, size=n)
    centres = np.random.default_rng(99).normal(size=(n_classes, 6))
    return (centres[labels] + draw.normal(size=(n, 6))) * 10.0 ** np.arange(-2, 4), labels


def every_fifth(n: int) -> np.ndarray:
    return np.arange(n) % 5 == 0


# Statistics


def test_a_band_is_told_by_its_mean_deviation_and_maximum():
    one = [[1.0, 3.0, 1.0, 3.0], [-2.0, -2.0, -2.0, 10.0]]
    statistics = band_statistics(np.array([one, np.add(one, 1)], np.float16))
    np.testing.assert_allclose(statistics[0], [2, 1, 1, np.sqrt(27), 3, 10], rtol=1e-6)
    np.testing.assert_allclose(statistics[1], [3, 2, 1, np.sqrt(27), 4, 11], rtol=1e-6)


def test_statistics_of_a_stored_array_are_taken_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "CLIPS_AT_ONCE", 3)
    values = np.random.default_rng(0).normal(size=(8, 4, 5)).astype(np.float32)
    np.save(tmp_path / "values.npy", values)
    stored = np.load(tmp_path / "values.npy", mmap_mode="r")
    read = []

    class Watched:
        shape = stored.shape

        def __len__(self) -> int:
            return len(stored)

        def __getitem__(self, rows: slice) -> np.ndarray:
            read.append(len(stored[rows]))
            return stored[rows]

    expected = np.hstack([values.mean(axis=2), values.std(axis=2), values.max(axis=2)])
    np.testing.assert_allclose(band_statistics(Watched()), expected, rtol=1e-5)
    assert read == [3, 3, 2]


# Chance


def test_chance_is_the_share_of_the_training_clips():
    np.testing.assert_allclose(
        chance(np.array([2, 0, 2, 2]), 3, n_classes=4), [[0.25, 0, 0.75, 0]] * 3
    )


def test_the_share_of_a_tag_is_that_of_the_clips_where_it_is_annotated():
    tags = np.array([[1, 0.4, NAN, NAN], [0, 0.6, 1, NAN], [0, 1, 1, NAN]])
    np.testing.assert_allclose(chance(tags, 1, n_classes=4), [[1 / 3, 2 / 3, 1, 0]])


# The nearest neighbour


def test_the_nearest_neighbour_is_scikit_learns_on_standardised_features():
    (train_x, labels), (test_x, _) = clouds(80), clouds(50, seed=1)
    scaler = StandardScaler().fit(train_x)
    reference = KNeighborsClassifier(1).fit(scaler.transform(train_x), labels)
    scores = nearest_neighbour(train_x, labels, test_x, n_classes=5)
    assert scores.shape == (50, 5)
    assert set(np.unique(scores)) == {0, 1}
    np.testing.assert_array_equal(
        scores.argmax(axis=1), reference.predict(scaler.transform(test_x))
    )


def test_a_tag_that_the_neighbour_is_not_annotated_with_scores_its_share():
    tags = np.array([[1, NAN], [0, 1], [0, 0], [0, 1]])
    scores = nearest_neighbour(
        np.array([[0.0], [1], [2], [3]]), tags, np.array([[0.1], [2.9]]), n_classes=2
    )
    np.testing.assert_allclose(scores, [[1, 2 / 3], [0, 1]])


# Support vector machines


def test_classes_are_those_of_the_machine_that_is_best_on_validation():
    (train_x, labels), (test_x, _) = clouds(150), clouds(60, seed=1)
    validation = every_fifth(150)

    def machine(rows: np.ndarray, cost: float, gamma: float) -> tuple[StandardScaler, SVC]:
        scaler = StandardScaler().fit(train_x[rows])
        svc = SVC(C=cost, gamma=gamma / 6, break_ties=True)
        return scaler, svc.fit(scaler.transform(train_x[rows]), labels[rows])

    accuracies = {}
    for cost in COSTS:
        for gamma in GAMMAS:
            scaler, svc = machine(~validation, cost, gamma)
            accuracies[cost, gamma] = svc.score(
                scaler.transform(train_x[validation]), labels[validation]
            )
    assert len(set(accuracies.values())) > 1
    scaler, svc = machine(np.ones(150, bool), *max(accuracies, key=accuracies.get))
    scores = support_vectors(train_x, labels, test_x, validation=validation, n_classes=4)
    np.testing.assert_array_equal(scores.argmax(axis=1), svc.predict(scaler.transform(test_x)))
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert scores.min() >= 0


@pytest.mark.parametrize("present", [[1, 3], [0, 1, 3]])
def test_a_class_without_training_clips_scores_0(present):
    train_x, labels = clouds(200)
    kept = np.isin(labels, present)
    scores = support_vectors(
        train_x[kept], labels[kept], train_x, validation=every_fifth(kept.sum()), n_classes=4
    )
    absent = [k for k in range(4) if k not in present]
    assert (scores[:, absent] == 0).all()
    assert (scores.argmax(axis=1) == labels)[kept].mean() > 0.8


def corners(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points of the plane, and two tags of which no straight line parts the first."""
    x = np.random.default_rng(seed).normal(size=(n, 2))
    return x, np.stack([x[:, 0] * x[:, 1] > 0, x[:, 0] > 1.2], axis=1).astype(float)


def test_each_tag_has_a_machine_whose_scores_mean_what_they_say():
    (train_x, tags), (test_x, truth) = corners(400, 0), corners(2000, 1)
    train_tags = tags.copy()
    train_tags[::7, 0] = NAN
    validation = every_fifth(400)
    scores = support_vectors(train_x, train_tags, test_x, validation=validation, n_classes=2)
    assert ((scores > 0.5) == truth).mean(axis=0).min() > 0.85  # a straight line has a half
    # The second tag is rare: an unfitted logistic function would give it far more than its share.
    np.testing.assert_allclose(scores.mean(axis=0), truth.mean(axis=0), atol=0.06)
    again = support_vectors(train_x, train_tags, test_x, validation=validation, n_classes=2)
    np.testing.assert_array_equal(again, scores)


def test_a_tag_that_nothing_tells_of_scores_about_its_share():
    # Decisions on the clips that a machine was fitted to would be sure of a tag learned by heart.
    draw = np.random.default_rng(0)
    x, tag = draw.normal(size=(300, 40)), draw.random((300, 1)) < 0.3
    test_x = draw.normal(size=(100, 40))
    scores = support_vectors(x, tag.astype(float), test_x, validation=every_fifth(300), n_classes=1)
    np.testing.assert_allclose(scores, 0.3, atol=0.15)


def test_clips_that_are_not_annotated_with_a_tag_have_no_part_in_its_machine():
    (train_x, tags), (test_x, _) = corners(200, 0), corners(50, 1)
    tags[150:, 0] = NAN
    scores = support_vectors(train_x, tags, test_x, validation=every_fifth(200), n_classes=2)
    alone = support_vectors(
        train_x[:150], tags[:150, :1], test_x, validation=every_fifth(200)[:150], n_classes=1
    )
    np.testing.assert_array_equal(scores[:, 0], alone[:, 0])


@pytest.mark.parametrize("part", [np.arange(60) < 0, every_fifth(60), ~every_fifth(60)])
def test_a_tag_that_cannot_be_learned_or_chosen_on_scores_its_share(part):
    x, tags = corners(60, 0)
    tags[:, 1] = part  # never, or in one of the two parts only
    scores = support_vectors(x, tags, x, validation=every_fifth(60), n_classes=2)
    np.testing.assert_allclose(scores[:, 1], part.mean())
    assert len(np.unique(scores[:, 0])) > 30


# As a run


@pytest.fixture(scope="module")
def run(tiny) -> Record:
    return experiment.score_baselines(tiny(representations=PAIR, validation="none"))


def test_the_baselines_of_a_pair_are_a_run_whose_machines_fit_every_training_clip(run):
    assert list(run.scores) == ["chance", "nearest", "svm_logmel", "svm_gammatone", "svm"]
    provenance, clips = run.provenance, experiment.clips_of(run.params)
    n_outside = int((clips.table["fold"] != 1).sum())
    assert (provenance.n_train, provenance.n_validation) == (n_outside, 0)
    assert (provenance.kind, len(run.history), provenance.parents) == ("baselines", 0, {})
    assert run.score("chance") == pytest.approx(0.1)  # as many test clips of each class
    statistics = {
        name: band_statistics(x)
        for name, x in experiment.spectrograms_of(run.params, clips).items()
    }
    is_test = (clips.table["fold"] == 1).to_numpy()
    machine = KNeighborsClassifier(1)
    x = StandardScaler().fit(np.hstack(list(statistics.values()))[~is_test])
    both = x.transform(np.hstack(list(statistics.values())))
    machine.fit(both[~is_test], clips.targets[~is_test])
    expected = machine.score(both[is_test], clips.targets[is_test])
    assert run.score("nearest") == pytest.approx(expected)


def test_machines_are_chosen_on_whole_recordings_of_the_training_folds(tiny, monkeypatch, run):
    seen = []

    def watch(train_x, train_targets, test_x, *, validation, n_classes):
        seen.append(validation)
        return np.tile(np.eye(n_classes)[0], (len(test_x), 1))

    monkeypatch.setattr(baselines, "support_vectors", watch)
    experiment.score_baselines(tiny(representations=PAIR))
    groups = experiment.clips_of(run.params).table.query("fold != 1")["group"].to_numpy()
    for validation in seen:
        assert 0 < validation.sum() < len(validation)
        assert not set(groups[validation]) & set(groups[~validation])


def test_the_run_is_the_same_whatever_network_asks_for_it(tiny, run):
    for change in ({"seed": 5}, {"lr": 0.5, "trunk": "shufflenet_v2", "width": 0.5}):
        assert run_name(tiny(representations=PAIR, **change), branch=BASELINES) == run.name
    for change in ({"fold": 2}, {"n_mels": 20}, {"data_seed": 1}, {"drop_leaked": False}):
        assert run_name(tiny(representations=PAIR, **change), branch=BASELINES) != run.name


def test_the_same_parameters_give_the_same_scores(tiny, run):
    again = experiment.score_baselines(tiny(representations=PAIR))  # in another folder of runs
    assert again.folder != run.folder
    for head, scores in run.scores.items():
        np.testing.assert_array_equal(again.scores[head], scores)


def test_tags_have_baselines_too(tiny):
    scenes = tiny(representations=PAIR, dataset="urban_synth_scenes", n_scenes=40)
    run = experiment.score_baselines(scenes)
    assert run.provenance.metric == "micro_auprc"
    assert run.score("svm") > run.score("chance")


def test_one_representation_has_one_machine(tiny):
    run = experiment.score_baselines(tiny(representations=["cqt"]))
    assert list(run.scores) == ["chance", "nearest", "svm_cqt"]


def test_where_a_run_is_judged_on_validation_clips_no_baseline_reads_the_test_clips(tiny):
    params = tiny(judged_on="validation", validation="grouped", select="last")
    with pytest.raises(InputError, match="judged_on = validation: baselines read the test clips"):
        experiment.score_baselines(params)
