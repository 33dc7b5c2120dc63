from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from compressnet.errors import PlanError, RecipeError
from compressnet.plan import Plan, PlannedBlock, make_plan
from compressnet.plan.price import price
from compressnet.plan.runs import find_run, matching
from compressnet.recipe import read_recipe

HEAD: dict[str, Any] = {"match": "classifier.[1-6]", "block": "deepfried_head", "features": 16384}
SMALL: dict[str, Any] = {"match": ["fc1", "relu3", "fc2"], "block": "deepfried_head", "features": 2048}


def planned(name: str, *layers: dict[str, Any]) -> Plan:
    return make_plan(read_recipe({"model": {"name": name}, "layers": list(layers)}))


def mistakes(name: str, *layers: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        planned(name, *layers)
    return str(caught.value)


@pytest.mark.parametrize(
    "match",
    [
        [f"classifier.{n}" for n in range(1, 7)],
        [f"classifier.{n}" for n in range(6, 0, -1)],
        "classifier.[1-6]",
        "classifier.*",
        ["classifier.1", "classifier.[2-4]"],
    ],
)
def test_the_papers_head_stands_for_fc6_and_fc7_of_alexnet(match: Any) -> None:
    plan = planned("alexnet", {**HEAD, "match": match})
    (block,) = plan.blocks
    assert block.run == tuple(f"classifier.{n}" for n in range(1, 6))
    assert (block.name, block.head, block.shape) == ("classifier.1", "classifier.6", (16384, 9216))
    assert block.dense_numel == 4096 * 9216 + 4096 + 4096 * 4096 + 4096
    head = plan.layers[-1]
    assert (head.name, head.shape, head.dense_shape) == ("classifier.6", (1000, 16384), (1000, 4096))
    assert not {"classifier.1", "classifier.4"} & {layer.name for layer in plan.layers}


def test_the_price_adds_up_to_the_papers_figures() -> None:
    account = price(planned("alexnet", {**HEAD, "bias": False}), "recipe")
    rows = {row.name: row for row in account.rows}
    assert list(rows)[-3:-1] == ["classifier.1", "classifier.6"]
    assert account.dense_numel == 61_100_840
    assert rows["classifier.1"].numel == 2 * 16384 + 9216
    assert rows["classifier.6"].numel == 16_384_000
    assert 3 * 16_384 + rows["classifier.6"].numel == 16_433_152  # the paper's 16.4 M, B padded to a power of two
    assert account.numel == 61_100_840 - 54_534_144 - 4_096_000 + 41_984 + 16_384_000
    assert account.dense_macs is not None
    assert account.macs is not None
    assert rows["classifier.6"].macs == 16_384_000
    transforms = 9216 * (16 + 32 + 32), 16384 * (16 + 32 + 32)  # of the first, the columns that are used
    saved = 54_525_952 + 4_096_000 - 16_384_000 - (sum(transforms) + 2 * 16384 + 9216)
    assert account.dense_macs - account.macs == saved


@pytest.mark.parametrize("order", [1, -1])
def test_the_layer_behind_a_block_may_be_compressed_by_a_rule_before_or_after(order: int) -> None:
    rules = [HEAD, {"match": "classifier.*", "method": "hashednet", "ratio": 8}]
    plan = planned("alexnet", *rules[::order])
    head = plan.layers[-1]
    assert (head.method, head.shape, head.numel()) == ("hashednet", (1000, 16384), 2_048_000)
    assert head.dense_macs == 4_096_000
    assert head.macs == 16_384_000
    assert plan.numel == price(plan, "recipe").numel


def test_a_product_behind_a_block_costs_what_it_costs_on_the_features() -> None:
    plan = planned("alexnet", HEAD, {"match": "classifier.6", "method": "lowrank", "rank": 10})
    assert plan.layers[-1].macs == 10 * (16384 + 1000)


def test_what_stands_in_a_plan_travels_as_json() -> None:
    (block,) = planned("lenet5", SMALL).blocks
    assert PlannedBlock.from_json(block.to_json(), "file") == block


def test_a_block_with_the_next_linear_layer_behind_it() -> None:
    plan = planned("vgg11", {"match": "classifier.0", "block": "acdc_stack", "depth": 2})
    (block,) = plan.blocks
    assert block.run == ("classifier.0", "classifier.1", "classifier.2")
    assert block.head == "classifier.3"
    assert [layer.shape for layer in plan.layers[-2:]] == [(4096, 25088), (1000, 4096)]


@pytest.mark.parametrize(
    ("name", "rules", "expected"),
    [
        (
            "alexnet",
            [{**HEAD, "match": ["classifier.1", "classifier.4"]}],
            "layers[0].match: its layers are not consecutive: classifier.2, classifier.3 between them",
        ),
        ("alexnet", [{**HEAD, "match": "clasifier.1"}], "'clasifier.1' matches no layer; did you mean 'classifier.1'?"),
        ("alexnet", [{**HEAD, "match": []}], "layers[0].match: it names no layer"),
        ("alexnet", [{**HEAD, "match": ""}], "are not children of one nn.Sequential"),
        ("alexnet", [{**HEAD, "match": "features.0"}], "features.0 is Conv2d; a block stands for Linear, ReLU and"),
        ("alexnet", [{**HEAD, "match": "classifier.2"}], "there is no linear layer among them"),
        ("alexnet", [{**HEAD, "match": "classifier.6"}], "no linear layer follows classifier.6"),
        (
            "alexnet",
            [{**HEAD, "match": ["features.12", "classifier.0"]}],
            "features.12, classifier.0 are not children of one nn.Sequential",
        ),
        (
            "alexnet",
            [{**HEAD, "features": 20000}],
            "layers[0].features: deepfried_head cannot take it: features 20,000 is no multiple of 16,384",
        ),
        ("googlenet", [{**HEAD, "match": "fc"}], "fc is no child of an nn.Sequential; GoogLeNet runs its children"),
        (
            "squeezenet1_1",
            [{**HEAD, "match": ["features.3.expand1x1", "features.3.expand3x3"]}],
            "features.3.expand1x1 is no child of an nn.Sequential; Fire runs its children in its own way",
        ),
        (
            "squeezenet1_1",
            [{**HEAD, "match": ["features.3.expand1x1", "features.4.expand1x1"]}],
            "are not children of one nn.Sequential; a block crosses no branch",
        ),
        ("mobilenet_v3_small", [{**HEAD, "match": "classifier.*"}], "classifier.1 is Hardswish; a block stands for"),
        ("alexnet", [HEAD, {**HEAD, "match": "classifier.4"}], "layers[1].match: classifier.4 belongs to an earlier"),
        ("vgg11", [{**HEAD, "match": "classifier.3", "features": 4096}, {**HEAD, "match": "classifier.0"}],
         "layers[1].match: classifier.3 belongs to an earlier block"),
        (
            "alexnet",
            [HEAD, {"match": "classifier.4", "method": "deepfried"}],
            "layers[1].match: a block stands for every layer it matches",
        ),
        (
            "alexnet",
            [{**HEAD, "features": 100}, {"match": "conv", "method": "freshnet", "ratio": 2}],
            "recipe has 2 mistakes",
        ),
        (
            "alexnet",
            [{**HEAD, "match": "classifier.2"}, {"match": "features.0", "method": "freshnet", "ration": 2}],
            "layers[0].match: there is no linear layer among them",
        ),
    ],
)  # fmt: skip
def test_a_block_that_cannot_be_placed_is_a_mistake(name: str, rules: list[dict[str, Any]], expected: str) -> None:
    assert expected in mistakes(name, *rules)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            {**SMALL, "block": "deepfried_haed"},
            "layers[0].block: unknown block 'deepfried_haed'; did you mean 'deep",
        ),
        ({**SMALL, "feature": 3}, "layers[0].feature: unknown key; did you mean 'features'?"),
        ({**SMALL, "features": 0}, "layers[0].features: should be greater than or equal to 1, not 0"),
        ({**SMALL, "match": {"type": "linear"}}, "layers[0].match: expected the names of consecutive layers"),
        ({**SMALL, "method": "freshnet"}, "layers[0].method: a rule has a method or a block, not both"),
        ({**SMALL, "block": "deepfried"}, "unknown block 'deepfried'; it is a method: write 'method: deepfried'"),
        ({"match": "fc1", "method": "acdc_stack"}, "it is a block: write 'block: acdc_stack'"),
        ({"match": "fc1", "block": "deepfried_head"}, "layers[0].features: the key is missing"),
        ({"match": "fc1", "block": "acdc_stack", "depth": 0}, "layers[0].depth: should be greater than or equal to 1"),
    ],
)
def test_a_rule_of_a_block_is_checked_as_closely_as_one_of_a_method(rule: dict[str, Any], expected: str) -> None:
    assert expected in mistakes("lenet5", rule)


def net(*children: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict((f"at{place}", child) for place, child in enumerate(children)))


def test_a_run_without_another_linear_layer_behind_ends_before_its_own_last() -> None:
    model = net(nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3), nn.LogSoftmax(1))
    run = find_run(model, matching(model, ["at[1-3]"]))
    assert (run.names, run.head, run.ins, run.dense_numel) == (("at1", "at2"), "at3", 8, 8 * 6 + 6)


def test_layers_that_do_not_fit_each_other_or_are_used_twice_are_no_run() -> None:
    shared = nn.Linear(6, 6)
    with pytest.raises(PlanError, match="at1 takes 5 inputs, and at0 gives 6"):
        find_run(net(nn.Linear(8, 6), nn.Linear(5, 3)), ["at0"])
    with pytest.raises(PlanError, match="at0 is shared by several places"):
        find_run(net(shared, nn.ReLU(), shared, nn.Linear(6, 2)), ["at0", "at1", "at2"])


class Skipping(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


def test_a_sequential_with_a_forward_of_its_own_is_none() -> None:
    with pytest.raises(PlanError, match="Skipping runs its children in its own way"):
        find_run(Skipping(nn.Linear(6, 6), nn.Linear(6, 6)), ["0"])
