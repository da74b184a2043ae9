"""Augmentation: what is moved, hidden and mixed, for whom, and that the seed alone decides."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from fusionkd_lib.augmentation import augment
from fusionkd_lib.errors import InputError

B, F, T = 40, 48, 64
ALL = ("shift", "crop", "level", "masks", "mixup")
LABELS = torch.arange(B) % 4


def batch(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "logmel": torch.randn(B, 1, F, T, generator=generator),
        "cqt": 5 + torch.randn(B, 1, 30, T, generator=generator),
    }


def times() -> dict[str, Tensor]:
    """Return a batch in which each clip's level is the number of the frame."""
    frames = torch.arange(T, dtype=torch.float32)
    return {"logmel": frames.expand(B, 1, F, T), "cqt": frames.expand(B, 1, 30, T)}


def vary(
    kinds: Sequence[str],
    spectrograms: Mapping[str, Tensor] | None = None,
    targets: Tensor = LABELS,
    *,
    seed: int = 0,
    n_classes: int = 4,
    **settings: object,
) -> tuple[Mapping[str, Tensor], Tensor]:
    return augment(
        kinds,
        spectrograms or batch(),
        targets,
        n_classes=n_classes,
        generator=torch.Generator().manual_seed(seed),
        **settings,
    )


def test_without_augmentation_a_batch_is_as_it_was():
    spectrograms = batch()
    varied, targets = vary([], spectrograms)
    assert targets is LABELS
    assert varied is spectrograms


@pytest.mark.parametrize("views", ["same", "own"])
@pytest.mark.parametrize("kinds", [*[[kind] for kind in ALL], ALL])
def test_the_generator_alone_decides_and_the_input_is_left_alone(kinds, views):
    spectrograms = batch()
    first, first_targets = vary(kinds, spectrograms, views=views)
    again, again_targets = vary(kinds, spectrograms, views=views)
    other, _ = vary(kinds, spectrograms, seed=1, views=views)
    for name, x in spectrograms.items():
        torch.testing.assert_close(x, batch()[name], rtol=0, atol=0)
        torch.testing.assert_close(first[name], again[name], rtol=0, atol=0)
        assert (first[name] != other[name]).any()
        assert first[name].shape[:3] == x.shape[:3]
        assert first[name].dtype == torch.float32
    torch.testing.assert_close(first_targets, again_targets, rtol=0, atol=0)


def test_kinds_are_taken_in_one_order_with_the_same_draws_in_any_company():
    torch.testing.assert_close(vary(ALL), vary(ALL[::-1]), rtol=0, atol=0)
    shifted, _ = vary(["shift"])
    torch.testing.assert_close(vary(["masks"], shifted)[0], vary(["masks", "shift"])[0])
    torch.testing.assert_close(vary(["mixup"])[1], vary(ALL)[1], rtol=0, atol=0)


@pytest.mark.parametrize("bad", [{"kinds": "masks"}, {"kinds": ["noise"]}, {"views": "other"}])
def test_unknown_kinds_and_views_are_refused(bad):
    with pytest.raises(InputError, match="shift, crop, level, masks and mixup, and views is"):
        vary(**{"kinds": ["masks"]} | bad)


# Shift and crop


def starts(kind: str, **settings: object) -> dict[str, np.ndarray]:
    varied, _ = vary([kind], times(), **settings)
    return {name: x[:, 0, 0, 0].numpy() for name, x in varied.items()}


def test_a_shifted_clip_is_rolled_by_frames_of_its_own():
    varied, targets = vary(["shift"])
    assert targets is LABELS
    for name, start in starts("shift").items():
        for i, x in enumerate(batch()[name]):
            torch.testing.assert_close(varied[name][i], x.roll(-int(start[i]), dims=2))
        assert len(set(start)) > 20
        assert start.min() < T / 8
        assert start.max() > 7 * T / 8


def test_a_crop_is_one_piece_of_seven_eighths_anywhere_in_the_clip():
    varied, _ = vary(["crop"], times())
    for name, start in starts("crop").items():
        expected = torch.from_numpy(start)[:, None] + torch.arange(T * 7 // 8)
        torch.testing.assert_close(varied[name][:, 0, 0], expected)
        assert set(start) == set(range(T // 8 + 1))


@pytest.mark.parametrize("kind", ["shift", "crop"])
def test_representations_are_moved_alike_with_the_same_views_and_apart_with_their_own(kind):
    same, own = starts(kind), starts(kind, views="own")
    np.testing.assert_array_equal(same["logmel"], same["cqt"])
    assert (own["logmel"] != own["cqt"]).mean() > 0.7


# Level


def test_a_clip_is_louder_or_softer_by_up_to_6_db_in_all_its_representations():
    varied, _ = vary(["level"])
    gains = {name: varied[name] - x for name, x in batch().items()}
    for gain in gains.values():
        torch.testing.assert_close(gain, gain[..., :1, :1].expand_as(gain))
    gain = gains["logmel"][:, 0, 0, 0]
    torch.testing.assert_close(gain, gains["cqt"][:, 0, 0, 0])
    assert -6 <= gain.min() < -4
    assert 4 < gain.max() <= 6
    own, _ = vary(["level"], views="own")
    apart = (own["logmel"] - batch()["logmel"])[:, 0, 0, 0]
    assert (apart - (own["cqt"] - batch()["cqt"])[:, 0, 0, 0]).abs().median() > 1


# Masks


def hidden_lines(name: str, **settings: object) -> tuple[np.ndarray, np.ndarray]:
    """Return which bins (B, F) and which frames (B, T) are hidden as a whole."""
    varied, targets = vary(["masks"], **settings)
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


def test_the_same_time_is_hidden_in_every_representation_but_with_own_views():
    np.testing.assert_array_equal(hidden_lines("logmel")[1], hidden_lines("cqt")[1])
    apart = hidden_lines("logmel", views="own")[1] != hidden_lines("cqt", views="own")[1]
    assert apart.any(axis=1).mean() > 0.7


def test_what_is_hidden_is_behind_the_clips_own_mean():
    varied, _ = vary(["masks"])
    for name, x in batch().items():
        hidden = varied[name] != x
        assert hidden.any()
        means = x.mean(dim=(2, 3), keepdim=True).expand_as(x)
        torch.testing.assert_close(varied[name][hidden], means[hidden])


# Mixup


@pytest.mark.parametrize("views", ["same", "own"])
def test_clips_and_targets_of_a_mix_are_the_same_convex_combination(views):
    # Each clip holds its own number, and its target is that number's unit vector.
    numbers = torch.arange(B, dtype=torch.float32)
    spectrograms = {name: numbers.view(-1, 1, 1, 1).expand(-1, 1, 4, 5) for name in ("a", "b")}
    mixed, targets = vary(["mixup"], spectrograms, torch.arange(B), n_classes=B, views=views)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(B))
    assert targets.min() >= 0
    assert (targets > 0).sum(dim=1).max() == 2
    for name in ("a", "b"):
        expected = (targets @ numbers).view(-1, 1, 1, 1).expand(-1, 1, 4, 5)
        torch.testing.assert_close(mixed[name], expected)


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_each_clip_is_a_partner_once_and_its_share_is_its_own_of_beta(alpha):
    # Each clip has a class of its own, so that the diagonal holds the shares.
    n = 4000
    silence = {"a": torch.zeros(n, 1, 1, 1)}
    _, targets = vary(["mixup"], silence, torch.arange(n), n_classes=n, alpha=alpha)
    share = targets.diagonal().double()
    others = targets - targets.diagonal().diag()
    assert ((others > 0).sum(dim=0) <= 1).all()
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)), fourth central moment by its kurtosis.
    assert float(share.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(share.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
    kurtosis = float(((share - 0.5) ** 4).mean() / share.var() ** 2)
    assert kurtosis == pytest.approx(3 - 6 / (2 * alpha + 3), rel=0.05)


def test_partners_are_drawn_anew_in_every_batch():
    silence = {"a": torch.zeros(B, 1, 1, 1)}
    partners = []
    for seed in (0, 1):
        _, targets = vary(["mixup"], silence, torch.arange(B), n_classes=B, seed=seed, alpha=5.0)
        partners.append((targets - targets.diagonal().diag()).argmax(dim=1))
    assert (partners[0] != partners[1]).float().mean() > 0.8


def test_several_tags_are_mixed_as_they_are_and_unknown_ones_stay_unknown():
    targets = torch.eye(4)[LABELS]
    targets[0, 1] = float("nan")
    _, mixed = vary(["mixup"], targets=targets, seed=3)
    assert mixed.shape == (B, 4)
    unknown = mixed.isnan()
    assert unknown[0, 1]
    assert unknown.sum() == 2  # of the clip, and of the one that it is mixed into
    assert ((mixed >= 0) & (mixed <= 1))[~unknown].all()
