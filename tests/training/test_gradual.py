import copy
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressnet
from compressnet.attention import CompressedMultiheadAttention
from compressnet.errors import RecipeError
from compressnet.layers import CompressedLayer
from compressnet.plan import candidates, plan_layers
from compressnet.recipe import read_recipe
from compressnet.rewrite import project_
from compressnet.training.gradual import Mixture
from compressnet.training.interrupt import Interrupted
from tests.training.stopping import StopAfter

METHODS: dict[str, dict[str, Any]] = {
    "hashednet": {"ratio": 3},
    "freshnet": {"ratio": 3},
    "pruned": {"density": 0.3},
    "lowrank": {"rank": 2},
    "deepfried": {"steps": 3},
    "acdc": {"depth": 2, "steps": 3},
    "monarch": {"blocks": 2},
}


class Net(nn.Module):
    """Convolutions with and without groups, a fully connected layer, and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.middle = nn.Conv2d(12, 12, 3, groups=2, padding=1, padding_mode="reflect")
        self.last = nn.Conv2d(12, 16, 1, stride=2)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(F.relu(self.middle(F.relu(self.first(x)))))
        x = x.flatten(2).mT
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


@pytest.fixture
def dense() -> nn.Module:
    torch.manual_seed(0)
    return Net()


def compressed(dense: nn.Module, method: str) -> nn.Module:
    model = copy.deepcopy(dense)
    rule = {"match": "*", "grouped": True, "method": method} | METHODS[method]
    drawn = {layer.name: layer for layer in candidates(model)}
    kept = ["last", "head"] if method in ("deepfried", "acdc", "monarch") else list(drawn)
    project_(model, plan_layers(read_recipe({"layers": [rule | {"match": kept}]}), list(drawn.values())))
    return model


def dense_weights(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}{layer.parameter}": layer.structured.to_dense().detach()
        for name, layer in model.named_modules()
        if isinstance(layer, CompressedLayer)
    }


@pytest.mark.parametrize("method", METHODS)
def test_training_runs_with_mixed_weights_and_evaluation_with_compressed_ones(dense: nn.Module, method: str) -> None:
    model, images = compressed(dense, method).train(), torch.randn(4, 3, 7, 7)
    alone, weights = model.eval()(images), dense_weights(model)
    mixed = copy.deepcopy(dense)
    for name, weight in weights.items():
        mixed.get_parameter(name).data.lerp_(weight, 0.25)
    names = list(model.state_dict())
    mixture = Mixture(model, dense, torch.device("cpu"))
    mixture.to_(0.25)
    assert torch.allclose(model.train()(images), mixed(images), atol=1e-5)
    assert torch.equal(model.eval()(images), alone)
    assert list(model.state_dict()) == names
    model.train()(images).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_at_the_end_nothing_is_wrapped(dense: nn.Module) -> None:
    model, images = compressed(dense, "hashednet").train(), torch.randn(2, 3, 7, 7)
    wanted = model(images)
    mixture = Mixture(model, dense, torch.device("cpu"))
    mixture.to_(0.5)
    assert not torch.equal(model(images), wanted)
    mixture.to_(1.0)
    assert torch.equal(model(images), wanted)
    attention = model.get_submodule("attention")
    assert isinstance(attention, CompressedMultiheadAttention)
    assert all("structured" not in vars(layer) for layer in model.modules())


@pytest.fixture
def recipe(lenet: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    bare = {key: lenet[key] for key in ("model", "data", "finetune")}
    compressnet.convert(bare, tmp_path / "untrained.safetensors")
    dense = compressnet.finetune(tmp_path / "untrained.safetensors", tmp_path / "dense").path
    del lenet["pretrain"]
    return lenet | {"model": {"name": "lenet5", "weights": str(dense)}}


@pytest.fixture
def converted(recipe: dict[str, Any], tmp_path: Path) -> Path:
    compressnet.convert(recipe, tmp_path / "converted.safetensors")
    return tmp_path / "converted.safetensors"


def test_no_epoch_before_the_end_of_the_mixture_is_the_best(recipe: dict[str, Any], tmp_path: Path) -> None:
    compressnet.convert(recipe | {"calibration": None}, tmp_path / "a.safetensors")
    overrides = ["finetune.gradual={until: 1.0}", "finetune.epochs=3", "finetune.distill={}"]
    trained = compressnet.finetune(tmp_path / "a.safetensors", tmp_path / "out", overrides=overrides)
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("compressed") for line in lines] == [None, pytest.approx(1 / 3), pytest.approx(2 / 3), None]
    assert trained.best_epoch == 3
    assert compressnet.evaluate(trained.path) == trained.test


def test_blocks_and_the_layers_behind_them_are_not_mixed(recipe: dict[str, Any], tmp_path: Path) -> None:
    block = {"match": ["fc1", "relu3"], "block": "acdc_stack", "depth": 2, "features": 500}
    conv, head = recipe["layers"][0], recipe["layers"][2]
    compressnet.convert(recipe | {"layers": [block, conv, head]}, tmp_path / "a.safetensors")
    trained = compressnet.finetune(tmp_path / "a.safetensors", tmp_path / "out", overrides=["finetune.gradual={}"])
    assert trained.best.loss < 0.5


@pytest.mark.parametrize("steps", [13, 33], ids=["while weights are mixed", "afterwards"])
def test_a_run_with_mixed_weights_resumes_to_the_same_bits(converted: Path, tmp_path: Path, steps: int) -> None:
    overrides = ["finetune.gradual={}", "finetune.epochs=2"]
    compressnet.finetune(converted, tmp_path / "whole", overrides=overrides)
    with pytest.raises(Interrupted):
        compressnet.finetune(
            converted, tmp_path / "parts", overrides=overrides, progress=StopAfter(steps, signal.SIGINT)
        )
    compressnet.finetune(converted, tmp_path / "parts", overrides=overrides, resume=True)
    whole, parts = (torch.load(tmp_path / name / "last.pt", weights_only=True)["model"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    best = [(tmp_path / name / "best.safetensors").read_bytes() for name in ("whole", "parts")]
    assert best[0] == best[1]


def test_numbers_are_quantised_after_the_mixture(converted: Path, tmp_path: Path) -> None:
    overrides = ["finetune.gradual={until: 0.5}", "export.bits=5", "finetune.epochs=2"]
    with pytest.raises(RecipeError, match=r"quantise\.start 0\.25 is before gradual\.until 0\.5"):
        compressnet.finetune(converted, tmp_path / "early", overrides=[*overrides, "finetune.quantise={start: 0.25}"])
    trained = compressnet.finetune(converted, tmp_path / "out", overrides=[*overrides, "finetune.quantise={}"])
    assert trained.best_epoch == 2
