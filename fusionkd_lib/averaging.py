"""A running average of a network, which often generalises better than the network itself.

Source: A. Tarvainen and H. Valpola, Mean teachers are better role models, NeurIPS 2017.
"""

import torch
from torch import Tensor, nn


def begin(model: nn.Module) -> dict[str, Tensor]:
    """Return the average of a network that has made no step: a copy of all its values."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def update(average: dict[str, Tensor], model: nn.Module, *, decay: float, n_updates: int) -> None:
    """Take, in place, the values after one more step into the average.

    BatchNorm's statistics are averaged as the weights are; whole numbers are copied. The result is
    a state that the network loads and that a checkpoint keeps.

    Parameters
    ----------
    decay
        Share in [0, 1) of the average that remains.
    n_updates
        How many steps are in the average; among the first the decay is (1 + n) / (10 + n), so that
        what the network was before it learned is soon forgotten.
    """
    decay = min(decay, (1 + n_updates) / (10 + n_updates))
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)
