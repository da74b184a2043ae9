"""Augmentation: what is hidden, what is mixed, and that the seed alone decides."""

import numpy as np
import pytest
import torch

from fusionkd_lib.augmentation import augment

B, F, T = 40, 48, 64


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "logmel": torch.randn(B, 1, F, T, generator=generator),
        "cqt": 5 + torch.randn(B, 1, 30, T, generator=generator),
    }


def vary(kind: str, targets: torch.Tensor, *, seed: int = 0, spectrograms=None, n_classes: int = 4):
    return augment(
        kind,
        spectrograms or batch(),
        targets,
        n_classes=n_classes,
        generator=torch.Generator().manual_seed(seed),
    )


LABELS = torch.arange(B) % 4


def test_without_augmentation_a_batch_is_as_it_was():
    spectrograms = batch()
    varied, targets = vary("none", LABELS, spectrograms=spectrograms)
    assert targets is LABELS
    assert varied is spectrograms


@pytest.mark.parametrize("kind", ["masks", "mixup"])
def test_the_generator_alone_decides_and_the_input_is_left_alone(kind):
    spectrograms = batch()
    first, first_targets = vary(kind, LABELS, spectrograms=spectrograms)
    again, again_targets = vary(kind, LABELS, spectrograms=spectrograms)
    other, _ = vary(kind, LABELS, seed=1, spectrograms=spectrograms)
    for name, x in spectrograms.items():
        torch.testing.assert_close(x, batch()[name], rtol=0, atol=0)
        torch.testing.assert_close(first[name], again[name], rtol=0, atol=0)
        assert (first[name] != other[name]).any()
        assert first[name].shape == x.shape
        assert first[name].dtype == torch.float32
    torch.testing.assert_close(first_targets, again_targets, rtol=0, atol=0)


# Masks


def hidden_lines(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which bins (B, F) and which frames (B, T) are hidden as a whole."""
    varied, targets = vary("masks", LABELS)
    assert targets is LABELS
    changed = (varied[name] != batch()[name])[:, 0].numpy()
    bins, frames = changed.all(axis=2), changed.all(axis=1)
    # Nothing but whole bins and whole frames changed.
    np.testing.assert_array_equal(changed, bins[:, :, None] | frames[:, None, :])
    return bins, frames


@pytest.mark.parametrize("name", ["logmel", "cqt"])
def test_one_band_and_one_span_of_at_most_an_eighth_are_hidden(name):
    for lines in hidden_lines(name):
        assert lines.sum(axis=1).max() <= np.ceil(lines.shape[1] / 8)
        edges = np.abs(np.diff(lines.astype(int), axis=1, prepend=0, append=0)).sum(axis=1)
        assert set(edges) <= {0, 2}  # in one piece
        assert lines.any(axis=1).mean() > 0.7
        assert len({tuple(row) for row in lines}) > B / 2  # each clip its own


def test_the_same_time_is_hidden_in_every_representation():
    np.testing.assert_array_equal(hidden_lines("logmel")[1], hidden_lines("cqt")[1])


def test_what_is_hidden_is_behind_the_clips_own_mean():
    varied, _ = vary("masks", LABELS)
    for name, x in batch().items():
        hidden = varied[name] != x
        assert hidden.any()
        means = x.mean(dim=(2, 3), keepdim=True).expand_as(x)
        torch.testing.assert_close(varied[name][hidden], means[hidden])


# Mixup


def test_clips_and_targets_of_a_mix_are_the_same_convex_combination():
    # Each clip holds its own number, and its target is that number's unit vector.
    numbers = torch.arange(B, dtype=torch.float32)
    spectrograms = {name: numbers.view(-1, 1, 1, 1).expand(-1, 1, 4, 5) for name in ("a", "b")}
    mixed, targets = vary("mixup", torch.arange(B), spectrograms=spectrograms, n_classes=B, seed=3)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(B))
    assert targets.min() >= 0
    assert (targets > 0).sum(dim=1).max() == 2
    for name in ("a", "b"):
        expected = (targets @ numbers).view(-1, 1, 1, 1).expand(-1, 1, 4, 5)
        torch.testing.assert_close(mixed[name], expected)


def test_every_clip_is_a_partner_once_and_the_share_is_one_of_beta():
    shares = []
    for seed in range(200):
        _, targets = vary("mixup", torch.arange(B), n_classes=B, seed=seed)
        torch.testing.assert_close(targets.sum(dim=0), torch.ones(B))
        shares.append(float(targets[0, 0]))
    # Beta(a, a), here with a = 0.2: mean 1/2, deviation 1 / (2 sqrt(2 a + 1)).
    assert np.mean(shares) == pytest.approx(0.5, abs=0.1)
    assert np.std(shares) == pytest.approx(0.5 / np.sqrt(1.4), abs=0.04)


def test_several_tags_are_mixed_as_they_are_and_unknown_ones_stay_unknown():
    targets = torch.eye(4)[LABELS]
    targets[0, 1] = float("nan")
    _, mixed = vary("mixup", targets, seed=3)
    assert mixed.shape == (B, 4)
    unknown = mixed.isnan()
    assert unknown[0, 1]
    assert unknown.sum() in (1, 2)  # the clip, and the one that it is mixed into
    assert ((mixed >= 0) & (mixed <= 1))[~unknown].all()
