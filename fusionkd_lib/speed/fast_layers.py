"""The layers of a branch, computed in training with fewer passes over memory.

On a CPU a training step waits for memory, not for arithmetic. Three kinds of layers are exchanged
for others with the same weights under the same names and, but for rounding, the same results:

- BatchNorm and ReLU6 read or write a feature map some fifteen times in a step; as one layer, eight
  times. ``torch.compile`` makes its passes from the formulas below.
- The gradient of a depthwise convolution with a stride, or with a kernel of 5 x 5 as in
  EfficientNet, is a convolution without a stride, which oneDNN computes several times as fast in
  bfloat16; that of a 5 x 5 kernel's weights it computes in windows of 3 x 3 taps, up to 2.5 times
  as fast as in one.
- The colour stem keeps its ten channels of the whole spectrogram in registers.

In evaluation mode each is the layer that it was.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fusionkd_lib.models import Branch


def use_fast_layers(model: nn.Module) -> None:
    """Exchange, in place, the layers of a network that have a fast form."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _is_slow_depthwise(module):
            module.__class__ = Depthwise
        if isinstance(module, nn.Sequential):
            for i in range(1, len(module)):
                if isinstance(module[i], nn.ReLU6) and _keeps_plain_statistics(module[i - 1]):
                    module[i - 1].__class__, module[i] = BatchNormReLU6, nn.Identity()
        if isinstance(module, Branch):
            module.stem.__class__ = FastStem


def kernel(function: Callable) -> Callable:
    """Compile a function when it is first called, for the threads there are then.

    Types, autocast and sizes that happen to be equal make further entries; torch keeps eight, of
    which trainings in one process have needed six, and computes what is beyond uncompiled.
    """

    @functools.cache
    def compiled(n_threads: int) -> Callable:
        # Dynamic: one kernel for layers of all sizes.
        return torch.compile(function, dynamic=True, options={"cpp.threads": n_threads})

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return compiled(torch.get_num_threads())(*arguments)

    return call


# BatchNorm and ReLU6 on rows (R, N, C). Sums go over N first and then over R, so that a block of N
# rows stays in the cache while all its channels are summed.


def _mean(values: Tensor) -> Tensor:
    return values.sum(1).sum(0) / (values.shape[0] * values.shape[1])


@kernel
def normalise_and_cut(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
    """Return y = min(max(z, 0), 6) with z = scale x + shift, and what the gradient needs.

    Parameters
    ----------
    x
        (R, N, C)
    weight, bias
        (C,)

    Returns
    -------
    y : (R, N, C), in the type of x
    mean, variance, sharpness, scale, shift : (C,)
        Biased variance; sharpness = 1 / sqrt(variance + eps).
    """
    # Squares of what is left without a value near the mean do not cancel (Chan et al. 1983).
    near = x[0, 0].float()
    centred = x.float() - near
    rest = _mean(centred)
    variance = (_mean(centred * centred) - rest * rest).clamp_min(0)
    mean, sharpness = near + rest, torch.rsqrt(variance + eps)
    scale = weight * sharpness
    shift = bias - scale * mean
    y = (x.float() * scale + shift).clamp(0, 6).to(x.dtype)
    return y, mean, variance, sharpness, scale, shift


# Backward: with x^ = sharpness (x - mean), g the gradient of y where 0 < z < 6 and else 0, and <>
# the mean over rows, the gradient of x is scale (g - <g> - x^ <g x^>) (Ioffe and Szegedy 2015,
# section 3). In one function the compiler would store g between the two passes.


def _gated(gradient: Tensor, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    z = x.float() * scale + shift
    return torch.where((z > 0) & (z < 6), gradient.float(), 0.0)


@kernel
def parameter_gradients(
    gradient: Tensor, x: Tensor, mean: Tensor, sharpness: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, ...]:
    """Gradients (C,) of weight and bias, and slope and offset (C,) of the input's."""
    g = _gated(gradient, x, scale, shift)
    of_bias, of_weight = _mean(g), _mean(g * (x.float() - mean)) * sharpness
    slope = -scale * sharpness * of_weight
    n = x.shape[0] * x.shape[1]
    return n * of_weight, n * of_bias, slope, -scale * of_bias - slope * mean


@kernel
def input_gradient(
    gradient: Tensor, x: Tensor, scale: Tensor, shift: Tensor, slope: Tensor, offset: Tensor
) -> Tensor:
    """Gradient (R, N, C) of x, in its type."""
    return (scale * _gated(gradient, x, scale, shift) + slope * x.float() + offset).to(x.dtype)


def _rows(image: Tensor) -> Tensor:
    """(B, C, F, T) -> (B F, T, C): a view where channels are last in memory."""
    return image.permute(0, 2, 3, 1).reshape(-1, image.shape[3], image.shape[1])


def _image(rows: Tensor, like: Tensor) -> Tensor:
    """(B F, T, C) -> (B, C, F, T), channels last in memory."""
    n_clips, n_channels, n_bins, n_frames = like.shape
    return rows.view(n_clips, n_bins, n_frames, n_channels).permute(0, 3, 1, 2)


class _BatchNormReLU6(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, image: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple:
        # Detached, since the sizes of an nn.Parameter would be compiled in.
        told = normalise_and_cut(_rows(image), weight.detach(), bias.detach(), eps)
        y, mean, variance, *rest = told
        context.save_for_backward(image, mean, *rest)
        context.mark_non_differentiable(mean, variance)
        return _image(y, image), mean, variance

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        image, mean, sharpness, scale, shift = context.saved_tensors
        g, x = _rows(gradient), _rows(image)
        of_weight, of_bias, slope, offset = parameter_gradients(g, x, mean, sharpness, scale, shift)
        of_x = input_gradient(g, x, scale, shift, slope, offset)
        return _image(of_x, image), of_weight, of_bias, None


class BatchNormReLU6(nn.BatchNorm2d):
    """BatchNorm, then ReLU6."""

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C, F, T) in [0, 6]."""
        if not self.training or image.numel() == image.shape[1]:  # of which PyTorch complains
            return F.relu6(super().forward(image))
        output, mean, variance = _BatchNormReLU6.apply(image, self.weight, self.bias, self.eps)
        n = image.numel() // image.shape[1]
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (n / (n - 1)), self.momentum)
        return output


def _keeps_plain_statistics(layer: nn.Module) -> bool:
    is_usual = type(layer) is nn.BatchNorm2d and layer.affine and layer.track_running_stats
    return is_usual and layer.momentum is not None


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, stride: tuple, padding: tuple) -> Tensor:
        context.save_for_backward(x, weight)
        context.stride, context.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = (saved.to(gradient.dtype) for saved in context.saved_tensors)
        stride, padding, kernel_size = context.stride, context.padding, weight.shape[2:]
        # What a stride leaves out has no gradient: put zeros there, and the input's gradient is the
        # convolution with the kernel turned by half a turn.
        n_bins, n_frames = (
            n + 2 * p - k + 1 for n, p, k in zip(x.shape[2:], padding, kernel_size, strict=True)
        )
        spread = gradient.new_zeros(len(x), n_bins, n_frames, len(weight)).permute(0, 3, 1, 2)
        spread[:, :, :: stride[0], :: stride[1]] = gradient
        turned = [k - 1 - p for k, p in zip(kernel_size, padding, strict=True)]
        of_x = F.conv2d(spread, weight.flip(2, 3), None, 1, turned, 1, len(weight))
        of_weight = _of_weight(x, weight.shape, gradient, stride, padding)
        return of_x, of_weight.to(context.saved_tensors[1].dtype), None, None


def _of_weight(
    x: Tensor, shape: torch.Size, gradient: Tensor, stride: tuple, padding: tuple
) -> Tensor:
    """Return the gradient of a depthwise kernel, of a large one in windows of 3 x 3 taps."""
    if max(shape[2:]) <= 3:
        return torch.nn.grad.conv2d_weight(x, shape, gradient, stride, padding, 1, len(x[0]))
    found, taps = x.new_empty(shape), [min(3, k) for k in shape[2:]]
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    # As many values as it takes to slide a window over the gradient.
    sizes = [(n - 1) * s + k for n, s, k in zip(gradient.shape[2:], stride, taps, strict=True)]
    starts = [{min(i, k - n) for i in range(0, k, 3)} for k, n in zip(shape[2:], taps, strict=True)]
    for i, j in itertools.product(*starts):
        met = x[..., i : i + sizes[0], j : j + sizes[1]]
        settings = ((shape[0], 1, *taps), gradient, stride, 0, 1, shape[0])
        found[..., i : i + 3, j : j + 3] = torch.nn.grad.conv2d_weight(met, *settings)
    return found


class Depthwise(nn.Conv2d):
    """A depthwise convolution with a stride or a large kernel, without bias."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C, f, t)."""
        return _Depthwise.apply(x, self.weight, self.stride, self.padding)


def _is_slow_depthwise(layer: nn.Conv2d) -> bool:
    is_depthwise = layer.groups == layer.in_channels == layer.out_channels > 1
    is_slow = max(layer.stride) > 1 or max(layer.kernel_size) > 3
    settings = (layer.padding_mode, layer.padding, layer.dilation, layer.bias is None)
    usual = ("zeros", tuple(k // 2 for k in layer.kernel_size), (1, 1), True)
    return is_depthwise and is_slow and settings == usual


@kernel
def colours(
    level: Tensor, weights: Tensor, biases: Tensor, mixing: Tensor, offsets: Tensor
) -> Tensor:
    """Levels (B, F, T) -> (B, F, T, 3) by the stem's two 1x1 convolutions and ReLUs."""
    hidden = [torch.relu(level * weights[k] + biases[k]) for k in range(len(weights))]
    mixed = [
        torch.relu(sum(h * mixing[j, k] for k, h in enumerate(hidden)) + offsets[j])
        for j in range(len(mixing))
    ]
    return torch.stack(mixed, dim=3)


class FastStem(nn.Sequential):
    """`models.colour_stem` in one pass."""

    def forward(self, spectrogram: Tensor) -> Tensor:
        """(B, 1, F, T) -> (B, 3, F, T)."""
        if not self.training or len(self) != 5:  # a slice of a stem is one of its class
            return super().forward(spectrogram)
        norm, spreading, _, mixing, _ = self
        hidden = (spreading.weight.flatten(), spreading.bias)
        mixed = (mixing.weight.flatten(1), mixing.bias)
        image = colours(norm(spectrogram)[:, 0], *hidden, *mixed)
        if torch.is_autocast_enabled(image.device.type):
            image = image.to(torch.get_autocast_dtype(image.device.type))
        return image.permute(0, 3, 1, 2)
