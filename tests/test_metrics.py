"""Metrics: hand-worked cases, scikit-learn, and the challenge's own values as oracles."""

import json

import numpy as np
import pandas as pd
import pytest
from miniature import COARSE, FINE, make_sonyc_ust
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    f1_score,
    precision_recall_curve,
    recall_score,
)

from fusionkd_lib.auprc import count, count_fine
from fusionkd_lib.challenge import evaluate_sonyc, read_predictions
from fusionkd_lib.datasets import sonyc_labels
from fusionkd_lib.errors import InputError
from fusionkd_lib.metrics import (
    accuracy,
    bootstrap,
    bootstrap_interval,
    choose_thresholds,
    confusion,
    macro_auprc,
    micro_auprc,
    per_class_auprc,
    per_class_recall,
    summary,
)

PREDICTIONS = ("volunteer_vote_mean", "constant_half", "uniform_noise", "noisy_truth")
# Where the challenge's unstable sort orders tied recalls at random.
TOLERANCE = {"uniform_noise": 1e-4, "noisy_truth": 1e-4}


@pytest.fixture(scope="module")
def challenge(dcase):
    return (
        sonyc_labels.read_annotations(dcase / "annotations.csv"),
        sonyc_labels.read_taxonomy(dcase / "dcase-ust-taxonomy.yaml"),
        dcase,
    )


@pytest.fixture
def miniature(tmp_path):
    """Return annotations, taxonomy, and predictions of 0.5 throughout."""
    root = make_sonyc_ust(tmp_path / "sonyc", audio=False)
    annotations = sonyc_labels.read_annotations(root / "annotations.csv")
    taxonomy = sonyc_labels.Taxonomy(COARSE, FINE)
    tags = (*taxonomy.tags("coarse"), *taxonomy.tags("fine", incomplete=True))
    names = {"audio_filename": ["03_000001.wav", "00_000001.wav"]}
    return annotations, taxonomy, pd.DataFrame(names | dict.fromkeys(tags, 0.5))


def agreed_truth(annotations, taxonomy, *, level: str) -> pd.DataFrame:
    presence = sonyc_labels.presence_of(annotations, taxonomy, level=level, incomplete=True)
    return sonyc_labels.agreed_truth(annotations, presence)


def random_tags(seed: int, *, n: int = 200, n_tags: int = 5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    targets = generator.uniform(size=(n, n_tags)) < np.linspace(0.05, 0.6, n_tags)
    return targets.astype(float), generator.uniform(0.01, 0.99, size=(n, n_tags))


# Single label


def test_accuracy_and_confusion_agree_with_sklearn():
    generator = np.random.default_rng(0)
    targets, scores = generator.integers(0, 7, 300), generator.normal(size=(300, 7))
    matrix = confusion(targets, scores)
    np.testing.assert_array_equal(matrix, confusion_matrix(targets, scores.argmax(axis=1)))
    assert accuracy(targets, scores) == pytest.approx(matrix.trace() / 300)
    recall = recall_score(targets, scores.argmax(axis=1), average=None)
    np.testing.assert_allclose(per_class_recall(targets, scores), recall)


def test_a_class_without_clips_has_a_row_of_zeros_and_no_recall():
    scores = np.eye(3)[[0, 1, 1]]
    assert confusion(np.array([0, 0, 1]), scores).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    np.testing.assert_array_equal(per_class_recall([0, 0, 1], scores), [0.5, 1.0, np.nan])


@pytest.mark.parametrize("metric", [accuracy, confusion, per_class_recall])
@pytest.mark.parametrize(
    ("targets", "scores", "fault"),
    [
        ([0, 1], np.zeros((3, 2)), r"targets \(2,\) and scores \(3, 2\)"),
        ([0], np.zeros(2), r"scores \(2,\)"),
        ([], np.zeros((0, 2)), "not empty"),
        ([0, 2], np.zeros((2, 2)), "targets reach from 0 to 2: must be classes from 0 to 1"),
        ([0, -1], np.zeros((2, 2)), "from -1 to 0: must be classes from 0 to 1"),
        ([0, 1], np.full((2, 2), np.nan), "scores hold NaN"),
    ],
)
def test_what_is_no_single_label_prediction_is_refused(metric, targets, scores, fault):
    with pytest.raises(InputError, match=fault):
        metric(np.array(targets, dtype=int), scores)


# The challenge's area


def test_the_area_of_a_hand_worked_curve():
    # Falling thresholds 1, 0.9, 0.8, 0.3: (R, P) = (0, 0), (1/2, 1), (1/2, 1/2), (1, 2/3).
    targets, scores = np.array([[1.0], [0.0], [1.0]]), np.array([[0.9], [0.8], [0.3]])
    # Single tag, tied recalls from the highest threshold: from (0, 0), so half of the first unit.
    by_hand = 0.5 * (0 + 1) / 2 + 0.5 * (1 / 2 + 2 / 3) / 2
    assert per_class_auprc(targets, scores).tolist() == pytest.approx([by_hand])
    # Pooled, tied recalls from the lowest threshold: (1/2, 1/2) comes before (1/2, 1).
    assert micro_auprc(targets, scores) == pytest.approx(
        0.5 * (0 + 1 / 2) / 2 + 0.5 * (1 + 2 / 3) / 2
    )


def test_perfect_scores_reach_one_and_inverted_ones_do_not():
    targets, _ = random_tags(0)
    assert micro_auprc(targets, targets) == 1
    assert macro_auprc(targets, targets) == 1
    assert micro_auprc(targets, 1 - targets) < targets.mean() / 2


def test_counts_agree_with_sklearns_curve():
    targets, scores = random_tags(1)
    for tag in range(targets.shape[1]):
        counts = count(targets[:, tag], scores[:, tag])
        precision, recall, thresholds = precision_recall_curve(targets[:, tag], scores[:, tag])
        np.testing.assert_array_equal(counts.thresholds[1:], thresholds[::-1])
        predicted = counts.true_positives + counts.false_positives
        np.testing.assert_allclose(
            counts.true_positives[1:] / predicted[1:], precision[:-1][::-1], atol=1e-12
        )
        np.testing.assert_allclose(
            counts.true_positives[1:] / counts.positives[1:], recall[:-1][::-1], atol=1e-12
        )


def test_the_area_is_near_average_precision_with_many_clips():
    targets, noise = random_tags(2, n=4000)
    scores = np.clip(0.3 * targets + 0.69 * noise, 0.01, 1)
    expected = average_precision_score(targets, scores, average=None)
    np.testing.assert_allclose(per_class_auprc(targets, scores), expected, atol=0.02)
    pooled = average_precision_score(targets.ravel(), scores.ravel())
    assert micro_auprc(targets, scores) == pytest.approx(pooled, abs=0.005)


def test_macro_counts_a_rare_tag_as_much_as_a_common_one():
    # The tag of the hand-worked curve, one that is found throughout, and one that is never present.
    targets = np.array([[1.0, 1, 0], [0, 0, 0], [1, 0, 0]])
    scores = np.array([[0.9, 1, 0.3], [0.8, 0, 0.3], [0.3, 0, 0.3]])
    by_hand = 0.5 * (0 + 1) / 2 + 0.5 * (1 / 2 + 2 / 3) / 2
    assert macro_auprc(targets, scores) == pytest.approx((by_hand + 1 + 0) / 3)


def test_one_tag_repeated_pools_to_itself():
    targets, scores = random_tags(4, n_tags=1)
    repeated = np.repeat(targets, 3, axis=1), np.repeat(scores, 3, axis=1)
    assert micro_auprc(*repeated) == pytest.approx(micro_auprc(targets, scores))


def test_the_order_of_clips_does_not_matter():
    targets, scores = random_tags(5)
    scores = scores.round(1)  # with many equal scores
    order = np.random.default_rng(0).permutation(len(targets))
    assert micro_auprc(targets[order], scores[order]) == micro_auprc(targets, scores)
    assert macro_auprc(targets[order], scores[order]) == macro_auprc(targets, scores)


def test_targets_not_annotated_are_ignored():
    targets, scores = random_tags(6)
    hidden = targets.copy()
    hidden[:50, 2] = np.nan
    expected = per_class_auprc(targets[50:, 2:3], scores[50:, 2:3])
    assert per_class_auprc(hidden, scores)[2] == expected[0]
    annotated = ~np.isnan(hidden)
    flat = targets[annotated][:, None], scores[annotated][:, None]
    assert micro_auprc(hidden, scores) == micro_auprc(*flat)


def test_a_tag_that_is_never_present_has_no_area():
    assert per_class_auprc(np.zeros((4, 1)), np.full((4, 1), 0.3)).tolist() == [0]


def test_a_vote_above_one_half_is_presence():
    targets, scores = random_tags(7)
    assert micro_auprc(targets * 2 / 3, scores) == micro_auprc(targets, scores)


def test_scores_below_a_hundredth_are_never_predicted():
    targets, scores = np.array([[1.0], [0.0]]), np.array([[0.009], [0.5]])
    assert count(targets[:, 0], scores[:, 0]).thresholds.tolist() == [1, 0.5]


@pytest.mark.parametrize("metric", [micro_auprc, macro_auprc, per_class_auprc, choose_thresholds])
@pytest.mark.parametrize(
    ("targets", "scores", "fault"),
    [
        (np.zeros((3, 2)), np.zeros((3, 3)), r"targets \(3, 2\) and scores \(3, 3\)"),
        (np.zeros(3), np.zeros(3), r"targets \(3,\)"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "not empty"),
        (np.zeros((1, 2)), np.array([[0.5, 1.5]]), r"scores reach 0\.5 to 1\.5"),
        (np.zeros((1, 2)), np.array([[-0.5, 0.5]]), r"in \[0, 1\]"),
        (np.zeros((1, 2)), np.array([[np.nan, 0.5]]), r"in \[0, 1\]"),
    ],
)
def test_what_is_no_multi_label_prediction_is_refused(metric, targets, scores, fault):
    with pytest.raises(InputError, match=fault):
        metric(targets, scores)


# The fine level

# One clip, two complete tags and X: truth, prediction, (true positives, false positives, positives)
FINE_CASES = {
    "right": ([1, 0], 0, [1, 0], 0, (1, 0, 1)),
    "wrong tag": ([1, 0], 0, [0, 1], 0, (0, 1, 1)),
    "nothing predicted": ([1, 0], 0, [0, 0], 0, (0, 0, 1)),
    "nothing at all": ([0, 0], 0, [0, 0], 0, (0, 0, 0)),
    "X foreseen": ([0, 0], 1, [0, 0], 1, (1, 0, 1)),
    "X, any tag will do": ([0, 0], 1, [0, 1], 0, (1, 0, 1)),
    "X, two tags count once": ([0, 0], 1, [1, 1], 0, (1, 0, 1)),
    "X missed": ([0, 0], 1, [0, 0], 0, (0, 0, 1)),
    "X beside a tag, the tag found": ([1, 0], 1, [1, 0], 0, (1, 0, 1)),
    "X beside a tag, another found": ([1, 0], 1, [0, 1], 0, (1, 0, 2)),
    "X beside a tag, X found": ([1, 0], 1, [0, 0], 1, (1, 0, 2)),
    "X beside a tag, nothing found": ([1, 0], 1, [0, 0], 0, (0, 0, 1)),
    "X predicted of nothing": ([0, 0], 0, [0, 0], 1, (0, 1, 0)),
    "X and one tag predicted of nothing": ([0, 0], 0, [1, 0], 1, (0, 2, 0)),
    "X and all tags predicted of nothing": ([0, 0], 0, [1, 1], 1, (0, 2, 0)),
    "X predicted beside a right tag": ([1, 0], 0, [1, 0], 1, (1, 0, 1)),
    "X predicted instead of a tag": ([1, 0], 0, [0, 0], 1, (0, 0, 1)),
}


@pytest.mark.parametrize("case", FINE_CASES)
def test_incomplete_tags_count_as_the_challenge_describes(case):
    truth, truth_x, predicted, predicted_x, expected = FINE_CASES[case]
    counts = count_fine(
        np.array([truth], dtype=float),
        np.array([truth_x], dtype=float),
        np.array([predicted]) * 1.0,
        np.array([predicted_x]) * 1.0,
    )
    assert counts.thresholds.tolist() == [1]
    assert (
        counts.true_positives.item(),
        counts.false_positives.item(),
        counts.positives.item(),
    ) == expected


def test_without_incomplete_tags_the_fine_counts_are_the_plain_ones():
    targets, scores = random_tags(8, n_tags=1)
    zeros = np.zeros(len(targets))
    fine, plain = count_fine(targets, zeros, scores, zeros), count(targets[:, 0], scores[:, 0])
    for field in ("thresholds", "true_positives", "false_positives", "positives"):
        np.testing.assert_array_equal(getattr(fine, field), getattr(plain, field))


# The challenge's evaluation


@pytest.mark.parametrize("level", ["coarse", "fine"])
@pytest.mark.parametrize("name", PREDICTIONS)
def test_evaluation_reproduces_the_challenges_own_values(challenge, name, level):
    annotations, taxonomy, folder = challenge
    expected = json.loads((folder / "expected.json").read_text())[name][level]
    predictions = read_predictions(folder / f"{name}.csv")
    result = evaluate_sonyc(predictions, annotations, taxonomy, level)
    tolerance = TOLERANCE.get(name, 1e-6)
    assert result["micro_auprc"] == pytest.approx(expected["micro_auprc"], abs=tolerance)
    assert result["macro_auprc"] == pytest.approx(expected["macro_auprc"], abs=1e-6)
    assert {tag[0]: value for tag, value in result["per_category"].items()} == pytest.approx(
        expected["per_coarse_category"], abs=1e-6
    )


def test_the_array_metric_is_the_evaluations_coarse_level(challenge):
    annotations, taxonomy, folder = challenge
    predictions = read_predictions(folder / "noisy_truth.csv").set_index("audio_filename")
    truth = agreed_truth(annotations, taxonomy, level="coarse")
    scores = predictions.loc[truth.index, truth.columns].to_numpy()
    result = evaluate_sonyc(predictions.reset_index(), annotations, taxonomy)
    assert micro_auprc(truth.to_numpy(), scores) == pytest.approx(result["micro_auprc"], abs=1e-12)
    assert macro_auprc(truth.to_numpy(), scores) == pytest.approx(result["macro_auprc"], abs=1e-12)


def test_a_perfect_fine_oracle_is_held_down_by_the_shipped_coarse_column(challenge):
    annotations, taxonomy, _ = challenge
    fine = agreed_truth(annotations, taxonomy, level="fine")
    coarse = {
        tag: fine[list(taxonomy.fine_tags(category, True))].max(axis=1)
        for category, tag in zip(taxonomy.coarse, taxonomy.tags("coarse"), strict=True)
    }
    oracle = pd.concat([fine, pd.DataFrame(coarse)], axis=1).reset_index()
    assert evaluate_sonyc(oracle, annotations, taxonomy, "fine")["micro_auprc"] == 1
    shipped = evaluate_sonyc(oracle, annotations, taxonomy)
    assert shipped["micro_auprc"] == pytest.approx(0.950, abs=5e-4)
    presence = sonyc_labels.presence_of(annotations, taxonomy, coarse_labels="recomputed")
    recomputed = sonyc_labels.agreed_truth(annotations, presence)
    assert micro_auprc(recomputed.to_numpy(), oracle[recomputed.columns].to_numpy()) == 1


@pytest.mark.parametrize("level", ["coarse", "fine"])
def test_neither_the_order_nor_the_suffix_of_the_rows_matters(miniature, level):
    annotations, taxonomy, predictions = miniature
    generator = np.random.default_rng(0)
    predictions.iloc[:, 1:] = generator.uniform(0.1, 0.9, predictions.iloc[:, 1:].shape)
    renamed = predictions.iloc[::-1].assign(
        audio_filename=lambda table: table["audio_filename"].str.replace(".wav", ".ogg")
    )
    expected = evaluate_sonyc(predictions, annotations, taxonomy, level)
    assert evaluate_sonyc(renamed, annotations, taxonomy, level) == expected


def test_incomplete_tags_that_are_not_predicted_count_as_zero(miniature):
    annotations, taxonomy, predictions = miniature
    incomplete = [tag for tag in predictions if "-X" in tag]
    assert incomplete
    without = predictions.drop(columns=incomplete)
    zeros = predictions.assign(**dict.fromkeys(incomplete, 0.0))
    expected = evaluate_sonyc(zeros, annotations, taxonomy, "fine")
    assert evaluate_sonyc(without, annotations, taxonomy, "fine") == expected


def test_a_file_needs_only_the_columns_of_its_level(miniature):
    annotations, taxonomy, predictions = miniature
    coarse = predictions[["audio_filename", *taxonomy.tags("coarse")]]
    assert evaluate_sonyc(coarse, annotations, taxonomy) == evaluate_sonyc(
        predictions, annotations, taxonomy
    )
    with pytest.raises(InputError, match="lacks the column 1-1_small-sounding-engine"):
        evaluate_sonyc(coarse, annotations, taxonomy, "fine")


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda table: table.drop(columns="audio_filename"), "lacks the column audio_filename"),
        (lambda table: table.drop(columns="1_engine"), "lacks the column 1_engine"),
        (lambda table: table.iloc[:1], "lacks clips: 1 of them, the first 00_000001"),
        (
            lambda table: pd.concat([table, table.assign(audio_filename="04_000001.wav")[:1]]),
            "holds clips that are not of the split: 1 of them, the first 04_000001",
        ),
        (
            lambda table: pd.concat([table, table[:1]]),
            "holds clips twice: 1 of them, the first 03_000001",
        ),
        (lambda table: table.assign(**{"1_engine": 1.5}), r"1_engine has 1\.5"),
        (lambda table: table.assign(**{"1_engine": -0.5}), r"1_engine has -0\.5"),
        (lambda table: table.assign(**{"1_engine": np.nan}), "1_engine has nan"),
        (lambda table: table.assign(**{"1_engine": "loud"}), "1_engine has loud"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(miniature, spoil, fault):
    annotations, taxonomy, predictions = miniature
    with pytest.raises(InputError, match=fault):
        evaluate_sonyc(spoil(predictions), annotations, taxonomy)


def test_an_unknown_level_is_refused(miniature):
    annotations, taxonomy, predictions = miniature
    with pytest.raises(
        InputError, match="level = 'middle' is not allowed: use one of 'coarse', 'fine'"
    ):
        evaluate_sonyc(predictions, annotations, taxonomy, "middle")


def test_a_file_that_names_no_clips_is_no_prediction(tmp_path):
    with pytest.raises(InputError, match=r"scores\.csv: does not exist"):
        read_predictions(tmp_path / "scores.csv")
    (tmp_path / "scores.csv").write_text("1_engine\n0.5\n")
    with pytest.raises(InputError, match="lacks the column audio_filename"):
        read_predictions(tmp_path / "scores.csv")


# Thresholds


def test_the_chosen_thresholds_have_the_best_f1_of_all():
    targets, scores = random_tags(9, n=60)
    chosen = choose_thresholds(targets, scores)
    for tag, threshold in enumerate(chosen):
        reached = f1_score(targets[:, tag], scores[:, tag] >= threshold)
        others = [f1_score(targets[:, tag], scores[:, tag] >= other) for other in scores[:, tag]]
        assert reached == max(others)


def test_a_separable_tag_is_cut_at_its_lowest_positive_and_an_absent_one_at_one_half():
    targets = np.array([[1, 0], [1, 0], [0, 0], [np.nan, 0]])
    scores = np.array([[0.9, 0.2], [0.6, 0.2], [0.4, 0.2], [0.95, 0.2]])
    assert choose_thresholds(targets, scores).tolist() == [0.6, 0.5]


# Intervals


def test_the_interval_covers_the_metric_and_a_wider_level_covers_more():
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 2, 200)
    scores = np.eye(2)[np.where(generator.uniform(size=200) < 0.8, targets, 1 - targets)]
    low, high = bootstrap_interval(accuracy, targets, scores, np.arange(200))
    assert low < accuracy(targets, scores) < high
    wider = bootstrap_interval(accuracy, targets, scores, np.arange(200), level=0.99)
    assert wider[0] <= low < high <= wider[1]


def test_the_interval_of_independent_clips_is_the_normal_one():
    targets = np.repeat([0, 1], 500)
    scores = np.eye(2)[np.where(np.arange(1000) % 4 == 0, 1 - targets, targets)]
    low, high = bootstrap_interval(accuracy, targets, scores, np.arange(1000), n_resamples=2000)
    deviation = 1.96 * np.sqrt(0.75 * 0.25 / 1000)
    assert (low, high) == pytest.approx((0.75 - deviation, 0.75 + deviation), abs=0.003)


def test_whole_groups_are_drawn():
    # Ten recordings of 20 clips that are all right or all wrong: ten draws, not two hundred.
    groups = np.repeat(np.arange(10), 20)
    targets = np.zeros(200, dtype=int)
    scores = np.eye(2)[(groups % 2)]
    low, high = bootstrap_interval(accuracy, targets, scores, groups)
    assert high - low > 0.5
    low, high = bootstrap_interval(accuracy, targets, scores, np.arange(200))
    assert high - low < 0.15


def test_the_same_seed_gives_the_same_interval():
    targets, scores = random_tags(10)
    first = bootstrap_interval(micro_auprc, targets, scores, np.arange(200) // 4, n_resamples=50)
    again = bootstrap_interval(micro_auprc, targets, scores, np.arange(200) // 4, n_resamples=50)
    other = bootstrap_interval(
        micro_auprc, targets, scores, np.arange(200) // 4, n_resamples=50, seed=1
    )
    assert first == again != other


def test_two_systems_are_resampled_alike():
    targets, scores = random_tags(12)
    groups = np.arange(200) // 4
    first = bootstrap(micro_auprc, targets, scores, groups, n_resamples=20)
    better = bootstrap(micro_auprc, targets, scores + targets * 0.01, groups, n_resamples=20)
    assert first.shape == (20,)
    assert (better > first).all()  # in every single draw: the same groups


def test_a_summary_is_json_whatever_the_targets():
    targets, scores = random_tags(13)
    assert json.loads(json.dumps(summary(targets, scores)))["micro_auprc"] == micro_auprc(
        targets, scores
    )
    one_class = summary(np.array([0, 0]), np.eye(2))
    assert json.loads(json.dumps(one_class)) == {"accuracy": 0.5, "per_class_recall": [0.5, None]}


@pytest.mark.parametrize(
    ("groups", "options", "fault"),
    [
        ([0, 0, 0], {}, "at least two"),
        ([0, 1], {}, "have 3, 3 and 2 rows"),
        ([0, 1, 2], {"n_resamples": 0}, "n_resamples=0: must be a whole number, 1 or more"),
        ([0, 1, 2], {"level": 1.0}, r"level=1\.0: must lie in \(0, 1\)"),
    ],
)
def test_what_cannot_be_resampled_is_refused(groups, options, fault):
    with pytest.raises(InputError, match=fault):
        bootstrap_interval(accuracy, np.zeros(3, int), np.eye(3), groups, **options)
