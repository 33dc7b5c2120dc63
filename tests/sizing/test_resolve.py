"""What resolving foresees is what happens."""

from typing import Any

import pytest
import torch
from torch import nn

from compressnet.allocation.sensitivity import divergence
from compressnet.coding.quantisers import Uniform
from compressnet.plan import PlannedLayer, make_plan
from compressnet.plan.layers import CHOSEN
from compressnet.pretrained import dense_model
from compressnet.recipe import read_recipe
from compressnet.rewrite import place_
from compressnet.sizing.options import STEPS
from compressnet.sizing.resolve import _curve, _Judge, resolve
from compressnet.sizing.views import views

IMAGES = torch.randn(32, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def prepared(*rules: dict[str, Any], budget: str = "40kB") -> Any:
    """A plan, and a dense LeNet-5 whose answers differ."""
    plan = make_plan(read_recipe({"model": {"name": "lenet5"}, "layers": list(rules), "budget": budget}))
    model = dense_model(plan)
    for name, parameter in model.named_parameters():
        parameter.data *= 2.5 if name.endswith("weight") else 1
    return plan, model


def answers(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IMAGES)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["conv2", "fc1", "fc2"])
@pytest.mark.parametrize("place", [1, 3, 5])
def test_the_loss_of_a_step_is_near_the_divergence_that_it_makes(name: str, place: int) -> None:
    plan, model = prepared({"match": name, "method": "hashednet", "ratio": 1})
    layer: PlannedLayer = next(layer for layer in plan.layers if layer.name == name)
    with torch.no_grad():
        seen, judge = views(model, [layer], IMAGES)[name], _Judge(model, IMAGES)
        option = _curve(plan, layer, model, seen, judge)[place]
        before, weight = answers(model), model.get_parameter(layer.parameter)
        weight.copy_(Uniform(STEPS[place] * weight.std(correction=0).item())(weight))
    found = divergence(before, answers(model))
    assert found / 3 < option.loss < 3 * found


@pytest.mark.parametrize("images", [IMAGES, None], ids=["images", "weights"])
def test_the_bytes_of_the_estimates_are_within_the_budget_and_near_it(images: torch.Tensor | None) -> None:
    plan, model = prepared({"match": "fc?", "method": "hashednet", "min_ratio": 2, "max_ratio": 32}, budget="60kB")
    sized = resolve(plan, model, images)
    assert 0.8 * 60_000 < sized.nbytes <= 60_001
    assert sum(each.share for each in sized.estimates.values()) == pytest.approx(1)


@pytest.mark.parametrize(("least", "method"), [(1, None), (1.2, "hashednet")])
def test_a_layer_stays_dense_where_there_is_room_and_its_rule_lets_it(least: float, method: str | None) -> None:
    rules = [
        {"match": "conv2", "method": "hashednet", "min_ratio": least},
        {"match": "fc1", "method": "hashednet", "min_ratio": 50},
    ]
    plan, model = prepared(*rules, budget="80kB")
    conv2, fc1 = resolve(plan, model, IMAGES).plan.layers[1:3]
    assert (conv2.method, fc1.method) == (method, "hashednet")
    assert conv2.bits is not None
    assert conv2.numel() <= conv2.dense_numel
    assert conv2.remark != CHOSEN
    assert [each.method for each in make_plan(read_recipe(plan.recipe)).layers] == [
        None,
        "hashednet",
        "hashednet",
        None,
    ]


def test_blocks_and_what_is_slow_to_fit_keep_their_size() -> None:
    rules = [{"match": "conv2", "method": "deepfried"}, {"match": ["fc1", "relu3"], "block": "acdc_stack", "depth": 2}]
    plan, model = prepared(*rules, {"match": "fc2", "method": "hashednet"}, budget="12kB")
    for block in plan.blocks:
        place_(model, block)
    sized = resolve(plan, model, None)
    assert sized.estimates["conv2"].nbytes == plan.layers[1].numel()
    assert sized.estimates["fc1"].nbytes == plan.blocks[0].numel()
    assert sized.nbytes <= 12_000
