# ruff: noqa: E501 - messages stand as a user sees them
from pathlib import Path
from typing import Any

import pytest

from compressnet.blocks import BY_NAME as BLOCKS
from compressnet.errors import RecipeError, listing
from compressnet.methods import BY_NAME
from compressnet.recipe import Recipe, read_recipe

GOOD = """\
model: {name: alexnet, weights: IMAGENET1K_V1, num_classes: 1000}
data: {dataset: imagefolder, root: path, image_size: 224, batch_size: 64, workers: 2}
layers:
  - {match: "features.*", method: freshnet, ratio: 16}
  - {match: [classifier.1, classifier.4], method: deepfried}
  - {match: {type: linear, min_numel: 10000}, method: hashednet, ratio: 8}
finetune: {epochs: 10, lr: 0.001}
export: {dtype: float16}
seed: 0
"""


def text_of(error: pytest.ExceptionInfo[RecipeError]) -> list[str]:
    return [line.strip() for line in str(error.value).splitlines()]


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "recipe.yaml").write_text(text)
    return tmp_path / "recipe.yaml"


def mistakes(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(RecipeError) as error:
        read_recipe(write(tmp_path, text)).checked()
    return text_of(error)[1:]


def test_a_recipe_of_the_documented_shape_is_read(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, GOOD)).checked()
    assert recipe.model is not None
    assert recipe.model.name == "alexnet"
    assert [rule.method for rule in recipe.rules] == ["freshnet", "deepfried", "hashednet"]
    assert recipe.rules[0].config.model_dump()["ratio"] == 16


def test_a_recipe_survives_the_way_through_json(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, GOOD)).checked()
    assert Recipe.model_validate(recipe.model_dump(mode="json", exclude_defaults=True)) == recipe
    assert read_recipe(recipe).checked() == recipe


def test_every_mistake_is_named_with_its_line(tmp_path: Path) -> None:
    text = GOOD.replace("num_classes", "num_clases").replace("ratio: 16", "ratio: 0.5").replace("lr: 0.001", "lr: fast")
    assert mistakes(tmp_path, text) == [
        "line 1  model.num_clases: unknown key; did you mean 'num_classes'?",
        "line 4  layers[0].ratio: should be greater than or equal to 1, not 0.5",
        "line 7  finetune.lr: should be a valid number, unable to parse string as a number, not 'fast'",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("seed: 0", "sead: 0", "line 9  sead: unknown key; did you mean 'seed'?"),
        ("seed: 0", "seed: 0\nseed: 1", "line 10  seed: given twice"),
        ("method: freshnet", "method: freshent", "line 4  layers[0].method: unknown method 'freshent'; did you mean 'freshnet'?"),
        ("method: freshnet, ", "", f"line 4  layers[0]: the key 'method' is missing; there are {listing(BY_NAME)}; or the key 'block'; there are {listing(BLOCKS)}"),
        ("ratio: 16", "ration: 16", "line 4  layers[0].ration: unknown key; did you mean 'ratio'?"),
        (", ratio: 16", "", "line 4  layers[0]: exactly one of ratio, numel, nbytes is to be given, not none"),
        ("method: freshnet", "method: lowrank, rank: 3", "line 4  layers[0]: exactly one of rank, ratio, numel, nbytes is to be given, not rank and ratio"),
        ("ratio: 16", "ratio: 16, nbytes: 9", "line 4  layers[0]: exactly one of ratio, numel, nbytes is to be given, not ratio and nbytes"),
        ("ratio: 16", "numel: 0", "line 4  layers[0].numel: should be greater than or equal to 1, not 0"),
        ("method: freshnet, ratio: 16", "method: monarch, numel: 9", "line 4  layers[0].numel: unknown key; its size is set by 'blocks'"),
        ("method: freshnet, ratio: 16", "method: deepfried, nbytes: 9", "line 4  layers[0].nbytes: unknown key; its size is set by 'copies'"),
        ("ratio: 16", "ratio: .nan", "line 4  layers[0].ratio: should be a finite number, not nan"),
        ("ratio: 16", "ratio: true", "line 4  layers[0].ratio: should be a valid number, not True"),
        ("ratio: 16", "ratio: 16, lr_scale: {buckets: yes}", "line 4  layers[0].lr_scale: should be a valid number, not {'buckets': True}"),
        ("batch_size: 64", "batch_size: true", "line 2  data.batch_size: should be a valid number, not True"),
        ("batch_size: 64", "batch_size: 64, mean: [0.5, false, 0.5]", "line 2  data.mean: should be a valid number, not [0.5, False, 0.5]"),
        ("type: linear", "kernel: [true, 3]", "line 6  layers[2].match.kernel: should be a valid number, not [True, 3]"),
        ("seed: 0", "seed: true", "line 9  seed: should be a valid number, not True"),
        ("ratio: 16", "ratio: sixteen", "line 4  layers[0].ratio: should be a valid number, unable to parse string as a number, not 'sixteen'"),
        ("dataset: imagefolder", "dataset: imagefold", "line 2  data.dataset: unknown value 'imagefold'; did you mean 'imagefolder'?"),
        ("dtype: float16", "dtype: floaty16", "line 8  export.dtype: unknown value 'floaty16'; did you mean 'float16'?"),
        ("type: linear", "typ: linear", "line 6  layers[2].match.typ: unknown key; did you mean 'type'?"),
        ("type: linear", "type: lstm", "line 6  layers[2].match.type: unknown value 'lstm'; there are conv2d, linear, attention"),
        ('match: "features.*"', "match: 3", "line 4  layers[0].match: expected a glob, a list of globs, or keys such as {type: conv2d, kernel: [3, 3]}, not 3"),
        ("name: alexnet, ", "", "line 1  model.name: the key is missing"),
        ("seed: 0", "pretrain: {save_every: 5 hours}", "line 9  pretrain.save_every: should be a number of steps, or of minutes such as 10min, not '5 hours'"),
        ("seed: 0", "pretrain: {save_every: 0}", "line 9  pretrain.save_every: should be a number of steps, or of minutes such as 10min, not 0"),
        ("seed: 0", "pretrain: {save_every: true}", "line 9  pretrain.save_every: should be a number of steps, or of minutes such as 10min, not True"),
        ("seed: 0", "pretrain: {ema: 1}", "line 9  pretrain.ema: should be less than 1, not 1"),
        ("seed: 0", "pretrain: {schedule: linear}", "line 9  pretrain.schedule: unknown value 'linear'; there are cosine, one_cycle, step, constant"),
        ("batch_size: 64", "batch_size: 0", "line 2  data.batch_size: should be greater than or equal to 1, not 0"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    assert mistakes(tmp_path, GOOD.replace(old, new)) == [expected]


def test_pretraining_needs_a_model_without_weights(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, GOOD + "pretrain: {epochs: 1}\n")
    assert "leave one of them out" in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: [", "not YAML"),
        ("just words", "not a recipe"),
        ("- a\n- b", "not a recipe"),
        ("model: !!python/name:os.system x", "not YAML"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        read_recipe(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        read_recipe(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=7", ("seed",), 7),
        ("model.name=resnet18", ("model", "name"), "resnet18"),
        ("layers.0.ratio=4", ("layers", 0, "ratio"), 4),
        ("pretrain.epochs=3", ("pretrain", "epochs"), 3),
        ("data=null", ("data",), None),
        ("data.mean=[0.5, 0.5, 0.5]", ("data", "mean"), [0.5, 0.5, 0.5]),
    ],
)
def test_any_key_can_be_overridden(tmp_path: Path, override: str, path: tuple[Any, ...], value: Any) -> None:
    raw: Any = read_recipe(write(tmp_path, GOOD), [override]).raw
    for key in path:
        raw = raw[key]
    assert raw == value


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "not of the form"),
        ("=3", "not of the form"),
        ("layers.9.ratio=4", "the list has 3 entries"),
        ("seed.deep=1", "has no keys inside"),
        ("seed=[", "not YAML"),
    ],
)
def test_an_override_that_cannot_be_applied_is_an_error(tmp_path: Path, override: str, expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        read_recipe(write(tmp_path, GOOD), [override])


def test_an_overridden_key_that_is_wrong_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"finetune\.epoch: unknown key; did you mean 'epochs'"):
        read_recipe(write(tmp_path, GOOD), ["finetune.epoch=3"]).checked()


def test_a_wrong_key_of_an_inner_section_is_compared_with_its_own_keys(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"finetune\.distill\.featurs: unknown key; did you mean 'features'"):
        read_recipe(write(tmp_path, GOOD), ["finetune.distill.featurs=[conv1]"]).checked()


def test_one_layer_to_be_taught_needs_no_list() -> None:
    recipe = read_recipe({"finetune": {"distill": {"features": "conv1", "attention": ["conv?"]}}}).checked()
    assert recipe.finetune.distill is not None
    assert (recipe.finetune.distill.features, recipe.finetune.distill.attention) == (("conv1",), ("conv?",))


@pytest.mark.parametrize("bits", [1, 17, 4.5, True, "lots"])
def test_bits_that_are_none_are_one_mistake(bits: object) -> None:
    draft = read_recipe({"model": {"name": "lenet5"}, "export": {"bits": bits}})
    with pytest.raises(RecipeError, match=r"export.bits: should be a whole number from 2 to 16, or auto, not"):
        draft.checked()
    assert len(draft.mistakes) == 1
