"""What each parameter learns by: the optimiser's groups, against updates written out by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressnet.layers import CompressedLinear
from compressnet.plan import PlannedLayer
from compressnet.recipe import TrainSection
from compressnet.training.schedule import make_optimizer

LR, DECAY = 0.1, 0.5


def model_of(**rule: Any) -> tuple[nn.Sequential, PlannedLayer]:
    """A layer that is held as ACDC, and a dense one."""
    torch.manual_seed(0)
    layer = PlannedLayer("0", "linear", (8, 8), method="acdc", config={"depth": 2}, seed=1, **rule)
    return nn.Sequential(CompressedLinear(layer.build(), torch.ones(8)), nn.Linear(8, 4)), layer


def moved(**rule: Any) -> dict[str, Tensor]:
    """How far a step of plain gradient descent moves each parameter, by a gradient of 1 everywhere."""
    model, layer = model_of(**rule)
    settings = TrainSection(lr=LR, optimizer="sgd", momentum=0, weight_decay=DECAY)
    optimizer = make_optimizer(model, settings, [layer])
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    after = dict(model.named_parameters())
    return {name: (before[name] - after[name].detach()) for name in before} | {"held": before["0.structured.spatial"]}


@pytest.mark.parametrize(
    ("rule", "spatial", "spectral", "decay"),
    [
        ({}, 1, 1, DECAY),
        ({"lr_scale": 3.0}, 3, 3, DECAY),
        ({"lr_scale": {"spatial": 24.0, "spectral": 12.0}, "weight_decay": 0.0}, 24, 12, 0),
        ({"lr_scale": {"spectral": 0.0}, "weight_decay": 0.25}, 1, 0, 0.25),
    ],
)
def test_what_is_stored_for_a_weight_moves_by_the_rates_of_its_rule(
    rule: dict[str, Any], spatial: float, spectral: float, decay: float
) -> None:
    steps = moved(**rule)
    torch.testing.assert_close(steps["0.structured.spatial"], LR * spatial * (1 + decay * steps["held"]))
    assert (steps["0.structured.spectral"] == 0).all() == (spectral == 0)
    ratio = steps["0.structured.spectral"].mean() / steps["0.structured.spatial"].mean()
    assert ratio.item() == pytest.approx(spectral / spatial, rel=0.1)


def test_biases_and_other_layers_are_left_alone_by_a_rule() -> None:
    usual, ruled = moved(), moved(lr_scale=7.0, weight_decay=0.0)
    torch.testing.assert_close(ruled["0.bias"], torch.full((8,), LR))
    assert all(torch.equal(usual[name], ruled[name]) for name in ("0.bias", "1.weight", "1.bias"))


def test_every_parameter_is_in_one_group() -> None:
    model, layer = model_of(lr_scale={"spatial": 2.0}, weight_decay=0.1)
    optimizer = make_optimizer(model, TrainSection(weight_decay=DECAY), [layer])
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(grouped) == len({id(parameter) for parameter in grouped}) == len(list(model.parameters()))
    assert {(group["lr_scale"], group["weight_decay"]) for group in optimizer.param_groups} == {
        (1, DECAY),
        (1, 0),
        (2, 0.1),
        (1, 0.1),
    }
