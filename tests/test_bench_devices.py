"""What the benchmarks of exported files conclude from hand-made measurements."""

import numpy as np
import pytest

from bench import devices, eight_bits


def test_8_bits_are_held_to_the_point_that_they_may_lose():
    recordings = np.arange(400).astype(str)
    one = np.arange(400) < 300
    told = {n: eight_bits.compare(np.arange(400) < n, one, recordings) for n in (296, 295, 310)}
    assert [found["points"] for found in told.values()] == pytest.approx([-1, -1.25, 2.5])
    assert [found["changed_answers_percent"] for found in told.values()] == [1, 1.25, 2.5]
    goals = [found["goal"].partition(": ")[2] for found in told.values()]
    assert goals == ["reached", "missed by 0.25", "reached"]


def test_the_interval_of_8_bits_is_that_of_recordings():
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 2000)) < 0.5  # with nothing in common: the deviation is known
    alone = eight_bits.compare(one, other, np.arange(2000).astype(str))
    in_pairs = eight_bits.compare(
        one.repeat(2), other.repeat(2), np.arange(2000).astype(str).repeat(2)
    )
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
