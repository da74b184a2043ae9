"""The running average: closed forms, what it holds, and that it goes on from a checkpoint."""

import math

import pytest
import torch
from torch import nn

from fusionkd_lib import averaging


def network(value: float = 0.0) -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.fill_(value)
    return layers


def test_what_is_left_of_the_beginning_is_the_product_of_the_warm_up():
    # n updates towards a constant leave 1/10 * 2/11 * ... * n/(n + 9) = n! 9! / (n + 9)!.
    average, model, n = averaging.begin(network(1.0)), network(0.0), 7
    for i in range(n):
        averaging.update(average, model, decay=0.999, n_updates=i)
    left = math.factorial(n) * math.factorial(9) / math.factorial(n + 9)
    torch.testing.assert_close(average["0.weight"], torch.full((2, 3), left))


def test_later_the_weights_of_past_steps_fall_geometrically():
    average = averaging.begin(network(0.0))
    for step in range(5):
        averaging.update(average, network(float(step)), decay=0.75, n_updates=1000 + step)
    expected = sum(0.25 * 0.75 ** (4 - step) * step for step in range(5))
    torch.testing.assert_close(average["0.bias"], torch.full((2,), expected))


def test_statistics_of_batch_norm_are_averaged_and_its_count_is_copied():
    model = network()
    average = averaging.begin(model)
    model[1].running_mean.fill_(4.0)
    model[1].num_batches_tracked.fill_(9)
    averaging.update(average, model, decay=0.5, n_updates=1000)
    torch.testing.assert_close(average["1.running_mean"], torch.full((2,), 2.0))
    assert average["1.num_batches_tracked"] == 9


def test_the_network_is_left_alone_and_can_load_its_average():
    model = network(1.0)
    average = averaging.begin(network(0.0))
    averaging.update(average, model, decay=0.5, n_updates=1000)
    assert (model[0].weight == 1).all()
    model.load_state_dict(average)
    torch.testing.assert_close(model[0].weight.detach(), torch.full((2, 3), 0.5))
    average["0.weight"].zero_()
    assert (model[0].weight == 0.5).all()


def test_the_network_that_goes_on_leaves_the_beginning_of_the_average_alone():
    model = network(1.0)
    average = averaging.begin(model)
    with torch.no_grad():
        model[0].weight.zero_()
    assert (average["0.weight"] == 1).all()


@pytest.mark.parametrize("stop", [1, 4])
def test_an_average_from_a_checkpoint_goes_on_bit_for_bit(stop, tmp_path):
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(6)]
    whole, average = averaging.begin(models[0]), averaging.begin(models[0])
    for i, model in enumerate(models):
        averaging.update(whole, model, decay=0.9, n_updates=i)
        averaging.update(average, model, decay=0.9, n_updates=i)
        if i == stop:
            torch.save(average, tmp_path / "checkpoint")
            average = torch.load(tmp_path / "checkpoint", weights_only=True)
    for name, value in whole.items():
        torch.testing.assert_close(average[name], value, rtol=0, atol=0)
