"""A budget in place of a ratio: met exactly where the method can, else from below; refused outside of its limits."""

import math
from pathlib import Path
from typing import Any

import pytest

import compressnet
from compressnet.errors import RecipeError
from compressnet.methods import METHODS
from compressnet.plan import PlannedLayer, make_plan
from compressnet.recipe import read_recipe

SHAPES = {"conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)}
SIZED = [method.name for method in METHODS if "ratio" in method.Config.sizes]
EXACT = ("freshnet", "hashednet", "dropfreq")


def plan_of(name: str, **rule: Any) -> PlannedLayer:
    draft = read_recipe({"model": {"name": "lenet5"}, "layers": [{"match": name, **rule}]})
    return next(layer for layer in make_plan(draft).layers if layer.method)


def refusal(name: str, **rule: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        plan_of(name, **rule)
    return str(caught.value)


def test_every_method_with_a_ratio_has_budgets() -> None:
    assert {"freshnet", "hashednet", "lowrank", "dropfreq", "dropfilt"} <= set(SIZED)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("numel", [9, 557, 1562, 4999])
def test_numbers_are_met_exactly_where_single_numbers_are_stored(method: str, name: str, numel: int) -> None:
    assert plan_of(name, method=method, numel=numel).numel() == numel


# what a method stores in steps of: numbers of a rank, or of a filter, beside a bitmap of the filters
@pytest.mark.parametrize("numel", [1600, 2000, 4400, 4990])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("method", ["lowrank", "dropfilt"])
def test_numbers_are_met_from_below_as_near_as_the_method_can(method: str, name: str, numel: int) -> None:
    outs, ins = SHAPES[name][0], math.prod(SHAPES[name][1:])
    step, rest = (outs + ins, 0) if method == "lowrank" else (ins, -(-outs // 8))
    stored = plan_of(name, method=method, numel=numel).numel()
    assert stored == rest + (numel - rest) // step * step


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("float16", 2), ("bfloat16", 2)])
@pytest.mark.parametrize("method", SIZED)
def test_bytes_are_those_of_an_exported_file_that_is_not_coded(
    method: str, dtype: str, width: int, tmp_path: Path
) -> None:
    recipe = {
        "model": {"name": "lenet5"},
        "layers": [{"match": "conv2", "method": method, "nbytes": 9000}],
        "export": {"dtype": dtype, "coder": "none"},
    }
    compressnet.convert(recipe, tmp_path / "c.safetensors")
    compressnet.export(tmp_path / "c.safetensors", tmp_path / "e.safetensors")
    (row,) = [row for row in compressnet.report(tmp_path / "e.safetensors")[0].rows if row.name == "conv2"]
    step = {"lowrank": 550 * width, "dropfilt": 500 * width}.get(method, width)
    assert row.nbytes is not None
    assert 9000 - step < row.nbytes <= 9000


def test_every_layer_of_a_rule_has_the_budget_by_itself() -> None:
    rule = {"match": "fc?", "method": "hashednet", "numel": 1000}
    plan = make_plan(read_recipe({"model": {"name": "lenet5"}, "layers": [rule]}))
    assert [layer.numel() for layer in plan.layers if layer.method] == [1000, 1000]


def test_a_ratio_that_meets_it_travels_in_its_shortest_form() -> None:
    assert plan_of("conv2", method="freshnet", numel=25_000 // 16).config["ratio"] == 16
    assert plan_of("conv2", method="hashednet", nbytes=50_000).config["ratio"] == 1


@pytest.mark.parametrize(
    ("name", "rule", "limits"),
    [
        ("conv2", {"method": "freshnet", "numel": 8}, "numel 8 is not within the 9 to 25,000"),
        ("conv2", {"method": "freshnet", "numel": 25_001}, "numel 25,001 is not within the 9 to 25,000"),
        ("fc1", {"method": "freshnet", "numel": 400_001}, "is not within the 1 to 400,000"),
        ("fc1", {"method": "lowrank", "numel": 1299}, "numel 1,299 is not within the 1,300 to 399,100"),
        ("conv2", {"method": "dropfilt", "numel": 506}, "numel 506 is not within the 507 to 24,507"),
        ("conv2", {"method": "dropfreq", "nbytes": 1}, "as float16, nbytes 1 is not within the 2 to 49,998"),
    ],
)
def test_a_budget_outside_of_what_the_method_can_is_refused_with_the_limits(
    name: str, rule: dict[str, Any], limits: str
) -> None:
    text = refusal(name, **rule)
    assert f"layers[0].method: {rule['method']} cannot hold {name} {SHAPES[name]}: " in text
    assert limits in text


def test_a_layer_that_no_ratio_makes_smaller_is_refused() -> None:
    draft = {
        "model": {"name": "lenet5", "num_classes": 1},
        "layers": [{"match": "fc2", "method": "lowrank", "numel": 9}],
    }
    with pytest.raises(RecipeError, match=r"cannot hold fc2 \(1, 500\): no ratio would store fewer numbers"):
        make_plan(read_recipe(draft))
