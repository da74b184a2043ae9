"""Name -> feature layers and their channel count.

A trunk maps a three-channel image (B, 3, F, T) to feature maps; its last is (B, C, f, t). The paper
cites ShuffleNet V1, which torchvision does not have; its V2 stands in. SqueezeNet's own classifier
ends in a ReLU, so that the feature layers alone are taken from every network.
"""

import torch
from torch import nn

from fusionkd_lib import efficientnet
from fusionkd_lib.catalogue import TRUNKS, load
from fusionkd_lib.errors import InputError, choose
from fusionkd_lib.torchvision_import import classification_models

Trunk = tuple[nn.Sequential, int]


def build_trunk(name: str, *, width: float = 1.0, weights: str = "scratch") -> Trunk:
    """Build the feature layers of a network.

    Parameters
    ----------
    name
        A key of `catalogue.TRUNKS`.
    width
        Factor on the channel counts.
    weights
        ``"scratch"``, or ``"imagenet"``.

    Returns
    -------
    layers : nn.Sequential
    n_channels : int
        C of the last feature map.

    Raises
    ------
    InputError
        Where the name is unknown, the trunk does not come in the width, or the ImageNet weights
        cannot be had.

    Examples
    --------
    >>> layers, n_channels = build_trunk("mobilenet_v2", width=0.25)
    >>> len(layers), n_channels
    (19, 1280)
    """
    trunk = TRUNKS[choose("trunk", name, TRUNKS)]
    if trunk.widths and width not in trunk.widths:
        widths = " and ".join(map(str, trunk.widths))
        raise InputError(f"width = {width}: {name} comes in width {widths}")
    return load(trunk.builder)(width=width, pretrained=weights == "imagenet")


def mobilenet_v2(*, width: float, pretrained: bool) -> Trunk:
    """MobileNetV2 (Sandler et al. 2018), the paper's trunk."""
    network = _network("mobilenet_v2", pretrained, width_mult=width)
    return network.features, network.last_channel


def efficientnet_lite0(*, width: float, pretrained: bool) -> Trunk:
    """EfficientNet-Lite0 (Tan and Le 2019), at width 1."""
    layers = efficientnet.efficientnet_lite0_features()
    if pretrained:
        efficientnet.load_imagenet(layers)
    return layers, efficientnet.N_CHANNELS


def shufflenet_v2(*, width: float, pretrained: bool) -> Trunk:
    """ShuffleNet V2 (Ma et al. 2018), at width 0.5 or 1."""
    network = _network(f"shufflenet_v2_x{width:.1f}".replace(".", "_"), pretrained)
    stages = "conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"
    layers = nn.Sequential(*(getattr(network, stage) for stage in stages))
    return layers, network.fc.in_features


def squeezenet1_1(*, width: float, pretrained: bool) -> Trunk:
    """SqueezeNet 1.1 (Iandola et al. 2016), at width 1."""
    network = _network("squeezenet1_1", pretrained)
    return network.features, network.classifier[1].in_channels


def _network(name: str, pretrained: bool, **settings: float) -> nn.Module:
    models = classification_models()
    choice = models.get_model_weights(name).DEFAULT if pretrained else None
    try:
        return models.get_model(name, weights=choice, **settings)
    except (OSError, RuntimeError) as error:  # no network, a cut connection; a wrong checksum
        place = f"{torch.hub.get_dir()}/checkpoints"
        fault = f"weights = 'imagenet': {name}'s could not be downloaded ({error})"
        way_out = f"put {choice.url} into {place}, or use weights: scratch"
        raise InputError(f"{fault}: {way_out}") from None
