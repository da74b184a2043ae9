"""Fast layers compute what PyTorch's own do: its layers in double precision are the oracle."""

import copy
import shutil

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from fusionkd_lib import speed
from fusionkd_lib.errors import InputError
from fusionkd_lib.models import Branch, colour_stem, dead_channels
from fusionkd_lib.speed import can_compile, resolve
from fusionkd_lib.speed.fast_layers import (
    BatchNormReLU6,
    Depthwise,
    FastStem,
    kernel,
    use_fast_layers,
)

compiles = pytest.mark.skipif(not can_compile(), reason="torch.compile does not work here")


def drawn(*shape: int, seed: int = 0, channels_last: bool = True) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def as_class(layer: nn.Module, fast: type) -> nn.Module:
    layer = copy.deepcopy(layer)
    layer.__class__ = fast
    return layer


def step(layer: nn.Module, x: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """Return a layer's output, buffers and gradients, all in double precision."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    output = layer(x)
    output.backward(gradient.to(output.dtype))
    told = {"output": output.detach(), "input": x.grad}
    told |= {name: parameter.grad for name, parameter in layer.named_parameters()}
    told |= dict(layer.named_buffers())
    return {name: tensor.double() for name, tensor in told.items()}


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], share: float) -> None:
    """Assert that nothing is off by more than a share of the largest value of its kind."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        off = (found[name] - tensor).abs().max() / tensor.abs().max().clamp_min(1e-12)
        assert off < share, f"{name} is off by {off:.2g} of the largest"


def batch_norm(n_channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(n_channels)
    nn.init.uniform_(layer.weight, 0.5, 2)
    nn.init.uniform_(layer.bias, -1, 3)  # both ends of ReLU6 cut
    return layer


class Joined(nn.Module):
    """PyTorch's two layers."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu6(self.norm(x))

    def named_parameters(self, *_: object, **__: object):
        return self.norm.named_parameters()

    def named_buffers(self, *_: object, **__: object):
        return self.norm.named_buffers()


@compiles
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("shape", [(4, 24, 9, 13), (2, 40, 3, 1)])
def test_batch_norm_with_relu6(shape, channels_last):
    torch.manual_seed(1)
    norm = batch_norm(shape[1])
    x = drawn(*shape, channels_last=channels_last) * 2 + 1
    gradient = drawn(*shape, seed=1, channels_last=channels_last)
    expected = step(Joined(copy.deepcopy(norm)).double(), x.double(), gradient.double())
    found = step(as_class(norm, BatchNormReLU6), x, gradient)
    assert ((expected["output"] == 0).any(), (expected["output"] == 6).any()) == (True, True)
    assert_near(found, expected, 2e-5)


@compiles
def test_in_half_precision_it_is_as_near_as_pytorchs_own():
    torch.manual_seed(1)
    norm = batch_norm(32)
    x, gradient = (drawn(8, 32, 16, 20, seed=seed).bfloat16() for seed in (0, 1))
    exact = step(Joined(copy.deepcopy(norm)).double(), x.double(), gradient.double())
    fast = step(as_class(norm, BatchNormReLU6), x, gradient)
    own = step(Joined(copy.deepcopy(norm)), x, gradient)

    def error(told: dict[str, Tensor], name: str) -> float:
        return float((told[name] - exact[name]).square().mean().sqrt())

    for name in exact:
        assert error(fast, name) <= 1.1 * error(own, name) + 1e-7, name


@compiles
def test_a_mean_far_from_zero_does_not_drown_the_variance():
    norm = batch_norm(16)
    x = (drawn(4, 16, 8, 9) + 3000).contiguous(memory_format=torch.channels_last)
    gradient = drawn(4, 16, 8, 9, seed=1)
    expected = step(Joined(copy.deepcopy(norm)).double(), x.double(), gradient.double())
    found = step(as_class(norm, BatchNormReLU6), x, gradient)
    for name in ("output", "running_var"):
        assert_near({name: found[name]}, {name: expected[name]}, 1e-3)  # single precision at 3000


@compiles
def test_a_single_value_a_channel_has_no_variance_and_is_refused():
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        as_class(batch_norm(16), BatchNormReLU6)(drawn(1, 16, 1, 1))


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2, (1, 2), 3])
@pytest.mark.parametrize("size", [(8, 11), (9, 12)])
def test_a_depthwise_convolution(size, stride, kernel_size):
    layer = nn.Conv2d(6, 6, kernel_size, stride, kernel_size // 2, groups=6, bias=False).double()
    x = drawn(2, 6, *size).double()
    gradient = drawn(*layer(x).shape, seed=1).double()
    found = step(as_class(layer, Depthwise), x, gradient)
    assert_near(found, step(layer, x, gradient), 1e-12)


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 2), (5, 1), (5, 2)])
def test_a_depthwise_convolution_in_mixed_precision(kernel_size, stride):
    layer = nn.Conv2d(16, 16, kernel_size, stride, kernel_size // 2, groups=16, bias=False)
    x = drawn(4, 16, 10, 13).bfloat16()
    gradient = drawn(*layer(x.float()).shape, seed=1).bfloat16()
    rounded = copy.deepcopy(layer)
    rounded.weight.data = layer.weight.data.bfloat16().double()
    expected = step(rounded, x.double(), gradient.double())
    fast = as_class(layer, Depthwise)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own = step(copy.deepcopy(layer), x, gradient)
        found = step(fast, x, gradient)
    assert fast.weight.grad.dtype == torch.float32
    # What half precision rounds, or PyTorch's own, where a processor that lacks it rounds more.
    for name, exact in expected.items():
        rounding = float((own[name] - exact).abs().max() / exact.abs().max())
        assert_near({name: found[name]}, {name: exact}, max(2**-8, 1.01 * rounding))


@compiles
def test_the_stem():
    torch.manual_seed(0)
    stem = colour_stem()
    x, gradient = drawn(3, 1, 12, 17), drawn(3, 3, 12, 17, seed=1)
    found = step(as_class(stem, FastStem), x, gradient)
    assert_near(found, step(copy.deepcopy(stem).double(), x.double(), gradient.double()), 1e-5)


@pytest.fixture
def branch() -> Branch:
    torch.manual_seed(0)
    return Branch("logmel", 3, width=0.25, hidden=(16, 8))


def test_a_network_keeps_its_weights_and_its_evaluation(branch):
    fast = copy.deepcopy(branch)
    use_fast_layers(fast)
    state = branch.state_dict()
    torch.testing.assert_close(fast.state_dict(), state, rtol=0, atol=0)
    kinds = [type(module) for module in fast.modules()]
    assert kinds.count(Depthwise) == 4  # of 5 strides in MobileNetV2, one is not depthwise
    assert kinds.count(BatchNormReLU6) == sum(isinstance(m, nn.ReLU6) for m in branch.modules())
    assert kinds.count(FastStem) == 1
    x = {"logmel": drawn(2, 1, 32, 40)}
    expected, found = branch.eval()(x).logits, fast.eval()(x).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def convolution(**settings: object) -> nn.Conv2d:
    usual = {"stride": 2, "padding": 1, "groups": 8, "bias": False}
    return nn.Conv2d(8, 8, 3, **(usual | settings))


@pytest.mark.parametrize(
    "layer",
    [
        convolution(stride=1),
        convolution(groups=1),
        convolution(groups=4),
        convolution(bias=True),
        convolution(dilation=2),
        convolution(padding=2),
        convolution(padding="valid"),
        convolution(padding_mode="reflect"),
        nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(nn.BatchNorm2d(8, momentum=None), nn.ReLU6()),
        nn.Sequential(nn.BatchNorm2d(8, affine=False), nn.ReLU6()),
        nn.Sequential(nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU6()),
    ],
    ids=repr,
)
def test_a_layer_without_a_fast_form_stays_as_it_is(layer):
    before = [type(module) for module in layer.modules()]
    use_fast_layers(layer)
    assert [type(module) for module in layer.modules()] == before
    usual = nn.ModuleList([convolution(), nn.Sequential(nn.BatchNorm2d(8), nn.ReLU6())])
    use_fast_layers(usual)
    assert {Depthwise, BatchNormReLU6} <= {type(module) for module in usual.modules()}


def test_a_slice_of_a_fast_stem_is_a_slice_of_the_stem():
    stem = colour_stem()
    torch.testing.assert_close(dead_channels(as_class(stem, FastStem)), dead_channels(stem))


@compiles
def test_a_networks_gradients_are_those_of_double_precision(branch):
    fast, exact = copy.deepcopy(branch), copy.deepcopy(branch).double()
    use_fast_layers(fast)
    x = drawn(8, 1, 32, 40)
    whole = {}
    for network in (fast, exact):
        network({"logmel": x.to(network.stem[0].weight.dtype)}).logits.square().sum().backward()
        gradients = [parameter.grad.flatten().double() for parameter in network.parameters()]
        whole[network] = torch.cat(gradients)
    # Where rounding moves a value over an edge of ReLU6, a gradient comes or goes.
    assert (whole[fast] - whole[exact]).norm() < 0.05 * whole[exact].norm()


@compiles
def test_a_kernel_is_compiled_once_for_all_sizes():
    doubled = kernel(lambda x: 2 * x + 1)
    before = counters["stats"]["unique_graphs"]
    for n in (5, 6, 7):
        torch.testing.assert_close(doubled(torch.ones(n)), torch.full((n,), 3.0))
    assert counters["stats"]["unique_graphs"] == before + 1


def test_where_there_is_a_compiler_it_is_found():
    if not shutil.which("g++"):
        pytest.skip("no g++ here")
    assert can_compile()


def test_they_are_used_where_they_can_be_compiled(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(speed, "can_compile", lambda: True)
    assert resolve(["fast_layers"], cpu) == ("fast_layers",)
    assert "fast_layers" in resolve("all", cpu)
    assert "fast_layers" not in resolve("all", gpu)  # to be measured first
    monkeypatch.setattr(speed, "can_compile", lambda: False)
    assert "fast_layers" not in resolve("all", cpu)
    assert resolve(["bfloat16"], cpu) == ("bfloat16",)
    with pytest.raises(InputError, match=r"fast_layers: torch\.compile does not work here.*leave"):
        resolve(["fast_layers"], cpu)
