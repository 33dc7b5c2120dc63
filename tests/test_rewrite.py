import copy
from typing import Any

import pytest
import torch
from torch import nn

from compressnet.layers import CompressedConv2d, CompressedLinear
from compressnet.plan import PlannedLayer, candidates, plan_layers
from compressnet.recipe import read_recipe
from compressnet.rewrite import project_, relative_error, rewrite_


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 32, 1, stride=2), nn.Flatten(), nn.Linear(32 * 16, 40)
    ).eval()


def planned(module: nn.Module, *rules: dict[str, Any]) -> tuple[PlannedLayer, ...]:
    return plan_layers(read_recipe({"layers": list(rules)}), candidates(module))


RULES: list[dict[str, Any]] = [
    {"match": "0", "method": "freshnet", "ratio": 1},
    {"match": "2", "method": "hashednet", "ratio": 1},
]


def test_a_lossless_projection_keeps_the_output() -> None:
    dense = model()
    x = torch.randn(2, 3, 8, 8)
    expected = dense(x)
    compressed = copy.deepcopy(dense)
    errors = project_(compressed, planned(dense, *RULES))
    assert isinstance(compressed[0], CompressedConv2d)
    assert isinstance(compressed[2], CompressedConv2d)
    torch.testing.assert_close(compressed(x), expected, rtol=1e-4, atol=1e-5)
    assert max(error for error, _ in errors.values()) < 1e-5


def test_rewriting_on_meta_computes_nothing_and_gives_the_shapes() -> None:
    dense = model()
    layers = planned(dense, {"match": "4", "method": "deepfried"})
    ghost = rewrite_(copy.deepcopy(dense).to("meta"), layers)
    assert isinstance(ghost[4], CompressedLinear)
    assert all(t.is_meta for t in ghost.state_dict().values())
    project_(dense, layers)
    shapes = {name: t.shape for name, t in dense.state_dict().items()}
    assert {name: t.shape for name, t in ghost.state_dict().items()} == shapes


def test_the_mode_of_a_layer_is_kept() -> None:
    dense = model().train()
    project_(dense, planned(dense, *RULES))
    assert dense[0].training


def test_the_error_of_a_convolution_that_sees_patches_is_that_of_its_weight() -> None:
    dense = nn.Sequential(nn.Conv2d(4, 32, 3, padding=1))
    layers = planned(dense, {"match": "0", "method": "lowrank", "rank": 6})
    weight = layers[0].build()
    errors = project_(copy.deepcopy(dense), layers)
    weight.project_(dense[0].weight.detach())
    expected = (weight.to_dense() - dense[0].weight).norm() / dense[0].weight.norm()
    torch.testing.assert_close(torch.tensor(errors["0"][0]), expected.detach())


def test_fitting_on_what_the_layer_sees_beats_fitting_on_noise() -> None:
    dense = model()
    (layer,) = [layer for layer in planned(dense, {"match": "4", "method": "deepfried"}) if layer.method]
    with torch.no_grad():
        inputs = dense[:4](torch.randn(200, 1, 1, 1) * torch.randn(1, 3, 8, 8))
    errors = []
    for given in (inputs, None):
        weight = layer.build()
        weight.project_(dense[4].weight.detach(), given)
        errors.append(relative_error(weight, dense[4].weight.detach(), inputs))
    assert errors[0] < errors[1]


def test_attention_is_listed_by_its_projections() -> None:
    found = candidates(nn.Sequential(nn.MultiheadAttention(8, 2)))
    assert [(layer.name, layer.kind, layer.remark) for layer in found] == [
        ("0.in_proj", "attention", None),
        ("0.out_proj", "linear", None),
    ]


class Lightly(nn.Linear):
    pass


def test_a_layer_of_its_own_type_stays_dense() -> None:
    (layer,) = candidates(nn.Sequential(Lightly(8, 8)))
    assert layer.remark == "of its own type, Lightly"


def test_a_layer_shared_by_several_places_stays_dense() -> None:
    shared = nn.Linear(8, 8)
    (layer,) = candidates(nn.Sequential(shared, nn.ReLU(), shared))
    assert layer.remark == "shared by several places"


@pytest.mark.parametrize("rule", [{"method": "freshnet", "ratio": 16}, {"method": "lowrank", "rank": 2}], ids=str)
def test_an_untrained_layer_keeps_the_norm_of_its_drawing(rule: dict[str, Any]) -> None:
    dense = model()
    compressed = copy.deepcopy(dense)
    project_(compressed, planned(dense, {"match": "0", **rule}), untrained=True)
    torch.testing.assert_close(compressed[0].weight.norm(), dense[0].weight.norm())


def test_without_tables_the_numbers_and_errors_are_the_same() -> None:
    dense, other = model(), model()
    rules = [{"match": "*", "method": "freshnet", "ratio": 4}]
    errors = project_(dense, planned(dense, *rules))
    assert project_(other, planned(other, *rules), tables=False) == errors
    tables = [table for name, table in other.named_buffers() if "structured" in name]
    assert tables
    assert all(table.is_meta for table in tables)
    for a, b in zip(dense.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
