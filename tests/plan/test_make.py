import json
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from compressnet.data.datasets import DATASETS, open_part
from compressnet.errors import DataError, FileError, RecipeError
from compressnet.plan import Plan, PlannedLayer, make_plan
from compressnet.plan.price import price
from compressnet.recipe import DataSection, read_recipe
from compressnet.recipe.schema import ROOTLESS

FAKE = {"dataset": "fake"}


def planned(name: str, layers: list[dict[str, Any]], **model: Any) -> Plan:
    recipe = {"model": {"name": name, **model}, "data": FAKE, "layers": layers}
    return make_plan(read_recipe(recipe))


def fates(plan: Plan) -> dict[str, str | None]:
    return {layer.name: layer.method or layer.remark for layer in plan.layers}


def mistakes(recipe: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        make_plan(read_recipe(recipe))
    return str(caught.value)


def test_the_first_rule_that_matches_wins_and_the_rest_stays_dense() -> None:
    plan = planned(
        "resnet18",
        [
            {"match": "layer1.0.conv1", "method": "hashednet", "ratio": 2},
            {"match": "layer1.*", "method": "freshnet", "ratio": 4},
        ],
    )
    fate = fates(plan)
    assert fate["layer1.0.conv1"] == "hashednet"
    assert fate["layer1.0.conv2"] == "freshnet"
    assert fate["layer2.0.conv1"] == "no rule matches it"


def test_a_glob_does_not_reach_into_names_that_only_begin_alike() -> None:
    plan = planned("densenet121", [{"match": "features.denseblock1.denselayer1.*", "method": "hashednet", "ratio": 2}])
    assert {name for name, fate in fates(plan).items() if fate == "hashednet"} == {
        "features.denseblock1.denselayer1.conv1",
        "features.denseblock1.denselayer1.conv2",
    }


def test_layers_are_matched_by_what_they_are() -> None:
    plan = planned(
        "squeezenet1_1",
        [{"match": {"type": "conv2d", "kernel": [3, 3], "min_numel": 2000}, "method": "freshnet", "ratio": 2}],
    )
    taken = [layer for layer in plan.layers if layer.method]
    assert len(taken) == 8
    assert all(layer.shape[2:] == (3, 3) for layer in taken)


def test_grouped_convolutions_are_left_alone_unless_asked_for() -> None:
    rule = {"match": "features.1.*", "method": "freshnet", "ratio": 2}
    assert "32 groups" in str(fates(planned("mobilenet_v2", [rule]))["features.1.conv.0.0"])
    assert fates(planned("mobilenet_v2", [{**rule, "grouped": True}]))["features.1.conv.0.0"] == "freshnet"
    exact = {**rule, "match": "features.1.conv.0.0"}
    assert fates(planned("mobilenet_v2", [exact]))["features.1.conv.0.0"] == "freshnet"


@pytest.mark.parametrize(("name", "head"), [("googlenet", "aux1.fc1"), ("inception_v3", "AuxLogits.fc")])
def test_auxiliary_heads_earn_no_credit(name: str, head: str) -> None:
    plan = planned(name, [{"match": "*", "method": "freshnet", "ratio": 2}])
    assert fates(plan)[head] == "never runs in evaluation"
    assert plan.auxiliary_numel > 100_000
    account = price(plan, "recipe")
    assert [row.dense_numel for row in account.rows if row.name == "auxiliary heads"] == [0]


def test_the_projections_of_attention_are_layers_by_name_and_by_type() -> None:
    plan = planned(
        "vit_b_16",
        [
            {"match": {"type": "attention"}, "method": "lowrank", "rank": 8},
            {"match": "encoder.layers.*", "method": "hashednet", "ratio": 2},
        ],
    )
    block = "encoder.layers.encoder_layer_0"
    assert {name.removeprefix(block): fate for name, fate in fates(plan).items() if name.startswith(block + ".")} == {
        ".self_attention.in_proj": "lowrank",
        ".self_attention.out_proj": "hashednet",
        ".mlp.0": "hashednet",
        ".mlp.3": "hashednet",
    }
    joint = next(layer for layer in plan.layers if layer.kind == "attention")
    assert joint.dense_macs == 197 * 3 * 768 * 768
    assert joint.macs == 197 * 8 * (768 + 3 * 768)


def test_swin_passes_its_attention_weights_on_and_still_counts_them() -> None:
    plan = planned("swin_t", [{"match": "*.attn.qkv", "method": "hashednet", "ratio": 2}])
    qkv = next(layer for layer in plan.layers if layer.name.endswith("attn.qkv"))
    assert qkv.method == "hashednet"
    assert qkv.macs is not None
    assert qkv.macs > 0


# weight products alone, in millions of multiply–accumulates at 224 pixels, as torchvision's weights state for all
@pytest.mark.parametrize(
    ("name", "giga"), [("alexnet", 0.714), ("resnet18", 1.814), ("resnet50", 4.089), ("vgg16", 15.470)]
)
def test_dense_macs_are_those_torchvision_states(name: str, giga: float) -> None:
    macs = price(planned(name, []), "recipe").dense_macs
    assert macs is not None
    assert macs / 1e9 == pytest.approx(giga, abs=0.001)


def test_what_runs_as_a_product_costs_what_the_product_costs() -> None:
    plan = planned("alexnet", [{"match": "classifier.4", "method": "deepfried"}])
    layer = next(layer for layer in plan.layers if layer.method)
    assert layer.dense_macs == 4096 * 4096
    assert layer.macs == 4096 * (2 * (16 + 16 + 16) + 3)


@pytest.mark.parametrize(
    ("keys", "per_position"),
    [
        ({"method": "deepfried"}, 256 * 256 * 9),  # made dense
        ({"method": "acdc"}, 256 * 256 * 9),
        ({"method": "lowrank", "rank": 10}, 10 * (256 + 256 * 9)),
        ({"method": "lowrank", "rank": 10, "scheme": "separable"}, 10 * (256 * 3 + 256 * 3)),
    ],
    ids=str,
)
def test_a_convolution_costs_what_it_runs_as(keys: dict[str, object], per_position: int) -> None:
    plan = planned("resnet18", [{"match": "layer3.1.conv1", **keys}])
    assert [layer.macs for layer in plan.layers if layer.method] == [14 * 14 * per_position]


@pytest.mark.parametrize("keys", [{"method": "deepfried"}, {"method": "lowrank", "rank": 2}], ids=str)
def test_a_grouped_convolution_is_made_dense_to_run_and_costs_as_much(keys: dict[str, object]) -> None:
    plan = planned("resnext50_32x4d", [{"match": "layer4.2.conv2", **keys}])
    layer = next(layer for layer in plan.layers if layer.method)
    assert layer.groups == 32
    assert layer.macs == layer.dense_macs


def test_every_number_of_the_dense_model_is_counted_once() -> None:
    account = price(planned("resnet18", [{"match": "layer4.*", "method": "freshnet", "ratio": 16}]), "recipe")
    buffers = 2 * 4800 + 20
    assert account.dense_numel == 11_689_512 + buffers
    assert account.numel < account.dense_numel


def test_each_layer_has_its_own_seed_and_the_recipes_seed_changes_them() -> None:
    rule = [{"match": "layer1.*", "method": "freshnet", "ratio": 4}]
    first = planned("resnet18", rule)
    seeds = [layer.seed for layer in first.layers if layer.method]
    assert len(set(seeds)) == len(seeds)
    other = make_plan(read_recipe(first.recipe, ["seed=1"]))
    assert not set(seeds) & {layer.seed for layer in other.layers if layer.method}


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ({"method": "hashednet", "ratio": 2}, {}),
        ({"method": "hashednet", "ratio": 2, "lr_scale": 0.5}, {"lr_scale": 0.5}),
        ({"method": "hashednet", "ratio": 2, "weight_decay": 0.1}, {"weight_decay": 0.1}),
        ({"method": "acdc"}, {"weight_decay": 0.0}),
        ({"method": "acdc", "weight_decay": 1e-6}, {"weight_decay": 1e-6}),
        (
            {"method": "acdc", "lr_scale": {"spatial": 24, "spectral": 12}},
            {"lr_scale": {"spatial": 24, "spectral": 12}, "weight_decay": 0.0},
        ),
    ],
)
def test_how_a_layer_learns_travels_with_it(rule: dict[str, Any], kept: dict[str, Any]) -> None:
    layer = next(layer for layer in planned("lenet5", [{"match": "fc1", **rule}]).layers if layer.method)
    item = json.loads(json.dumps(layer.to_json()))
    assert {key: item[key] for key in ("lr_scale", "weight_decay") if key in item} == kept
    assert PlannedLayer.from_json(item, "file") == layer


@pytest.mark.parametrize(
    "damage", [{"lr_scale": -1}, {"lr_scale": "fast"}, {"lr_scale": {"spatial": None}}, {"weight_decay": -0.1}]
)
def test_a_damaged_plan_of_how_a_layer_learns_is_refused(damage: dict[str, Any]) -> None:
    layer = next(layer for layer in planned("lenet5", [{"match": "fc1", "method": "acdc"}]).layers if layer.method)
    with pytest.raises(FileError, match="its plan of fc1 is damaged"):
        PlannedLayer.from_json(layer.to_json() | damage, "file")


def test_every_mistake_is_named_at_once() -> None:
    text = mistakes(
        {
            "model": {"name": "resnet18"},
            "layers": [
                {"match": "layer1.*", "method": "freshnet", "ration": 16},
                {"match": "*", "method": "freshent", "ratio": 2},
                {"match": "layer9.*", "method": "freshnet", "ratio": 2},
            ],
        }
    )
    assert "3 mistakes" in text
    assert "layers[0].ration: unknown key; did you mean 'ratio'?" in text
    assert "layers[1].method: unknown method 'freshent'; did you mean 'freshnet'?" in text
    assert "layers[2].match: 'layer9.*' matches no layer of resnet18" in text


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (
            [{"match": "features.*", "method": "deepfried", "copies": 50}],
            "deepfried cannot hold features.0 (64, 3, 11, 11)",
        ),
        ([{"match": ["classifier.1", "clasifier.4"], "method": "deepfried"}], "did you mean 'classifier.4'"),
        ([{"match": {"kernel": [7, 7]}, "method": "freshnet", "ratio": 2}], "matches no layer of alexnet"),
        (
            [
                {"match": "*", "method": "freshnet", "ratio": 2},
                {"match": "features.0", "method": "freshnet", "ratio": 2},
            ],
            "taken by an earlier rule",
        ),
        ([{"match": "features.1", "method": "freshnet", "ratio": 2}], "'features.1' matches no layer"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_a_mistake(layers: list[dict[str, Any]], expected: str) -> None:
    assert expected in mistakes({"model": {"name": "alexnet"}, "layers": layers})


def test_a_rule_that_matches_only_what_stays_dense_says_why() -> None:
    rule = {"match": "AuxLogits.*", "method": "hashednet", "ratio": 2}
    text = mistakes({"model": {"name": "inception_v3"}, "data": {**FAKE, "image_size": 299}, "layers": [rule]})
    assert "stays dense: never runs in evaluation" in text


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"name": "resnet81"}, "unknown model 'resnet81'; did you mean 'resnet18'?"),
        ({"name": "alexnet", "weights": "IMAGENET1K_V9"}, "did you mean 'IMAGENET1K_V1'?"),
        ({"name": "alexnet", "weights": "nowhere/alexnet.pth"}, "nowhere/alexnet.pth"),
        ({"name": "alexnet", "num_classes": 0}, "model.num_classes"),
        ({}, "model.name: the key is missing"),
    ],
)
def test_a_model_that_is_not_there_is_a_mistake(model: dict[str, Any], expected: str) -> None:
    assert expected in mistakes({"model": model, "layers": []})


@pytest.mark.parametrize("key", ["image_size", "crop", "resize"])
def test_images_the_model_cannot_take_are_a_mistake_of_the_key_that_says_their_size(key: str) -> None:
    recipe = {"model": {"name": "alexnet"}, "data": {"dataset": "fake", key: 16}, "layers": []}
    assert f"data.{key}: alexnet cannot take images of 16×16" in mistakes(recipe)


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_data_set_that_needs_a_folder_is_to_name_it_where_layers_are_calibrated(dataset: str) -> None:
    recipe: dict[str, Any] = {
        "model": {"name": "alexnet", "weights": "IMAGENET1K_V1"},
        "data": {"dataset": dataset},
        "layers": [{"match": "classifier.1", "method": "deepfried"}],
    }
    section, rooted = DataSection(dataset=dataset), dataset not in ROOTLESS
    with pytest.raises(DataError, match=r"data\.root is missing") if rooted else nullcontext():
        open_part(section, "train", lambda image: torch.zeros(1), 0)
    text = f"data.root: the key is missing: {dataset} is read from a folder"
    with pytest.raises(RecipeError, match=text) if rooted else nullcontext():
        make_plan(read_recipe(recipe))
    make_plan(read_recipe(recipe | {"calibration": None}))
    make_plan(read_recipe(recipe | {"model": {"name": "alexnet"}}))
    make_plan(read_recipe(recipe | {"layers": []}))


def test_torchvisions_weights_bring_their_preprocessing_and_classes() -> None:
    plan = make_plan(read_recipe({"model": {"name": "resnet50", "weights": "IMAGENET1K_V2"}}))
    assert plan.preprocessing is not None
    assert (plan.preprocessing.resize, plan.preprocessing.crop) == (232, 224)
    assert plan.classes is not None
    assert plan.classes[0] == "tench"
