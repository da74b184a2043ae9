"""UrbanSound8K: every clip in its official fold, and no copy passes for more than it is."""

import pickle

import numpy as np
import pandas as pd
import pytest
from miniature import URBANSOUND8K_ROWS, make_urbansound8k

from fusionkd_lib.datasets import urbansound8k
from fusionkd_lib.errors import InputError


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return a whole miniature, of a dataset of four clips."""
    monkeypatch.setattr(urbansound8k, "N_CLIPS", len(URBANSOUND8K_ROWS))
    return make_urbansound8k(tmp_path / "UrbanSound8K")


def edit(root, **columns) -> None:
    path = root / "metadata" / "UrbanSound8K.csv"
    pd.read_csv(path).assign(**columns).to_csv(path, index=False)


def test_a_whole_copy_is_real_and_in_the_metadatas_order(root):
    clips = urbansound8k.clips(root)
    assert clips.status == "real"
    assert clips.note == "4 clips in 10 official folds"
    labels = [clips.classes[target] for target in clips.targets]
    assert labels == ["dog_bark", "dog_bark", "siren", "air_conditioner"]
    assert clips.table["clip"].tolist() == ["1001-3-0-0", "1001-3-0-1", "1002-8-0-0", "1003-0-0-0"]
    assert clips.table["fold"].tolist() == [1, 1, 2, 10]
    assert clips.table["group"].tolist() == ["1001", "1001", "1002", "1003"]
    assert clips.targets.tolist() == [3, 3, 8, 0]
    assert clips.targets.dtype == np.int64
    assert not clips.multi_label


def test_a_clip_is_read_at_the_rate_asked_for_also_in_another_process(root):
    clips = urbansound8k.clips(root)
    assert clips.read(2, 8000).shape == (800,)
    read = pickle.loads(pickle.dumps(clips.read))
    np.testing.assert_array_equal(read(2, 8000), clips.read(2, 8000))


def test_a_whole_copy_in_another_format_is_partial_and_says_which(tmp_path, monkeypatch):
    monkeypatch.setattr(urbansound8k, "N_CLIPS", len(URBANSOUND8K_ROWS))
    clips = urbansound8k.clips(make_urbansound8k(tmp_path / "copy", suffix=".flac"))
    assert clips.status == "partial"
    assert clips.note == "4 clips in 10 official folds; re-encoded (.flac)"


def test_a_partial_copy_is_taken_when_asked_and_counted(root):
    (root / "audio" / "fold1" / "1001-3-0-1.wav").unlink()
    (root / "audio" / "fold2" / "1002-8-0-0.wav").unlink()
    clips = urbansound8k.clips(root, allow_partial=True)
    assert clips.status == "partial"
    assert clips.note == "2 of 4 clips: fold 1 1 of 2, fold 10 1"
    assert clips.table["fold"].tolist() == [1, 10]
    assert clips.targets.tolist() == [3, 0]
    assert clips.read(1, 16000).shape == (1600,)


def test_missing_clips_are_counted_with_both_ways_out(root):
    (root / "audio" / "fold2" / "1002-8-0-0.wav").unlink()
    (root / "audio" / "fold10" / "1003-0-0-0.wav").unlink()
    with pytest.raises(
        InputError,
        match=r"2 of 4 clips are missing, the first .*fold2/1002-8-0-0\.wav: "
        r"`allow_partial: true` .* `fusionkd data fetch urbansound8k`",
    ):
        urbansound8k.clips(root)


def test_a_copy_without_any_clip_is_no_partial_one(root):
    for path in root.glob("audio/*/*.wav"):
        path.unlink()
    with pytest.raises(InputError, match=r"no clip is there.*`fusionkd data fetch urbansound8k`"):
        urbansound8k.clips(root, allow_partial=True)


def test_shortened_metadata_are_not_the_whole_dataset(root, monkeypatch):
    monkeypatch.setattr(urbansound8k, "N_CLIPS", 8732)
    with pytest.raises(InputError, match="4 clips are listed, not 8,732"):
        urbansound8k.clips(root)
    assert urbansound8k.clips(root, allow_partial=True).status == "partial"


def test_a_folder_that_is_not_the_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"UrbanSound8K\.csv: does not exist: give the folder"):
        urbansound8k.clips(tmp_path)


@pytest.mark.parametrize("column", urbansound8k.COLUMNS)
def test_a_missing_column_is_named(root, column):
    path = root / "metadata" / "UrbanSound8K.csv"
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(InputError, match=f"lacks the column {column}"):
        urbansound8k.clips(root)


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"fold": [1, 11, 2, 10]}, "line 3: fold is 11: must be 1 to 10"),
        ({"fold": [1, 1, 0, 10]}, "line 4: fold is 0"),
        ({"fold": [1, 1, "two", 10]}, "line 4: fold is two"),
        ({"classID": [3, 3, 8, 10]}, "line 5: classID is 10: must be 0 to 9"),
        ({"classID": [3, 3, None, 0]}, "line 4: classID is nan"),
        ({"class": ["dog_bark", "siren", "siren", "air_conditioner"]}, "line 3: class is siren"),
        ({"slice_file_name": ["a.wav", "b.wav", "a.wav", "c.wav"]}, "line 4: .* twice"),
    ],
)
def test_damaged_metadata_are_named_by_line(root, columns, fault):
    edit(root, **columns)
    with pytest.raises(InputError, match=fault):
        urbansound8k.clips(root)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00\x01", b'a,b\n"1', b"a,b\n1,2,3\n1,2,3,4\n"]
)
def test_metadata_that_are_no_csv_are_refused(root, content):
    (root / "metadata" / "UrbanSound8K.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"UrbanSound8K\.csv: (cannot be read as CSV|lacks)"):
        urbansound8k.clips(root)


def test_metadata_without_rows_are_refused(root):
    (root / "metadata" / "UrbanSound8K.csv").write_text(",".join(urbansound8k.COLUMNS) + "\n")
    with pytest.raises(InputError, match="has no rows"):
        urbansound8k.clips(root)


def test_the_real_metadata_have_the_published_counts(shared_data):
    metadata = urbansound8k.read_metadata(shared_data / "UrbanSound8K" / urbansound8k.METADATA)
    assert len(metadata) == 8732
    per_class = np.bincount(metadata["classID"]).tolist()
    assert per_class == [1000, 429, 1000, 1000, 1000, 1000, 374, 1000, 929, 1000]
    per_fold = np.bincount(metadata["fold"])[1:].tolist()
    assert per_fold == [873, 888, 925, 990, 936, 823, 838, 806, 816, 837]


def test_five_recordings_of_the_real_dataset_sit_in_two_folds(shared_data):
    metadata = urbansound8k.read_metadata(shared_data / "UrbanSound8K" / urbansound8k.METADATA)
    folds = metadata.groupby("fsID")["fold"].transform("nunique")
    assert metadata["fsID"][folds > 1].nunique() == 5
    assert (folds > 1).sum() == 152


def test_the_real_partial_copy_is_counted(shared_data):
    clips = urbansound8k.clips(shared_data / "UrbanSound8K", allow_partial=True)
    assert clips.status == "partial"
    assert clips.note == (
        "2,148 of 8,732 clips: fold 1 873, fold 2 888, fold 3 387 of 925; re-encoded (.ogg)"
    )
    assert clips.table["clip"].is_unique
    with pytest.raises(InputError, match=r"6,584 of 8,732 clips are missing"):
        urbansound8k.clips(shared_data / "UrbanSound8K")
