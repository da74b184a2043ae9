"""Networks: torchvision's own layers and counts, hand-counted layers, hand-computed maps."""

import subprocess
import sys
from urllib.error import URLError

import pytest
import torch
from torch import nn

from fusionkd_lib.errors import InputError
from fusionkd_lib.experiment import build_branch, build_fusion
from fusionkd_lib.models import (
    FUSED,
    Branch,
    FusionKD,
    FusionModule,
    Normalise,
    colour_stem,
    global_average,
    n_parameters,
    tap_channels,
)
from fusionkd_lib.torchvision_import import classification_models
from fusionkd_lib.trunks import build_trunk

TRUNKS = ("mobilenet_v2", "shufflenet_v2", "squeezenet1_1")
SMALL = {"width": 0.25, "hidden": (16, 8)}


def linear(n_in: int, n_out: int) -> int:
    return n_in * n_out + n_out


def batch_norm(n: int) -> int:
    return 2 * n


def head(n_in: int, first: int, second: int, n_classes: int) -> int:
    """Parameters of Linear, BatchNorm, Linear, BatchNorm, Linear."""
    hidden = linear(n_in, first) + batch_norm(first) + linear(first, second) + batch_norm(second)
    return hidden + linear(second, n_classes)


@pytest.fixture
def fused() -> FusionKD:
    torch.manual_seed(0)
    branches = [Branch(name, 4, **SMALL) for name in ("logmel", "cqt")]
    return FusionKD(branches, FusionModule([1280, 1280], 4, hidden=(32, 8)))


@pytest.fixture
def spectrograms() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "logmel": torch.randn(3, 1, 64, 70, generator=generator),
        "cqt": torch.randn(3, 1, 40, 70, generator=generator),
    }


# Counts of parameters


def test_no_channel_of_a_stem_is_born_dead_and_a_draw_without_one_stays_as_it_is():
    turned = 0
    for seed in range(100):
        torch.manual_seed(seed)
        first = nn.Conv2d(1, 10, 1), nn.Conv2d(10, 3, 1)
        torch.manual_seed(seed)
        stem = colour_stem().train()
        image = stem(torch.linspace(-40, 0, 512).view(8, 1, 8, 8))  # (B, 3, F, T) of levels in dB
        assert (image > 0).any(dim=(0, 2, 3)).all()
        drawn, kept = first[1].weight.flatten(1), stem[3].weight.flatten(1)
        same, opposite = (kept == drawn).all(dim=1), (kept == -drawn).all(dim=1)
        assert (same | opposite).all()
        turned += int(opposite.any())
    assert 30 < turned < 80


def test_the_papers_branch_has_torchvisions_trunk_and_a_hand_counted_stem_and_head():
    branch = Branch("logmel", 10)
    trunk = n_parameters(classification_models().mobilenet_v2().features)
    stem = batch_norm(1) + linear(1, 10) + linear(10, 3)
    assert n_parameters(branch) == trunk + stem + head(1280, 1280, 512, 10) == 4_528_193


def test_the_papers_fusion_module_has_two_layers_of_2560_and_512():
    fusion = FusionModule([1280, 1280], 10)
    assert [layer.out_features for layer in fusion.head if isinstance(layer, nn.Linear)] == [
        2560,
        512,
        10,
    ]
    assert n_parameters(fusion) == head(2560, 2560, 512, 10)


def test_the_trunks_are_torchvisions_without_their_classifiers():
    models = classification_models()
    shufflenet, squeezenet = models.shufflenet_v2_x0_5(), models.squeezenet1_1()
    expected = n_parameters(shufflenet) - linear(1024, 1000)
    assert n_parameters(build_trunk("shufflenet_v2", width=0.5)[0]) == expected
    expected = n_parameters(squeezenet) - linear(512, 1000)  # its classifier is a 1x1 convolution
    assert n_parameters(build_trunk("squeezenet1_1")[0]) == expected


def test_a_wider_trunk_is_torchvisions_of_that_width():
    for width in (0.25, 0.75):
        expected = classification_models().mobilenet_v2(width_mult=width).features
        assert n_parameters(build_trunk("mobilenet_v2", width=width)[0]) == n_parameters(expected)


def test_a_linear_head_is_one_layer_over_the_last_map():
    branch = Branch("logmel", 10, width=0.25, hidden=())
    trunk = n_parameters(build_trunk("mobilenet_v2", width=0.25)[0])
    stem = batch_norm(1) + linear(1, 10) + linear(10, 3)
    assert n_parameters(branch) == trunk + stem + linear(1280, 10)


def test_a_trunk_that_nobody_knows_is_refused_with_those_that_are_known():
    with pytest.raises(InputError) as caught:
        build_trunk("resnet18")
    assert str(caught.value).startswith("trunk = 'resnet18' is not allowed: use one of ")
    assert set(str(caught.value).split("use one of ")[1].split(", ")) >= {*map(repr, TRUNKS)}


@pytest.mark.parametrize(
    ("trunk", "width", "widths"),
    [("shufflenet_v2", 0.25, "0.5 and 1.0"), ("squeezenet1_1", 0.5, "1.0")],
)
def test_a_trunk_that_does_not_come_in_the_width_is_refused(trunk, width, widths):
    with pytest.raises(InputError, match=rf"^width = {width}: {trunk} comes in width {widths}$"):
        Branch("logmel", 10, trunk=trunk, width=width)


@pytest.mark.parametrize(
    ("head", "widths"),
    [([], [5]), ([8], [16, 5]), ([8, 6], [16, 6, 5]), ([8, 6, 4], [16, 6, 4, 5])],
)
def test_the_first_layer_of_a_fused_head_grows_with_the_branches(tiny, head, widths):
    params = tiny(head=head, representations=["logmel", "cqt"])
    branches = [build_branch(params, name, 5) for name in params.representations]
    fused = build_fusion(params, branches, 5).fusion.head
    assert [layer.out_features for layer in fused if isinstance(layer, nn.Linear)] == widths


# Maps


def test_a_branch_looks_at_its_own_representation_alone(spectrograms):
    torch.manual_seed(0)
    branch = Branch("cqt", 4, **SMALL).eval()
    with torch.inference_mode():
        output = branch(spectrograms)
        alone = branch({"cqt": spectrograms["cqt"]})
    assert output.name == "cqt"
    torch.testing.assert_close(output.logits, alone.logits, rtol=0, atol=0)
    assert list(output.logits_by_head()) == ["cqt"]


@pytest.mark.parametrize(
    ("trunk", "n_channels", "size"),
    [
        ("mobilenet_v2", 1280, (4, 13)),
        ("shufflenet_v2", 1024, (4, 13)),
        ("squeezenet1_1", 512, (7, 25)),
    ],
)
def test_the_last_map_of_four_seconds_has_the_measured_size(trunk, n_channels, size):
    # 128 bins by 401 frames, downsampled five times by 2: 128 / 32 and ceil(401 / 32).
    branch = Branch("logmel", 8, trunk=trunk, hidden=(16, 8)).eval()
    with torch.inference_mode():
        output = branch({"logmel": torch.zeros(1, 1, 128, 401)})
    assert output.feature_map.shape == (1, n_channels, *size)
    assert output.logits.shape == (1, 8)
    assert tap_channels(branch) == build_trunk(trunk)[1] == n_channels


def test_a_shufflenet_trunk_computes_what_torchvision_does_before_its_classifier():
    torch.manual_seed(0)
    network = classification_models().shufflenet_v2_x0_5().eval()
    torch.manual_seed(0)
    trunk = build_trunk("shufflenet_v2", width=0.5)[0].eval()
    image = torch.randn(2, 3, 64, 64)
    logits = network.fc(global_average(trunk(image)))
    torch.testing.assert_close(logits, network(image), rtol=0, atol=0)


def test_a_tap_takes_an_earlier_map_and_leaves_the_logits_alone():
    torch.manual_seed(0)
    branch = Branch("logmel", 4, **SMALL).eval()
    x = torch.randn(2, 1, 64, 70)
    by_hand, maps = branch.stem(x), []
    for layer in branch.trunk:
        by_hand = layer(by_hand)
        maps.append(by_hand)
    expected = branch({"logmel": x}).logits
    for tap in (-1, -2, -len(maps)):
        tapped = Branch("logmel", 4, **SMALL, tap=tap).eval()
        tapped.load_state_dict(branch.state_dict())
        output = tapped({"logmel": x})
        torch.testing.assert_close(output.feature_map, maps[tap], rtol=0, atol=0)
        torch.testing.assert_close(output.logits, expected, rtol=0, atol=0)
        assert tap_channels(tapped) == maps[tap].shape[1]


def test_counting_channels_leaves_the_mode_and_the_statistics_alone():
    branch = Branch("logmel", 4, **SMALL).train()
    before = {key: value.clone() for key, value in branch.state_dict().items()}
    tap_channels(branch)
    assert branch.training
    torch.testing.assert_close(branch.state_dict(), before, rtol=0, atol=0)


# Fusion


def test_maps_are_pooled_to_the_smallest_height_and_width_by_their_means():
    # 4 x 2 and 2 x 4: the smallest height is one map's, the smallest width the other's.
    tall = torch.arange(8.0).reshape(1, 1, 4, 2)
    wide = torch.arange(10.0, 18.0).reshape(1, 1, 2, 4)
    fusion = FusionModule([1, 1], 3, hidden=(4, 4)).eval()
    with torch.inference_mode():
        output = fusion([tall, wide])
    # Rows 0-1 and 2-3 of the tall map: means of (0, 2), (1, 3), (4, 6), (5, 7).
    # Columns 0-1 and 2-3 of the wide one: means of (10, 11), (12, 13), (14, 15), (16, 17).
    expected = torch.tensor([[[1.0, 2.0], [5.0, 6.0]], [[10.5, 12.5], [14.5, 16.5]]])
    torch.testing.assert_close(output.feature_map[0], expected)
    torch.testing.assert_close(output.logits, fusion.head(torch.tensor([[3.5, 13.5]])))
    assert output.name == FUSED


@pytest.mark.parametrize("names", [("logmel", "cqt"), ("logmel", "cqt", "gammatone")])
@pytest.mark.parametrize("fusion", ["gap", "conv"])
def test_any_number_of_branches_is_fused(names, fusion):
    torch.manual_seed(0)
    branches = [Branch(name, 4, trunk="squeezenet1_1", hidden=(16, 8)) for name in names]
    module = FusionModule([512] * len(names), 4, hidden=(32, 8), fusion=fusion)
    model = FusionKD(branches, module).eval()
    inputs = {
        name: torch.randn(2, 1, 40 + 24 * place, 70) for place, name in enumerate(reversed(names))
    }
    with torch.inference_mode():
        output = model(inputs)
        alone = {branch.name: branch(inputs).logits for branch in branches}
    heads = output.logits_by_head()
    assert list(heads) == [*names, FUSED]
    assert {logits.shape for logits in heads.values()} == {(2, 4)}
    assert output.feature_map.shape[1] == 512 * len(names)
    for name in names:  # a branch in the fused network is the tagger that it is alone
        torch.testing.assert_close(heads[name], alone[name], rtol=0, atol=0)


def test_the_convolutional_fusion_is_a_hand_counted_layer_more():
    gap, conv = (FusionModule([6, 4], 3, hidden=(8, 4), fusion=kind) for kind in ("gap", "conv"))
    depthwise, pointwise = 10 * 9, 10 * 10
    assert n_parameters(conv) - n_parameters(gap) == depthwise + pointwise + batch_norm(10)
    maps = [torch.randn(2, 6, 5, 4), torch.randn(2, 4, 5, 4)]
    assert conv.eval()(maps).feature_map.shape == (2, 10, 3, 2)  # pooled by two, odd sizes up
    single = [torch.randn(2, 6, 1, 1), torch.randn(2, 4, 1, 1)]
    assert conv(single).feature_map.shape == (2, 10, 1, 1)


def test_the_teacher_sees_what_each_branch_sees(fused, spectrograms):
    fused.eval()
    with torch.inference_mode():
        before = fused(spectrograms).logits
        for name in spectrograms:
            changed = spectrograms | {name: spectrograms[name] + 1}
            assert (fused(changed).logits - before).abs().max() > 0, name


# What is saved


def test_normalisation_is_saved_with_the_weights():
    branch = Branch("logmel", 4, **SMALL, normalise=Normalise(-40.0, 12.5)).eval()
    state = branch.state_dict()
    assert (state["normalise.mean"], state["normalise.deviation"]) == (-40.0, 12.5)
    other = Branch("logmel", 4, **SMALL).eval()
    other.load_state_dict(state)
    x = -40 + 12.5 * torch.randn(2, 1, 64, 70)
    with torch.inference_mode():
        found = branch({"logmel": x}).logits
        torch.testing.assert_close(other({"logmel": x}).logits, found, rtol=0, atol=0)
        plain = branch.head(global_average(branch.trunk(branch.stem((x + 40) / 12.5))))
        torch.testing.assert_close(found, plain)
    assert n_parameters(branch.normalise) == 0


def test_logits_are_float32_where_the_network_is_computed_in_bfloat16(fused, spectrograms):
    fused.eval()
    with torch.inference_mode():
        exact = fused(spectrograms)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = fused(spectrograms)
    assert output.feature_map.dtype == torch.bfloat16
    for name, logits in output.logits_by_head().items():
        assert logits.dtype == torch.float32
        assert (logits - exact.logits_by_head()[name]).abs().max() > 0  # it was computed in less
        torch.testing.assert_close(logits, exact.logits_by_head()[name], rtol=0.05, atol=0.05)


# torchvision

IMPORT_WITHOUT_OPERATORS = """
import sys, torch

def refuse(path):
    raise OSError(f"cannot load {path}")

torch.set_num_threads(1)
torch.ops.load_library = refuse  # as where CUDA's libraries are missing
try:
    import torchvision
except RuntimeError as error:
    print(error)
for name in [name for name in sys.modules if name.startswith("torchvision")]:
    del sys.modules[name]
from fusionkd_lib.torchvision_import import classification_models
models = classification_models()
assert classification_models() is models  # declared once
print(models.squeezenet1_1()(torch.zeros(2, 3, 32, 32)).shape)
"""


def test_networks_work_where_torchvisions_operators_cannot_be_loaded():
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_WITHOUT_OPERATORS],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    fault, shape = process.stdout.splitlines()
    assert fault == "operator torchvision::nms does not exist"  # what a plain import says
    assert shape == "torch.Size([2, 1000])"


def fail(*_, **__):
    raise URLError("no network")


def fail_the_check(*_, **__):
    raise RuntimeError('invalid hash value (expected "7ebf99e0", got "00000000")')


@pytest.mark.parametrize("fault", [fail, fail_the_check])
@pytest.mark.parametrize("trunk", TRUNKS)
def test_weights_that_cannot_be_downloaded_name_the_file_and_where_to_put_it(
    trunk, fault, monkeypatch
):
    classification_models()
    from torchvision.models import _api

    monkeypatch.setattr(_api, "load_state_dict_from_url", fault)
    with pytest.raises(
        InputError, match=rf"weights = 'imagenet': {trunk}.*put https.*\.pth into .*checkpoints"
    ):
        build_trunk(trunk, weights="imagenet")


def test_imagenet_weights_are_the_ones_that_torchvision_loads(monkeypatch):
    classification_models()
    from torchvision.models import _api

    torch.manual_seed(0)
    network = classification_models().mobilenet_v2()
    monkeypatch.setattr(_api, "load_state_dict_from_url", lambda *_, **__: network.state_dict())
    layers, _ = build_trunk("mobilenet_v2", weights="imagenet")
    torch.testing.assert_close(layers.state_dict(), network.features.state_dict(), rtol=0, atol=0)
