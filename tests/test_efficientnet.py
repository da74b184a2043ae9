"""EfficientNet-Lite0: its size, its ImageNet weights against TensorFlow's rule, its first image."""

import copy
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionkd_lib import efficientnet
from fusionkd_lib.efficientnet import (
    FILE,
    N_CHANNELS,
    PACKAGE,
    as_grey_image,
    efficientnet_lite0_features,
    load_imagenet,
)
from fusionkd_lib.errors import InputError
from fusionkd_lib.models import colour_stem

needs_weights = pytest.mark.skipif(find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed")


def test_the_network_has_the_published_number_of_parameters():
    n_classifier = (N_CHANNELS + 1) * 1000
    features = efficientnet_lite0_features()
    assert sum(p.numel() for p in features.parameters()) + n_classifier == 4_652_008


@pytest.mark.parametrize(("size", "map_size"), [((128, 173), (4, 6)), ((84, 345), (3, 11))])
def test_the_feature_map_is_a_32nd_of_the_image_rounded_up(size, map_size):
    features = efficientnet_lite0_features().eval()
    assert features(torch.zeros(1, 3, *size)).shape == (1, N_CHANNELS, *map_size)


def test_every_relu6_follows_its_batch_norm_and_strides_keep_plain_padding():
    # What fast layers look for.
    features = efficientnet_lite0_features()
    groups = [module for module in features.modules() if isinstance(module, nn.Sequential)]
    pairs = [pair for group in groups for pair in pairwise(group)]
    joined = [b for a, b in pairs if type(a) is nn.BatchNorm2d and type(b) is nn.ReLU6]
    assert len(joined) == sum(isinstance(module, nn.ReLU6) for module in features.modules()) == 33
    convolutions = [module for module in features.modules() if isinstance(module, nn.Conv2d)]
    strided = [c for c in convolutions if c.stride == (2, 2) and c.groups == c.in_channels]
    assert len(strided) == 4
    assert all(c.padding == tuple(k // 2 for k in c.kernel_size) for c in strided)


# The ImageNet weights


def tensorflow_convolution(
    x: Tensor, kernel: Tensor, *, stride: int, mode: str = "constant"
) -> Tensor:
    """Convolve as TensorFlow's SAME has it: ceil(n / stride) outputs, an odd zero at the end."""
    padding = []
    for n, k in zip(reversed(x.shape[2:]), reversed(kernel.shape[2:]), strict=True):
        total = max((-(-n // stride) - 1) * stride + k - n, 0)
        padding += [total // 2, total - total // 2]
    groups = 1 if kernel.shape[1] > 1 or kernel.shape[2] == 1 else len(kernel)
    return F.conv2d(F.pad(x, padding, mode=mode), kernel, stride=stride, groups=groups)


def tensorflow_features(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Compute the feature map from the names in the file of weights alone."""

    def norm(x: Tensor, name: str) -> Tensor:
        of = {k: state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")}
        return F.batch_norm(x, *of.values(), eps=1e-3)

    x = tensorflow_convolution(x, state["_conv_stem.weight"], stride=2, mode="replicate")
    x = F.relu6(norm(x, "_bn0"))
    for i in range(16):
        block, before = f"_blocks.{i}.", x
        if i:  # the first block has nothing to spread
            kernel = state[block + "_expand_conv.weight"]
            x = F.relu6(norm(tensorflow_convolution(x, kernel, stride=1), block + "_bn0"))
        kernel, stride = state[block + "_depthwise_conv.weight"], 2 if i in (1, 3, 5, 11) else 1
        x = F.relu6(norm(tensorflow_convolution(x, kernel, stride=stride), block + "_bn1"))
        x = norm(F.conv2d(x, state[block + "_project_conv.weight"]), block + "_bn2")
        if x.shape == before.shape:
            x = x + before
    return F.relu6(norm(F.conv2d(x, state["_conv_head.weight"]), "_bn1"))


@needs_weights
@pytest.mark.parametrize("size", [(64, 64), (65, 87), (66, 83)])
def test_with_imagenet_weights_the_map_is_tensorflows_of_the_turned_image(size):
    features = efficientnet_lite0_features().eval()
    load_imagenet(features)
    path = f"{find_spec(PACKAGE).submodule_search_locations[0]}/{FILE}"
    state = torch.load(path, weights_only=True)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = tensorflow_features(state, x.flip(2, 3)).flip(2, 3)
        torch.testing.assert_close(features(x), expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.1


def test_a_missing_package_is_one_sentence_with_the_way_out(monkeypatch):
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"is missing.*pip install 'fusionkd\[imagenet\]'"):
        load_imagenet(efficientnet_lite0_features())


def test_another_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "other.pth"
    torch.save(efficientnet_lite0_features().state_dict(), path)
    with pytest.raises(InputError, match=r"other\.pth is missing, or not the file"):
        load_imagenet(efficientnet_lite0_features(), path)


# The first image


def small_trunk(**settings: object) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, **settings), nn.BatchNorm2d(8), nn.ReLU6())


TRUNKS = {
    "lite0": efficientnet_lite0_features,
    "no padding, bias": lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU()),
    "repeated edge": lambda: small_trunk(bias=False, padding=1, padding_mode="replicate"),
}


def grey(make_trunk: Callable[[], nn.Module]) -> tuple[nn.Sequential, nn.Module, nn.Module]:
    """Return a stem, its trunk, and the same trunk as it was without the stem, in float64."""
    torch.manual_seed(0)
    stem, trunk = colour_stem().double(), make_trunk().double()
    before = copy.deepcopy(trunk)
    as_grey_image(stem, trunk)
    return stem, trunk, before


def levels() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 1, 65, 87, dtype=torch.float64, generator=generator).clamp(-5.9, 5.9)


def test_each_channel_of_the_stem_is_the_level_and_a_constant_and_no_relu_cuts():
    stem, _, _ = grey(efficientnet_lite0_features)
    stem.eval()[0].eps = 0.0
    level = torch.linspace(-5.99, 5.99, 101, dtype=torch.float64).view(1, 1, 1, -1)
    torch.testing.assert_close(stem(level), (level + 6).expand(-1, 3, -1, -1))
    assert (stem[:2](level) > 0).all()
    assert (stem[:4](level) > 0).all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", TRUNKS)
def test_the_trunk_sees_three_equal_channels_of_zero_mean_and_unit_deviation(name, training):
    stem, trunk, before = grey(TRUNKS[name])
    stem.train(training)
    trunk.train(training)
    before.train(training)
    normalised = stem[0](levels())
    stem[0].reset_running_stats()
    torch.testing.assert_close(
        trunk(stem(levels())), before(normalised.expand(-1, 3, -1, -1)), rtol=0, atol=1e-8
    )


def test_where_zeros_are_padded_all_but_the_edge_is_as_without_the_stem():
    stem, trunk, before = (m.eval() for m in grey(lambda: small_trunk(bias=False, padding=1)))
    got, expected = trunk(stem(levels())), before(stem[0](levels()).expand(-1, 3, -1, -1))
    inside = slice(1, -1)
    torch.testing.assert_close(got[..., inside, inside], expected[..., inside, inside])
    assert not torch.allclose(got[..., 0, :], expected[..., 0, :])


def test_the_stem_learns_from_the_first_step_on():
    stem, trunk, _ = grey(efficientnet_lite0_features)
    trunk(stem(levels())).square().mean().backward()
    for layer in (stem[1], stem[3]):
        assert (layer.weight.grad.flatten(1).norm(dim=1) > 0).all()
