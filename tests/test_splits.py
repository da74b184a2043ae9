"""Splits: official test folds, and no recording on two sides, whatever the dataset and the mode."""

import numpy as np
import pandas as pd
import pytest

from fusionkd_lib.datasets import Clips, sonyc_ust, urban_synth, urbansound8k
from fusionkd_lib.datasets.splits import Split, make_split
from fusionkd_lib.errors import InputError

MODES = ("next_fold", "grouped", "none")


def table_of(folds, groups, targets=None) -> Clips:
    """Return clips without sound, of these folds and recordings; of one class, if none is told."""
    names = [f"clip{i}" for i in range(len(folds))]
    table = pd.DataFrame({"clip": names, "fold": folds, "group": groups, "path": None})
    targets = np.zeros(len(folds), np.int64) if targets is None else targets
    return Clips("drawn", ("a", "b"), table, targets, "synthetic", None)


def ten_folds_with_leaks(seed: int) -> Clips:
    """Draw ten folds as UrbanSound8K has them: recordings in one fold, a few of them in two."""
    generator = np.random.default_rng(seed)
    home = generator.integers(1, 11, size=120)
    home[:10] = range(1, 11)
    groups = np.repeat(np.arange(120), generator.integers(1, 9, size=120))
    folds = home[groups]
    leaked = generator.choice(np.flatnonzero(np.bincount(groups) > 3), 8, replace=False)
    for group in leaked:
        clip = generator.choice(np.flatnonzero(groups == group))
        folds[clip] = home[group] % 10 + 1
    return table_of(folds, groups.astype(str))


def two_splits(seed: int) -> Clips:
    """Draw a train and a validate split as SONYC-UST has them, of clips by sensor."""
    generator = np.random.default_rng(seed)
    sensors = generator.choice(40, size=200, p=generator.dirichlet(np.ones(40)))
    folds = np.where(sensors < 30, "train", "validate")
    folds[:2], sensors[:2] = ("train", "validate"), (0, 39)
    return table_of(folds, sensors.astype(str))


def sides(clips: Clips, split: Split) -> dict[str, set[str]]:
    groups = clips.table["group"].to_numpy()
    return {name: set(groups[getattr(split, name)]) for name in ("train", "validation", "test")}


def check(clips: Clips, *, official: object, validation: str, **settings: object) -> Split:
    """Assert what holds of every split."""
    fold = official if isinstance(official, int) else 1
    split = make_split(clips, fold=fold, validation=validation, **settings)
    folds = clips.table["fold"].to_numpy()
    np.testing.assert_array_equal(split.test, np.flatnonzero(folds == official))
    found = sides(clips, split)
    assert not found["train"] & found["validation"]
    assert not found["train"] & found["test"]
    assert not found["validation"] & found["test"]
    rows = np.concatenate([split.train, split.validation, split.test])
    assert len(rows) == len(set(rows)) == len(clips) - split.n_dropped
    assert len(split.train) >= 2
    assert bool(len(split.validation)) == (validation != "none")
    for side in (split.train, split.validation, split.test):
        assert (np.diff(side) > 0).all()
    return split


# On every dataset


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fold", range(1, 11))
def test_ten_official_folds_with_leaks_share_no_recording(mode, fold):
    for seed in range(5):
        clips = ten_folds_with_leaks(seed)
        split = check(clips, official=fold, validation=mode, seed=seed)
        table = clips.table
        of_test = table.loc[table["fold"] == fold, "group"]
        leaked = (table["fold"] != fold) & table["group"].isin(of_test)
        assert split.n_dropped == leaked.sum()


@pytest.mark.parametrize("mode", MODES)
def test_train_and_validate_share_no_sensor(mode):
    for seed in range(10):
        check(two_splits(seed), official="validate", validation=mode, seed=seed)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fold", [1, 2, 3])
@pytest.mark.parametrize("make", [urban_synth.clips, urban_synth.scenes])
def test_urban_synth_shares_no_recording(mode, fold, make):
    count = {"clips_per_class": 4} if make is urban_synth.clips else {"n_scenes": 12}
    split = check(make(**count, n_folds=3), official=fold, validation=mode)
    assert split.n_dropped == 0


@pytest.mark.parametrize("mode", MODES)
def test_the_real_clips_share_no_recording(mode, shared_data):
    clips = urbansound8k.clips(shared_data / "UrbanSound8K", allow_partial=True)
    for fold in (1, 2, 3):
        check(clips, official=fold, validation=mode)
    clips = sonyc_ust.clips(shared_data / "SONYC-UST-standin", allow_partial=True)
    check(clips, official="validate", validation=mode)


# Leaks


def test_a_recording_that_is_also_tested_is_trained_on_only_where_that_is_asked_for():
    #              0    1    2    3    4    5    6
    clips = table_of([1, 1, 2, 2, 3, 3, 3], ["a", "b", "c", "d", "b", "e", "f"])
    dropped = make_split(clips, fold=1)
    assert (list(dropped.train), list(dropped.validation)) == ([5, 6], [2, 3])
    assert dropped.n_dropped == 1
    kept = make_split(clips, fold=1, drop_leaked=False)
    assert (list(kept.train), list(kept.validation)) == ([4, 5, 6], [2, 3])
    assert kept.n_dropped == 0


def test_a_recording_of_the_validation_fold_leaves_training():
    clips = table_of([1, 2, 2, 3, 3, 3, 3], ["a", "b", "c", "b", "d", "e", "b"])
    split = make_split(clips, fold=1)
    assert (list(split.train), list(split.validation)) == ([4, 5], [1, 2, 3, 6])


# Training folds


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "train_folds", [(2,), (9, 3), (3, 4, 5, 6, 7), (2, 3, 4, 5, 6, 7, 8, 9, 10)]
)
def test_of_other_folds_than_those_asked_for_no_clip_is_trained_or_validated_on(mode, train_folds):
    for seed in range(5):
        clips = ten_folds_with_leaks(seed)
        table = clips.table
        split = make_split(clips, fold=1, train_folds=train_folds, validation=mode, seed=seed)
        of_folds = table["fold"].isin(train_folds)
        leaked = of_folds & table["group"].isin(table.loc[table["fold"] == 1, "group"])
        used = np.sort(np.concatenate([split.train, split.validation]))
        np.testing.assert_array_equal(used, np.flatnonzero(of_folds & ~leaked))
        np.testing.assert_array_equal(split.test, np.flatnonzero(table["fold"] == 1))
        assert split.n_dropped == leaked.sum()
        found = sides(clips, split)
        assert not found["train"] & found["validation"]
        assert bool(len(split.validation)) == (mode != "none")


def test_the_next_of_the_training_folds_validates():
    clips = table_of(np.arange(100) % 10 + 1, [str(i) for i in range(100)])
    for fold, validating in ((1, 4), (5, 8), (9, 4)):
        split = make_split(clips, fold=fold, train_folds=[8, 4])
        assert set(clips.table["fold"].iloc[split.validation]) == {validating}


def test_the_test_fold_is_left_out_of_the_training_folds():
    clips = table_of(np.arange(100) % 10 + 1, [str(i) for i in range(100)])
    for fold in (1, 2, 10):
        split = make_split(clips, fold=fold, train_folds=[1, 2, 3], validation="none")
        assert set(clips.table["fold"].iloc[split.train]) == {1, 2, 3} - {fold}


# Validation


@pytest.mark.parametrize(("fold", "following"), [(1, 2), (4, 5), (9, 10), (10, 1)])
def test_the_next_fold_validates_and_the_last_is_followed_by_the_first(fold, following):
    clips = table_of(np.arange(100) % 10 + 1, [str(i) for i in range(100)])
    split = make_split(clips, fold=fold)
    assert set(clips.table["fold"].iloc[split.validation]) == {following}
    assert len(split.validation) == 10


def test_where_the_next_fold_is_missing_the_one_after_it_validates():
    clips = table_of(np.repeat([1, 2, 6], 10), [str(i) for i in range(30)])
    for fold, following in ((2, 6), (6, 1)):
        split = make_split(clips, fold=fold)
        assert set(clips.table["fold"].iloc[split.validation]) == {following}


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_a_grouped_validation_is_filled_with_recordings_up_to_the_wanted_share(share):
    for seed in range(10):
        clips = ten_folds_with_leaks(seed)
        split = make_split(clips, fold=1, validation="grouped", val_fraction=share, seed=seed)
        room = share * (len(split.train) + len(split.validation)) - len(split.validation)
        left_out = clips.table["group"].iloc[split.train].value_counts()
        assert 0 <= room < left_out.min()


def test_where_no_recording_fits_the_share_the_smallest_validates():
    clips = table_of([1] + [2] * 30, ["a"] + ["b"] * 12 + ["c"] * 8 + ["d"] * 10)
    for seed in range(5):
        split = make_split(clips, fold=1, validation="grouped", val_fraction=0.1, seed=seed)
        assert sides(clips, split)["validation"] == {"c"}


def test_a_grouped_validation_has_recordings_of_every_class():
    # One recording in ten is of the rare class: drawn blindly, it would often be missed.
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 4)
    targets = (groups % 10 == 0).astype(np.int64)
    clips = table_of(np.where(groups < 30, 1, 2), groups.astype(str), targets)
    for seed in generator.integers(0, 1000, size=20):
        split = make_split(clips, fold=1, validation="grouped", seed=int(seed))
        assert set(targets[split.validation]) == set(targets[split.train]) == {0, 1}


def test_the_seed_alone_decides_a_grouped_validation():
    clips = ten_folds_with_leaks(0)
    first, again, other = (
        make_split(clips, fold=1, validation="grouped", seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.validation, again.validation)
    assert set(first.validation) != set(other.validation)


def test_a_copy_of_two_folds_validates_on_recordings_of_its_training_fold():
    clips = table_of(np.repeat([1, 2], 20), [str(i // 2) for i in range(40)])
    split = make_split(clips, fold=1)
    assert set(clips.table["fold"].iloc[split.validation]) == {2}
    assert 0 < len(split.validation) < len(split.train)


# Refusals


def test_a_fold_without_clips_is_refused_with_those_that_are_there():
    clips = table_of([1, 1, 2, 3], list("abcd"))
    with pytest.raises(
        InputError, match=r"^fold or train_folds = 7: drawn here has clips of 1, 2, 3 alone"
    ):
        make_split(clips, fold=7)
    with pytest.raises(InputError, match=r"^fold or train_folds = 7: drawn here has clips of 1, 2"):
        make_split(clips, fold=1, train_folds=(2, 7))


@pytest.mark.parametrize(
    ("folds", "groups"),
    [
        ([1, 1, 1], "abc"),  # nothing but the test fold
        ([1, 2, 2, 3], "abcd"),  # one clip beside test and validation
        ([1, 1, 2, 3, 3], "abcab"),  # every other training clip is of a tested recording
    ],
)
def test_too_few_clips_to_train_on_are_refused(folds, groups):
    with pytest.raises(InputError, match="drawn has too few clips outside fold 1 to train on"):
        make_split(table_of(folds, list(groups)), fold=1)


def test_one_recording_cannot_be_both_trained_and_selected_on():
    clips = table_of([1, 1, 2, 2, 2], list("abccc"))
    with pytest.raises(InputError, match="validation = grouped: drawn has no recording to spare"):
        make_split(clips, fold=1, validation="grouped")
    assert list(make_split(clips, fold=1, validation="none").train) == [2, 3, 4]
