"""Name -> torchvision feature layers and their channel count.

A trunk maps a three-channel image (B, 3, F, T) to feature maps; its last is (B, C, f, t). The paper
cites ShuffleNet V1, which torchvision does not have; its V2 stands in. SqueezeNet's own classifier
ends in a ReLU, so that of every network the feature layers alone are taken.
"""

import torch
from torch import nn

from fusionkd_lib.errors import InputError
from fusionkd_lib.torchvision_import import classification_models

SHUFFLENET_SIZES = {0.5: "x0_5", 1.0: "x1_0"}


def build_trunk(
    name: str, *, width: float = 1.0, weights: str = "scratch"
) -> tuple[nn.Sequential, int]:
    """Build the feature layers of a torchvision network.

    Parameters
    ----------
    name
        ``mobilenet_v2`` (Sandler et al. 2018), ``shufflenet_v2`` (Ma et al. 2018) or
        ``squeezenet1_1`` (Iandola et al. 2016).
    width
        Factor on the channel counts: 0.5 or 1 of ShuffleNet V2, 1 of SqueezeNet.
    weights
        ``scratch``, or ``imagenet`` for torchvision's own.

    Returns
    -------
    layers : nn.Sequential
    n_channels : int
        C of the last feature map.

    Raises
    ------
    InputError
        Where the ImageNet weights cannot be downloaded.
    """
    if name == "mobilenet_v2":
        network = _network(name, "MobileNet_V2_Weights", weights, width_mult=width)
        return network.features, network.last_channel
    if name == "shufflenet_v2":
        size = SHUFFLENET_SIZES[width]
        network = _network(f"{name}_{size}", f"ShuffleNet_V2_{size.upper()}_Weights", weights)
        stages = "conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"
        layers = nn.Sequential(*(getattr(network, stage) for stage in stages))
        return layers, network.fc.in_features
    network = _network(name, "SqueezeNet1_1_Weights", weights)
    return network.features, network.classifier[1].in_channels


def _network(name: str, weights_name: str, weights: str, **settings: float) -> nn.Module:
    models = classification_models()
    if weights == "scratch":
        return getattr(models, name)(**settings)
    choice = getattr(models, weights_name).DEFAULT
    try:
        return getattr(models, name)(weights=choice, **settings)
    except (OSError, RuntimeError) as error:  # no network, a cut connection; a wrong checksum
        raise InputError(
            f"weights = 'imagenet': {name}'s could not be downloaded ({error}): "
            f"put {choice.url} into {torch.hub.get_dir()}/checkpoints, or use weights: scratch"
        ) from None
