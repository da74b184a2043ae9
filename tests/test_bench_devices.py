"""What the benchmarks of exported files conclude from hand-made measurements."""

import hostile
import numpy as np
import pytest

from bench import devices, eight_bits
from fusionkd_lib.errors import InputError


def test_8_bits_are_held_to_the_point_that_they_may_lose():
    recordings, right = np.arange(400).astype(str), np.zeros(400, int)
    answers = {n: (np.arange(400) >= n).astype(int) for n in (296, 295, 300, 310)}
    told = {n: eight_bits.compare(a, answers[300], right, recordings) for n, a in answers.items()}
    assert [found["points"] for found in told.values()] == pytest.approx([-1, -1.25, 0, 2.5])
    assert [found["changed_answers_percent"] for found in told.values()] == [1, 1.25, 0, 2.5]
    goals = [found["goal"].partition(": ")[2] for found in told.values()]
    assert goals == ["reached", "missed by 0.25", "reached", "reached"]


def test_one_wrong_answer_for_another_is_a_changed_answer():
    one, other = np.array([1, 0]), np.array([2, 0])
    found = eight_bits.compare(one, other, np.zeros(2, int), np.array(["a", "b"]))
    assert (found["points"], found["changed_answers_percent"]) == (0, 50)


def test_a_run_with_several_labels_to_a_clip_is_refused(tmp_path):
    run = hostile.tiny_run(tmp_path, targets=np.eye(2, dtype=np.float32))
    with pytest.raises(InputError, match="accuracy is of clips with one label each"):
        eight_bits.answers_of(str(run.folder), None)


def test_the_interval_of_8_bits_is_that_of_recordings():
    rng = np.random.default_rng(0)
    one, other = rng.integers(2, size=(2, 2000))  # nothing in common: the deviation is known
    clips = one, other, np.ones(2000, int), np.arange(2000).astype(str)
    alone = eight_bits.compare(*clips)
    in_pairs = eight_bits.compare(*(part.repeat(2) for part in clips))
    half_width = 1.96 * 100 * np.sqrt(0.5 / 2000)
    for found in (alone, in_pairs):  # a clip twice in a recording is no second witness
        low, high = found["interval_95"]
        assert (high - low) / 2 == pytest.approx(half_width, rel=0.12)


def test_latency_and_speed_of_alternating_rounds():
    seconds = {"PyTorch": [0.4, 0.1, 0.2], "int8": [0.1, 0.05, 0.05]}
    told = devices.costs(seconds, peer="PyTorch", window=4.0)
    assert told["int8"]["milliseconds_median"] == pytest.approx(50)
    assert told["int8"]["audio_seconds_per_second"] == pytest.approx(80)
    assert told["int8"]["times_as_fast"] == pytest.approx(4)  # the median of 4, 2 and 4
    assert told["PyTorch"]["times_as_fast"] == 1
