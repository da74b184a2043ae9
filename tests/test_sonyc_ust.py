"""SONYC-UST: votes become targets, staff's truth stays truth, and a stand-in is called one."""

import numpy as np
import pandas as pd
import pytest
from miniature import COARSE_TAGS, FINE_TAGS, make_sonyc_ust

from fusionkd_lib.datasets import sonyc_labels, sonyc_ust
from fusionkd_lib.errors import InputError

NAN = float("nan")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return a whole miniature, of a dataset of two and two clips."""
    monkeypatch.setattr(sonyc_ust, "N_CLIPS", {"train": 2, "validate": 2})
    return make_sonyc_ust(tmp_path / "sonyc")


@pytest.fixture(scope="module")
def real(dcase):
    """Return the validation set's own annotations, and the taxonomy."""
    annotations = sonyc_labels.read_annotations(dcase / "annotations.csv")
    return annotations, sonyc_labels.read_taxonomy(dcase / "dcase-ust-taxonomy.yaml")


@pytest.fixture(scope="module")
def development(shared_data):
    """Return the annotations of the whole development set."""
    return sonyc_labels.read_annotations(shared_data / "SONYC-UST-standin" / "annotations.csv")


def edit(root, **columns) -> None:
    path = root / "annotations.csv"
    pd.read_csv(path).assign(**columns).to_csv(path, index=False)


def test_a_whole_copy_is_real_with_training_clips_first(root):
    clips = sonyc_ust.clips(root)
    assert clips.dataset == "SONYC-UST"
    assert clips.status == "real"
    assert clips.note == "4 clips: train 2, validate 2"
    assert clips.classes == tuple(COARSE_TAGS)
    assert clips.table["clip"].tolist() == ["01_000001", "02_000001", "00_000001", "03_000001"]
    assert clips.table["fold"].tolist() == ["train", "train", "validate", "validate"]
    assert clips.table["group"].tolist() == ["1", "2", "0", "3"]
    assert clips.targets.dtype == np.float32
    assert clips.multi_label
    assert clips.read(3, 8000).shape == (800,)


# Worked by hand from the rows of `miniature.SONYC_ROWS`: columns 1-1, 2-1, 2-2, 3-1.
@pytest.mark.parametrize(
    ("labels", "first", "second"),
    [
        ("any", [1, 0, 1, 1], [0, 0, 0, 0]),
        ("majority", [1, 0, 0, 0], [0, 0, 0, 0]),
        ("mean", [2 / 3, 0, 1 / 3, 1 / 3], [0, 0, 0, 0]),
    ],
)
def test_volunteers_votes_become_fine_targets(root, labels, first, second):
    clips = sonyc_ust.clips(root, level="fine", labels=labels)
    assert clips.classes == tuple(tag for tag in FINE_TAGS if "-X" not in tag)
    np.testing.assert_allclose(clips.targets[:2], [first, second], rtol=1e-6)


@pytest.mark.parametrize("labels", ["any", "majority", "mean"])
def test_validation_targets_are_the_staffs_truth_with_nan_where_not_annotated(root, labels):
    clips = sonyc_ust.clips(root, level="fine", labels=labels)
    expected = [[1, 0, 0, 1], [0, 0, 0, NAN]]
    np.testing.assert_array_equal(clips.targets[2:], expected)


def test_shipped_coarse_labels_take_3_1_for_machinery_and_recomputed_do_not(root):
    shipped = sonyc_ust.clips(root).targets
    recomputed = sonyc_ust.clips(root, coarse_labels="recomputed").targets
    np.testing.assert_array_equal(shipped[2], [1, 1, 1])
    np.testing.assert_array_equal(recomputed[2], [1, 0, 1])
    np.testing.assert_array_equal(shipped[[0, 1]], recomputed[[0, 1]])


def test_a_tag_that_no_volunteer_annotated_is_nan(root):
    table = pd.read_csv(root / "annotations.csv")
    table.loc[table["audio_filename"] == "02_000001.wav", f"{FINE_TAGS[2]}_presence"] = -1
    table.to_csv(root / "annotations.csv", index=False)
    for labels in ("any", "majority", "mean"):
        targets = sonyc_ust.clips(root, level="fine", labels=labels).targets
        assert np.isnan(targets[1]).tolist() == [False, True, False, False]


@pytest.mark.parametrize("name", ["SONYC-UST-standin", "sonyc_stand-in", "my StandIn"])
def test_a_stand_in_is_known_by_its_folder(tmp_path, name):
    clips = sonyc_ust.clips(make_sonyc_ust(tmp_path / name), allow_partial=True)
    assert clips.status == "stand-in"
    assert clips.dataset == "SONYC-UST stand-in"


def test_a_status_that_is_given_holds(root):
    assert sonyc_ust.clips(root, status="stand-in").dataset == "SONYC-UST stand-in"


def test_a_partial_copy_is_taken_when_asked_and_counted(root):
    (root / "audio" / "train" / "01_000001.wav").unlink()
    clips = sonyc_ust.clips(root, allow_partial=True)
    assert clips.status == "partial"
    assert clips.note == "3 of 4 clips: train 1 of 2, validate 2"
    assert clips.table["clip"].tolist() == ["02_000001", "00_000001", "03_000001"]
    assert len(clips.targets) == 3


def test_missing_clips_are_counted_with_both_ways_out(root):
    (root / "audio" / "validate" / "00_000001.wav").unlink()
    with pytest.raises(
        InputError,
        match=r"1 of 4 clips are missing, the first .*validate/00_000001\.wav: "
        r"`allow_partial: true` .* `fusionkd data fetch sonyc_ust`",
    ):
        sonyc_ust.clips(root)


def test_annotations_without_any_audio_are_refused(tmp_path):
    root = make_sonyc_ust(tmp_path / "sonyc", audio=False)
    with pytest.raises(InputError, match="no clip is there"):
        sonyc_ust.clips(root, allow_partial=True)


@pytest.mark.parametrize(
    ("parameter", "value"), [("level", "middle"), ("labels", "all"), ("coarse_labels", "mended")]
)
def test_an_unknown_choice_is_named_with_what_is_allowed(root, parameter, value):
    with pytest.raises(
        InputError, match=f"{parameter} = '{value}' is not allowed: use one of .*, "
    ):
        sonyc_ust.clips(root, **{parameter: value})


@pytest.mark.parametrize("name", ["annotations.csv", "dcase-ust-taxonomy.yaml"])
def test_a_missing_file_is_named(root, name):
    (root / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: does not exist: .*data fetch sonyc_ust"):
        sonyc_ust.clips(root)


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"split": "test"}, "line 2: split is test: must be train or validate"),
        ({"1_engine_presence": [0, 2] + [0] * 8}, "line 3: 1_engine_presence is 2"),
        ({"1_engine_presence": [0, None] + [0] * 8}, "line 3: 1_engine_presence is nan"),
        ({"annotator_id": 1}, "0 agreed truths .* for 2 validation clips"),
    ],
)
def test_damaged_annotations_are_refused(root, columns, fault):
    edit(root, **columns)
    with pytest.raises(InputError, match=fault):
        sonyc_ust.clips(root)


@pytest.mark.parametrize("column", ["split", "sensor_id", "audio_filename", "annotator_id"])
def test_a_missing_column_is_named(root, column):
    path = root / "annotations.csv"
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(InputError, match=f"lacks the column {column}"):
        sonyc_ust.clips(root)


def test_a_tag_without_its_column_is_named(root):
    path = root / "annotations.csv"
    pd.read_csv(path).drop(columns="1_engine_presence").to_csv(path, index=False)
    with pytest.raises(InputError, match="lacks the column 1_engine_presence"):
        sonyc_ust.clips(root)


@pytest.mark.parametrize(
    "content",
    ["", "[1, 2]", "coarse: {1: engine}", "fine: : :", "coarse: {1: a}\nfine: {1: [x]}", "\x00"],
)
def test_a_file_that_is_no_taxonomy_is_refused(tmp_path, content):
    (tmp_path / "taxonomy.yaml").write_text(content)
    with pytest.raises(InputError, match="is not the challenge's taxonomy"):
        sonyc_labels.read_taxonomy(tmp_path / "taxonomy.yaml")


def test_a_taxonomy_with_a_category_on_one_level_only_is_refused(tmp_path):
    (tmp_path / "taxonomy.yaml").write_text("coarse: {1: a, 2: b}\nfine: {1: {1: c}}\n")
    with pytest.raises(InputError, match="coarse and fine categories differ"):
        sonyc_labels.read_taxonomy(tmp_path / "taxonomy.yaml")


def test_a_taxonomy_cannot_run_code(tmp_path):
    (tmp_path / "taxonomy.yaml").write_text("!!python/object/apply:os.mkdir [owned]")
    with pytest.raises(InputError, match="is not the challenge's taxonomy"):
        sonyc_labels.read_taxonomy(tmp_path / "taxonomy.yaml")


def test_the_real_taxonomy_has_8_coarse_and_23_fine_tags(real):
    _, taxonomy = real
    assert len(taxonomy.tags("coarse")) == 8
    assert len(taxonomy.tags("fine")) == 23
    assert len(taxonomy.tags("fine", incomplete=True)) == 29
    assert taxonomy.fine_tags(4, True)[-1] == "4-X_other-unknown-powered-saw"


def test_the_real_annotations_have_the_published_counts(development):
    assert len(development) == 10349
    assert development.groupby("split")["audio_filename"].nunique().to_dict() == {
        "train": 2351,
        "validate": 443,
    }
    volunteers = development[development["annotator_id"] > 0]
    assert (volunteers.groupby("audio_filename").size() == 3).all()


def test_the_validation_rows_are_those_of_the_development_set(real, development):
    validation = development[development["split"] == "validate"].reset_index(drop=True)
    pd.testing.assert_frame_equal(real[0], validation)


@pytest.mark.parametrize(("rows", "n_differ"), [("real", 167), ("development", 482)])
def test_the_shipped_machinery_column_takes_in_tag_3_1(real, rows, n_differ, request):
    annotations, taxonomy = real
    if rows == "development":
        annotations = request.getfixturevalue(rows)
    tags = [f"{tag}_presence" for tag in taxonomy.fine_tags(2, True)]
    shipped = annotations["2_machinery-impact_presence"]
    fine = annotations[tags].max(axis=1)
    assert (shipped != fine).sum() == n_differ  # counted with the plain file
    # It is the OR of 2-* and 3-1, in every row.
    with_3_1 = annotations[[*tags, "3-1_non-machinery-impact_presence"]].max(axis=1)
    assert (shipped == with_3_1).all()


def test_the_real_truth_has_the_counted_positives(real):
    def truth(**tags):
        presence = sonyc_labels.presence_of(*real, incomplete=True, **tags)
        return sonyc_labels.agreed_truth(real[0], presence)

    coarse = truth()
    assert len(coarse) == 443
    assert coarse.sum().astype(int).tolist() == [223, 88, 73, 23, 86, 25, 199, 6]
    fine = truth(level="fine")
    assert fine.shape == (443, 29)
    assert int(fine["1-X_engine-of-uncertain-size"].sum()) == 35
    recomputed = truth(coarse_labels="recomputed")
    changed = (coarse != recomputed).sum()
    assert changed[changed > 0].index.tolist() == ["2_machinery-impact"]


def test_the_real_training_targets_have_the_counted_prevalence(shared_data):
    clips = sonyc_ust.clips(shared_data / "SONYC-UST-standin", allow_partial=True)
    assert clips.status == "stand-in"
    assert clips.note == (
        "700 of 2,794 clips: train 500 of 2,351, validate 200 of 443; re-encoded (.ogg)"
    )
    assert not np.isnan(clips.targets).any()
    assert clips.targets.sum(axis=0).astype(int).tolist() == [373, 245, 105, 71, 160, 35, 262, 37]


def test_every_volunteers_vote_counts_in_the_whole_real_training_set(real, development):
    tags = [f"{tag}_presence" for tag in real[1].tags("coarse")]
    train = development[development["split"] == "train"].groupby("audio_filename")[tags]
    # At least one volunteer, then at least two of three: counted with the plain file.
    assert train.max().sum().astype(int).tolist() == [1269, 848, 276, 244, 549, 125, 778, 151]
    votes = development[development["annotator_id"] > 0].groupby(["split", "audio_filename"])[tags]
    majority = sonyc_ust.VOTES["majority"](votes).loc["train"]
    np.testing.assert_array_equal(majority, train.sum() >= 2)
