"""The ratios that a budget may choose among, and which rule a planned layer was taken by."""

from typing import Any

import pytest

from compressnet.errors import RecipeError
from compressnet.plan import Plan, make_plan
from compressnet.plan.layers import CHOSEN
from compressnet.plan.ratios import LARGEST, ratios, rule_of, without_chosen_bits
from compressnet.recipe import read_recipe
from compressnet.recipe.rules import BudgetRule


def plan_of(*rules: dict[str, Any], model: str = "lenet5") -> Plan:
    return make_plan(read_recipe({"model": {"name": model}, "layers": list(rules), "budget": "20kB"}))


def ratios_of(name: str, **rule: Any) -> list[float]:
    plan = plan_of({"match": name, **rule})
    layer = next(layer for layer in plan.layers if layer.name == name)
    found = rule_of(plan.recipe, layer)
    assert isinstance(found, BudgetRule)
    assert layer.remark == CHOSEN
    tried = ratios(found, layer)
    assert layer.config["ratio"] == tried[0]
    return tried


@pytest.mark.parametrize("method", ["hashednet", "freshnet"])
def test_without_bounds_they_run_from_one_to_the_largest(method: str) -> None:
    tried = ratios_of("fc1", method=method)
    assert (tried[0], tried[-1]) == (1, LARGEST)
    assert tried == sorted(tried)


def test_bounds_are_among_them_and_nothing_beyond() -> None:
    tried = ratios_of("fc1", method="hashednet", min_ratio=2.5, max_ratio=10)
    assert tried == [2.5, 3, 4, 6, 8, 10]


def test_what_the_method_refuses_or_stores_alike_is_left_out() -> None:
    assert ratios_of("conv2", method="dropfilt", min_ratio=20)[-1] <= 64
    assert ratios_of("conv2", method="dropfilt")[0] > 1
    assert ratios_of("fc2", method="lowrank")[-1] <= 9  # of rank 1


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"method": "dropfilt", "max_ratio": 1}, "no ratio from 1 to 1 is possible: with its bitmap"),
        ({"method": "lowrank", "min_ratio": 500}, "no ratio from 500 to 500 is possible: ratio 500 leaves fewer"),
        ({"method": "hashednet", "min_ratio": 3, "max_ratio": 2}, "min_ratio 3 is above max_ratio 2"),
        ({"method": "hashednet", "ratio": 3, "max_ratio": 4}, "bound what a budget chooses; here ratio is given"),
        ({"method": "hashednet", "numel": 3, "min_ratio": 4}, "bound what a budget chooses; here numel is given"),
        ({"method": "pruned", "density": 0.1, "max_ratio": 4}, "max_ratio: unknown key; its size is set by 'density'"),
        ({"method": "hashednet", "ratio": 3, "numel": 4}, "exactly one of ratio, numel, nbytes is to be given, not"),
    ],
)
def test_rules_that_leave_nothing_to_choose_are_refused(rule: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        plan_of({"match": "fc1", **rule})


def test_without_a_budget_a_rule_says_its_ratio() -> None:
    rule = {"match": "fc1", "method": "hashednet"}
    with pytest.raises(RecipeError, match="exactly one of ratio, numel, nbytes is to be given, not none"):
        make_plan(read_recipe({"model": {"name": "lenet5"}, "layers": [rule], "budget": None}))


@pytest.mark.parametrize(
    ("budget", "nbytes"), [("500kB", 500_000), ("1.5MiB", 1_572_864), (4096, 4096), ("4096", 4096), ("8 KiB", 8192)]
)
def test_a_budget_has_units(budget: Any, nbytes: int) -> None:
    assert read_recipe({"model": {"name": "lenet5"}, "budget": budget}).checked().budget == nbytes


@pytest.mark.parametrize("budget", ["500 apples", "-3", "kB", "", 0, -1, 3.5, True, [1]])
def test_what_is_no_amount_is_a_mistake(budget: Any) -> None:
    with pytest.raises(RecipeError, match="budget: "):
        read_recipe({"model": {"name": "lenet5"}, "budget": budget}).checked()


def test_the_rule_of_a_layer_is_the_one_that_took_it() -> None:
    rules = [
        {"match": ["conv1", "fc2"], "method": "hashednet", "ratio": 2, "bits": 7},
        {"match": {"type": "linear"}, "method": "hashednet"},
        {"match": "*", "method": "freshnet", "ratio": 4, "bits": 3},
    ]
    plan = plan_of(*rules)
    numbers = [None if (rule := rule_of(plan.recipe, layer)) is None else rule.bits for layer in plan.layers]
    assert dict(zip([layer.name for layer in plan.layers], numbers, strict=True)) == {
        "conv1": 7, "conv2": 3, "fc1": None, "fc2": 7,
    }  # fmt: skip


def test_grouped_layers_are_taken_by_rules_that_say_so_or_name_them() -> None:
    rules = [
        {"match": "features.*", "method": "hashednet", "ratio": 2},
        {"match": "features.1.conv.0.0", "method": "hashednet", "ratio": 3},
        {"match": "*", "method": "hashednet", "ratio": 4, "grouped": True},
    ]
    plan = plan_of(*rules, model="mobilenet_v2")
    for layer in plan.layers:
        rule = rule_of(plan.recipe, layer)
        assert isinstance(rule, BudgetRule)
        assert rule.ratio == layer.config["ratio"]


def test_chosen_bits_are_forgotten_and_given_ones_kept() -> None:
    rules = [{"match": "conv2", "method": "hashednet", "bits": 5}, {"match": "fc1", "method": "hashednet"}]
    plan = plan_of(*rules)
    chosen = [layer.__class__(**{**layer.__dict__, "bits": layer.bits or 9}) for layer in plan.layers]
    assert [layer.bits for layer in without_chosen_bits(plan.recipe, chosen)] == [None, 5, None, None]
