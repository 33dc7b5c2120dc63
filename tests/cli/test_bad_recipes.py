"""Every mistake of a recipe: one message that says what, where and the cure, exit 1, and no file."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import compressnet as package
from compressnet.zoo import models
from tests.cli.calls import compressnet, tree

MODEL = "model: {name: lenet5, weights: null, num_classes: 10}\n"


def refused(*arguments: object) -> str:
    """The message of a command that must end with one."""
    result = compressnet(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.count("Error: ") == 1
    return result.stderr[result.stderr.index("Error: ") :]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            MODEL + "finetune: {labels: false}\n",
            "line 2  finetune: without labels there is only the dense model to learn from",
        ),
        (
            MODEL + "finetune:\n  distill: {attention: [conv1, conv22]}\n",
            "line 3  finetune.distill.attention: 'conv22' matches no layer; did you mean 'conv2'?",
        ),
        (MODEL + "finetune: {epoch: 3}\n", "line 2  finetune.epoch: unknown key; did you mean 'epochs'?"),
        (
            MODEL + "layers:\n  - {match: conv1, method: freshent, ratio: 2}\n",
            "line 3  layers[0].method: unknown method 'freshent'; did you mean 'freshnet'?",
        ),
        ("model: {name: resnet81}\n", "line 1  model.name: unknown model 'resnet81'; did you mean 'resnet18'?"),
        (
            "model: {name: resnet18, weights: IMAGENET1K_V9}\n",
            "line 1  model.weights: unknown weights 'IMAGENET1K_V9'; did you mean 'IMAGENET1K_V1'?",
        ),
        ("model: {name: lenet5, weights: nowhere/lenet.pth}\n", "nowhere/lenet.pth: no such file"),
        (MODEL + "layers: [{match: conv2, method: freshnet, ratio: 0.5}]\n", "line 2  layers[0].ratio: should be"),
        (MODEL + "layers: [{match: conv2, method: freshnet, ratio: many}]\n", "line 2  layers[0].ratio: "),
        (
            MODEL + "layers: [{match: conv3, method: freshnet, ratio: 2}]\n",
            "line 2  layers[0].match: 'conv3' matches no layer of lenet5; did you mean 'conv2'?",
        ),
        (
            MODEL + "layers: [{match: conv2, method: deepfried, copies: 100}]\n",
            "layers[0].method: deepfried cannot hold conv2",
        ),
        (
            MODEL + "layers: [{match: fc1, method: acdc, lr_scale: {spatail: 24}}]\n",
            "line 2  layers[0].lr_scale.spatail: acdc trains no tensor 'spatail'; did you mean 'spatial'?",
        ),
        (
            MODEL + "layers: [{match: fc1, method: acdc, lr_scale: {spatial: -1}}]\n",
            "line 2  layers[0].lr_scale.spatial: should be greater than or equal to 0, not -1",
        ),
        (
            MODEL + "layers: [{match: fc1, method: acdc, lr_scale: fast}]\n",
            "line 2  layers[0].lr_scale: should be a valid number",
        ),
        (
            MODEL + "layers: [{match: fc1, method: acdc, weight_decay: -1}]\n",
            "line 2  layers[0].weight_decay: should be greater than or equal to 0, not -1",
        ),
        (
            MODEL + "layers:\n  - {match: [fc1, fc2], block: deepfried_head, features: 1024}\n",
            "line 3  layers[0].match: its layers are not consecutive: relu3 between them",
        ),
        (
            MODEL + "layers:\n  - {match: fc1, block: deepfried_head,\n     features: 1000}\n",
            "line 4  layers[0].features: deepfried_head cannot take it: features 1,000 is no multiple of 1,024",
        ),
        (
            MODEL + "layers:\n  - {match: fc1, block: deepfried_haed, features: 1024}\n",
            "line 3  layers[0].block: unknown block 'deepfried_haed'; did you mean 'deepfried_head'?",
        ),
        ("model: [\n", "not YAML"),
        ("just text\n", "not a recipe"),
        ("layers: []\n", "model: the key is missing"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    before = tree(tmp_path)
    error = refused("convert", tmp_path / "recipe.yaml", "-o", tmp_path / "out.safetensors")
    assert message in error
    assert str(tmp_path / "recipe.yaml") in error
    assert refused("run", tmp_path / "recipe.yaml", "-o", tmp_path / "out") == error
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("method: lowrank, rank: 513", "fc (1000, 512): rank 513 is above 512, the rank of a"),
        ("method: lowrank, rank: 400", "would not store fewer numbers than the dense weight; a rank up to 338 does"),
        ("method: lowrank, ratio: 400", "fc (1000, 512): ratio 400 leaves fewer numbers than the 1,512 of rank 1"),
        ("method: lowrank, rank: 0", "layers[0].rank: should be greater than or equal to 1, not 0"),
        ("method: pruned, density: 0", "layers[0].density: should be greater than 0, not 0"),
        ("method: pruned, density: 1.01", "layers[0].density: should be less than or equal to 1, not 1.01"),
        ("method: pruned, density: 1", "fc (1000, 512): its 512,000 values and 64,000 bytes of bitmap"),
        ("method: freshnet, numel: 512001", "fc (1000, 512): numel 512,001 is not within the 1 to 512,000"),
        ("method: dropfilt, nbytes: 1000", "fc (1000, 512): as float16, nbytes 1,000 is not within the 1,149"),
        ("method: monarch, blocks: 600", "fc (1000, 512): 600 blocks would leave some empty"),
        ("method: acdc, depth: 257", "fc (1000, 512): its 513,512 numbers would not be fewer"),
    ],
)  # fmt: skip
def test_a_size_that_cannot_be_is_told_with_its_limit_before_any_download(
    rule: str, message: str, tmp_path: Path
) -> None:
    text = f"model: {{name: resnet18, weights: IMAGENET1K_V1}}\nlayers: [{{match: fc, {rule}}}]\n"
    (tmp_path / "recipe.yaml").write_text(text)
    error = refused("convert", tmp_path / "recipe.yaml", "--dry-run")
    assert error.splitlines()[1].startswith("  line 2  layers[0].")
    assert message in error


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        MODEL
        + "data: {dataset: digist}\n"
        + "layers:\n"
        + "  - {match: conv2, method: freshnet, ration: 4}\n"
        + "  - {match: fc9, method: deepfried}\n"
        + "sed: 1\n"
    )
    lines = refused("run", tmp_path / "recipe.yaml", "-o", tmp_path / "out").splitlines()
    assert lines[0] == f"Error: {tmp_path / 'recipe.yaml'} has 4 mistakes"
    assert [line.split()[:3] for line in lines[1:]] == [
        ["line", "2", "data.dataset:"],
        ["line", "4", "layers[0].ration:"],
        ["line", "5", "layers[1].match:"],
        ["line", "6", "sed:"],
    ]


@pytest.mark.parametrize("arguments", [("convert", "-o"), ("run", "-o")])
def test_a_recipe_that_is_nowhere_may_be_a_slip_of_a_name(arguments: tuple[str, str], tmp_path: Path) -> None:
    command, option = arguments
    error = refused(command, "quikstart", option, tmp_path / "out")
    assert "quikstart: no such file, and no recipe of that name comes along" in error
    assert "did you mean 'quickstart'?" in error


def test_the_recipe_asked_to_be_shown_must_come_along() -> None:
    assert "did you mean 'quickstart'?" in refused("recipes", "quickstrat")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("finetune.epochs", "not of the form key.path=value"),
        ("finetune.epoch=3", "finetune.epoch: unknown key; did you mean 'epochs'?"),
        ("data.dataset.root=x", "data.dataset has no keys inside"),
    ],
)
def test_a_wrong_override_is_told(override: str, message: str, recipe: Path, converted: Path, tmp_path: Path) -> None:
    assert message in refused("convert", recipe, "--dry-run", "--set", override)
    assert message in refused("finetune", converted, "-o", tmp_path / "out", "--set", override)
    assert message in refused("evaluate", converted, "--set", override)


def test_an_override_of_what_is_settled_is_told(recipe: Path, converted: Path, tmp_path: Path) -> None:
    assert "the list has 2 entries" in refused("convert", recipe, "--dry-run", "--set", "layers.7.ratio=3")
    settled = refused("finetune", converted, "-o", tmp_path / "out", "--set", "layers.0.ratio=3")
    assert "is converted already" in settled


def test_a_mistake_of_an_override_is_in_no_line_of_the_file(recipe: Path) -> None:
    error = refused("convert", recipe, "--dry-run", "--set", "finetune.epochs=-3", "--set", "layers.1={match: conv2}")
    assert "\n  finetune.epochs: should be" in error
    assert "\n  layers[1]: the key 'method' is missing" in error


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


def _state(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    fresh = models.fresh(models.ModelSpec("lenet5", 10), 0).state_dict()
    return {name: tensor for name, tensor in ({**fresh, **changes}).items() if tensor is not None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_state(**{"conv2.weight": None}), "conv2.weight"),
        (_state(**{"conv9.weight": torch.zeros(2)}), "conv9.weight"),
        (_state(**{"fc1.weight": torch.zeros(5, 800)}), "fc1.weight"),
        ({"epoch": 3}, "state_dict"),
        (Code(), "state_dict"),
        (b"PK\x03\x04 broken off", "truncated"),
    ],
    ids=["missing", "unexpected", "misshapen", "other content", "code", "truncated"],
)
def test_wrong_weights_are_named(
    content: Any, message: str, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if isinstance(content, bytes):
        Path("w.pth").write_bytes(content)
    else:
        torch.save(content, "w.pth")
    before = tree(tmp_path)
    error = refused(
        "convert", recipe, "-o", "out.safetensors", "--set", "model.weights=w.pth", "--set", "pretrain=null"
    )
    assert "w.pth" in error
    assert message in error
    assert tree(tmp_path) == before
    assert not Path("unpickled").exists()


def test_the_errors_of_commands_are_those_of_functions(recipe: Path) -> None:
    with pytest.raises(package.CompressnetError) as caught:
        package.report(recipe, overrides=["seed=-1"])
    assert refused("report", recipe, "--set", "seed=-1") == f"Error: {caught.value}\n"
