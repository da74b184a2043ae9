"""The paper on one page: it stays one page, it runs, and it computes what the library computes."""

import ast
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fusionkd_lib import losses, models
from fusionkd_lib.engine.notebooks import read
from fusionkd_lib.models import FUSED
from fusionkd_lib.representations import build

CODE = [c for c in read("appendix_one_page").cells if c.cell_type == "code"]
BINS = {"logmel": 64, "gammatone": 40}  # maps of two heights, so that the pooling has work
K = 4
SMALL = "n_recordings, epochs, joint_epochs, batch_size = 3, 2, 2, 10"


@pytest.fixture(scope="module")
def page() -> SimpleNamespace:
    """Run the page from top to bottom with few clips and epochs; return all that it defines."""
    torch.set_num_threads(1)
    namespace: dict = {}
    for cell in CODE:
        is_settings = "parameters" in cell.metadata.get("tags", [])
        exec(f"{cell.source}\n{SMALL if is_settings else ''}", namespace)
    return SimpleNamespace(**namespace)


def library_terms(output: models.Output, targets: Tensor) -> dict[str, Tensor]:
    return losses.classification_terms(output, targets, multi_label=False) | (
        losses.distillation_terms(output, losses.PAPER, multi_label=False)
    )


def branches(page: SimpleNamespace, name: str, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """Return a branch of the library's, and the page's with its weights and its statistics."""
    torch.manual_seed(seed)
    small = {"width": 0.25, "hidden": (16, 8)}
    library = models.Branch(name, K, **small, normalise=models.Normalise(-40.0, 12.0))
    return library, same_weights(page.Branch(name, K, **small), library)


def networks(page: SimpleNamespace) -> tuple[nn.Module, nn.Module]:
    """Return the library's fused network, and the page's with its weights."""
    pairs = [branches(page, name, seed) for seed, name in enumerate(BINS)]
    library = models.FusionKD(
        [pair[0] for pair in pairs], models.FusionModule([1280, 1280], K, hidden=(32, 8))
    )
    fusion = page.FusionModule(2 * 1280, K, hidden=(32, 8))
    return library, same_weights(page.FusionKD([pair[1] for pair in pairs], fusion), library)


def same_weights(network: nn.Module, library: nn.Module) -> nn.Module:
    network.load_state_dict(library.state_dict(), strict=True)
    return network


def batch() -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    spectrograms = {
        name: -40 + 12 * torch.randn(8, 1, n_bins, 70, generator=generator)
        for name, n_bins in BINS.items()
    }
    return spectrograms, torch.randint(K, (8,), generator=generator)


def assert_same_bits(ours: dict[str, Tensor], library: dict[str, Tensor]) -> None:
    torch.testing.assert_close(dict(ours), dict(library), rtol=0, atol=0)


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in network.named_parameters()}


# One page


def test_it_has_at_most_250_lines_of_code():
    lines = [line.strip() for cell in CODE for line in cell.source.splitlines()]
    assert 150 < sum(bool(line) and not line.startswith("#") for line in lines) <= 250


def test_it_imports_numpy_torch_and_the_standard_library_alone():
    nodes = list(ast.walk(ast.parse("\n".join(cell.source for cell in CODE))))
    imported = {
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    others = {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert others == {"numpy", "torch"}


# Its experiment


def test_it_ends_with_five_classifiers_judged_on_recordings_that_none_has_heard(page):
    assert list(page.results) == ["logmel", "gammatone", "logmel (KD)", "gammatone (KD)", "fused"]
    assert {values.shape for values in page.results.values()} == {(len(page.test),)}
    assert set(page.baseline) == {"logmel", "gammatone", "fused"}
    assert not set(page.origin[page.train]) & set(page.origin[page.test])
    for rows in (page.train, page.test):  # every class as often as any other
        assert len(set(torch.bincount(page.targets[rows]).tolist())) == 1


def test_a_branch_normalises_by_its_training_clips(page):
    for branch in page.branches:
        values = page.data[branch.name][page.train].double()
        assert branch.normalise.mean.item() == pytest.approx(values.mean().item(), abs=1e-3)
        assert branch.normalise.deviation.item() == pytest.approx(values.std().item(), rel=1e-4)


def test_a_phase_shows_each_training_clip_once_per_epoch_to_amsgrad_under_a_rising_ramp(
    page, monkeypatch
):
    steps, clips = [], []

    def spy(network, optimizer, spectrograms, targets, weight):
        optimizer.step()  # without gradients it changes nothing
        group = optimizer.param_groups[0]
        steps.append((group["amsgrad"], group["lr"], weight))
        clips.extend(spectrograms["logmel"].sum(dim=(1, 2, 3)).tolist())
        return 0.0

    monkeypatch.setitem(page.train_network.__globals__, "step", spy)
    page.train_network(nn.Linear(2, 2), 4)
    amsgrad, rates, weights = zip(*steps, strict=True)
    n_steps = math.ceil(len(page.train) / page.batch_size)
    assert all(amsgrad)
    assert rates == pytest.approx([0.01] * 2 * n_steps + [0.001] * 2 * n_steps)
    ramp = [math.exp(-5 * (1 - i / 3) ** 2) for i in range(4)]
    assert weights == pytest.approx(np.repeat([0.01 * value for value in ramp], n_steps))
    epochs = np.reshape(clips, (4, len(page.train)))
    every_clip = page.data["logmel"][page.train].sum(dim=(1, 2, 3)).sort().values
    for epoch in epochs:
        np.testing.assert_allclose(np.sort(epoch), every_clip, rtol=1e-6)
    assert (epochs[0] != epochs[1]).any()


def test_an_estimate_is_the_mean_and_interval_of_the_means_of_recordings(page):
    # Recordings of two clips: 0, 50 and 100 % right. Deviation 50, of the mean 50 / sqrt(3).
    mean, margin = page.estimate(np.array([0, 0, 0, 1, 1, 1]))
    assert (mean, margin) == (pytest.approx(50), pytest.approx(1.96 * 50 / math.sqrt(3)))


# Against the library


@pytest.mark.parametrize("name", BINS)
def test_its_spectrograms_are_the_librarys(page, name):
    settings = {"sample_rate": page.sample_rate, "hop_length": page.hop_length, "n_fft": page.n_fft}
    settings[{"logmel": "n_mels", "gammatone": "gammatone_bands"}[name]] = 40
    waveforms = torch.cat([page.waveforms[:12], torch.zeros(1, page.sample_rate)])
    ours = page.represent(waveforms, 40)[name]
    library = build(name, **settings)(waveforms)
    # The filters are the same formulas in another order of operations, rounded to float32 in the
    # end: a gain may differ by its last bit, which is 5e-7 dB. A float32 near -100 dB is itself no
    # finer than 8e-6.
    torch.testing.assert_close(ours, library, rtol=0, atol=1e-5)
    assert ours[-1].unique().tolist() == [-100]


@pytest.mark.parametrize("width", [0.25, 0.75, 1.0])
def test_its_branch_has_the_librarys_parameters_by_name_and_shape(page, width):
    ours, library = page.Branch("logmel", K, width=width), models.Branch("logmel", K, width=width)
    shapes = [{k: v.shape for k, v in n.state_dict().items()} for n in (ours, library)]
    assert list(shapes[0].items()) == list(shapes[1].items())


def test_a_stem_is_drawn_as_the_librarys_dead_channels_turned_over(page):
    for seed in range(20):  # more than half of all draws have a dead channel
        torch.manual_seed(seed)
        ours = page.colour_stem()
        torch.manual_seed(seed)
        assert_same_bits(ours.state_dict(), models.colour_stem().state_dict())


def test_its_trunk_is_drawn_with_the_deviations_of_the_librarys(page):
    torch.manual_seed(0)
    trunks = page.Branch("logmel", K).trunk, models.Branch("logmel", K).trunk
    for ours, library in zip(*(trunk.parameters() for trunk in trunks), strict=True):
        if ours.numel() > 10_000:  # four standard errors of a deviation: 3 %
            assert ours.std().item() == pytest.approx(library.std().item(), rel=0.03)


@pytest.mark.parametrize("training", [True, False])
def test_logits_are_the_librarys_bit_for_bit(page, training):
    spectrograms, _ = batch()
    library, ours = (network.train(training) for network in networks(page))
    expected = library(spectrograms).logits_by_head()
    assert list(expected) == [*BINS, FUSED]
    assert_same_bits(ours(spectrograms), expected)
    for name in BINS:
        library, ours = (branch.train(training) for branch in branches(page, name))
        logits = library(spectrograms).logits
        assert_same_bits(ours(spectrograms), {name: logits})


@pytest.mark.parametrize("n_clips", [7, 8])
def test_loss_terms_total_and_their_gradients_are_the_librarys(page, n_clips):
    # Eq. 1 and 2 are written out on the page and are torch's own functions in the library: the
    # same sums in another order, equal within rounding.
    generator = torch.Generator().manual_seed(n_clips)
    targets = torch.randint(K, (n_clips,), generator=generator)
    logits = {name: torch.randn(n_clips, K, generator=generator) for name in (*BINS, FUSED)}
    ours, library = (
        {name: x.clone().requires_grad_() for name, x in logits.items()} for _ in range(2)
    )
    students = {name: models.Output(name, library[name], library[name]) for name in BINS}
    output = models.Output(FUSED, library[FUSED], library[FUSED], students)
    terms = page.loss_terms(ours, targets), library_terms(output, targets)
    assert list(terms[0]) == list(terms[1])
    torch.testing.assert_close(*terms, rtol=1e-6, atol=1e-6)
    totals = page.total_loss(terms[0], 0.01), losses.total_loss(terms[1], kd_weight=0.01)
    torch.testing.assert_close(*totals, rtol=1e-6, atol=1e-6)
    for total in totals:
        total.backward()
    for name in logits:
        torch.testing.assert_close(ours[name].grad, library[name].grad, rtol=1e-6, atol=1e-6)


def test_gradients_of_a_fused_network_are_the_librarys_bit_for_bit(page):
    # With 8 clips and 4 classes all means divide by powers of two, which is exact in any order:
    # both sides send the same bits into the same layers.
    spectrograms, targets = batch()
    library, ours = networks(page)
    terms = library_terms(library(spectrograms), targets)
    losses.total_loss(terms, kd_weight=0.01).backward()
    page.total_loss(page.loss_terms(ours(spectrograms), targets), 0.01).backward()
    assert_same_bits(gradients(ours), gradients(library))


@pytest.mark.parametrize("name", BINS)
def test_gradients_of_a_branch_are_the_librarys_bit_for_bit(page, name):
    spectrograms, targets = batch()
    library, ours = branches(page, name)
    terms = library_terms(library(spectrograms), targets)
    losses.total_loss(terms).backward()
    page.total_loss(page.loss_terms(ours(spectrograms), targets), 0.0).backward()
    assert_same_bits(gradients(ours), gradients(library))


def test_a_step_leaves_the_librarys_weights_statistics_and_loss(page):
    spectrograms, targets = batch()
    library, ours = networks(page)
    optimizers = [
        torch.optim.Adam(network.parameters(), lr=0.01, amsgrad=True) for network in (library, ours)
    ]
    before = {name: x.clone() for name, x in ours.state_dict().items()}
    total = losses.total_loss(library_terms(library(spectrograms), targets), kd_weight=0.01)
    total.backward()
    optimizers[0].step()
    loss = page.step(ours, optimizers[1], spectrograms, targets, 0.01)
    assert loss == pytest.approx(total.item(), rel=1e-6)
    assert_same_bits(ours.state_dict(), library.state_dict())
    changed = {name for name, x in ours.state_dict().items() if not torch.equal(x, before[name])}
    assert set(before) - changed == {
        f"branches.{name}.normalise.{figure}" for name in BINS for figure in ("mean", "deviation")
    }


@pytest.mark.parametrize("n_epochs", [1, 2, 5, 100])
def test_the_ramp_is_the_librarys(page, n_epochs):
    for epoch in range(n_epochs):
        expected = losses.ramp(losses.ramp_progress(epoch, n_epochs))
        assert page.ramp(epoch, n_epochs) == pytest.approx(expected, rel=1e-12)
