import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressnet
from compressnet.coding.quantisers import Float, Uniform, from_json
from compressnet.description import describe
from compressnet.errors import RecipeError
from compressnet.training.interrupt import Interrupted
from compressnet.training.quantised import QuantisedParameters
from tests.training.stopping import StopAfter

UNIFORM = ["finetune.epochs=2", "finetune.quantise={start: 0.5}", "export.bits=4"]
CODEBOOK = [*UNIFORM, "export.quantiser=codebook"]
RATE = [*UNIFORM, "finetune.quantise.rate=0.5", "export.group=row"]


@pytest.fixture
def converted(lenet: dict[str, Any], tmp_path: Path) -> Path:
    """A convolution is pruned, and the rule of another layer has bits of its own."""
    lenet["layers"].insert(0, {"match": "conv1", "method": "pruned", "density": 0.5})
    lenet["layers"][-1] |= {"bits": 3}
    compressnet.convert(lenet, tmp_path / "converted.safetensors")
    return tmp_path / "converted.safetensors"


def stored(path: Path) -> dict[str, torch.Tensor]:
    return compressnet.load(path, form="compressed").state_dict()


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("overrides", [UNIFORM, CODEBOOK, RATE], ids=["uniform", "codebook", "rate"])
def test_the_saved_numbers_lie_on_the_grids_the_file_names(
    converted: Path, tmp_path: Path, overrides: list[str]
) -> None:
    compressnet.finetune(converted, tmp_path / "out", overrides=overrides)
    best = tmp_path / "out" / "best.safetensors"
    quantisers = {name: from_json(keys) for name, keys in describe(best).quantisers.items()}
    state = stored(best)
    assert quantisers.keys() == {name for name, tensor in state.items() if tensor.is_floating_point()}
    for name, quantiser in quantisers.items():
        assert torch.equal(quantiser(state[name]), state[name]), name
    assert len(state["fc2.structured.buckets"].unique()) <= 8
    assert 8 < len(state["conv2.structured.buckets"].unique()) <= 16
    assert any(not torch.equal(state[name], tensor) for name, tensor in stored(converted).items())


@pytest.mark.parametrize("overrides", [UNIFORM, CODEBOOK, RATE], ids=["uniform", "codebook", "rate"])
@pytest.mark.parametrize("steps", [13, 33], ids=["before it quantises", "while it quantises"])
def test_a_run_through_quantisers_resumes_to_the_same_bits(
    converted: Path, tmp_path: Path, overrides: list[str], steps: int
) -> None:
    overrides = [*overrides, "data.augment=affine"]
    compressnet.finetune(converted, tmp_path / "whole", overrides=overrides)
    stop = StopAfter(steps, signal.SIGINT)
    with pytest.raises(Interrupted):
        compressnet.finetune(converted, tmp_path / "parts", overrides=overrides, progress=stop)
    compressnet.finetune(converted, tmp_path / "parts", overrides=overrides, resume=True)
    whole, parts = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "parts"))
    for kind in ("model", "quantised"):
        assert all(torch.equal(tensor, parts[kind][name]) for name, tensor in whole[kind].items())
    best = [(tmp_path / name / "best.safetensors").read_bytes() for name in ("whole", "parts")]
    assert best[0] == best[1]


def test_the_best_epoch_is_a_quantised_one(converted: Path, tmp_path: Path) -> None:
    """Two bits ruin it: each epoch before is better."""
    overrides = ["finetune.epochs=3", "finetune.quantise={start: 0.99}", "export.bits=2", "export.vector_bits=2"]
    trained = compressnet.finetune(converted, tmp_path / "out", overrides=overrides)
    lines = history(tmp_path / "out")
    assert ["entropy_nbytes" in line for line in lines] == [False, False, False, True]
    assert lines[2]["val"]["top1"] > lines[3]["val"]["top1"]
    assert trained.best_epoch == 3
    assert compressnet.evaluate(tmp_path / "out" / "best.safetensors") == trained.test


def test_a_rate_lowers_the_entropy(converted: Path, tmp_path: Path) -> None:
    sizes = []
    for rate in (0, 2):
        overrides = ["finetune.epochs=2", f"finetune.quantise={{start: 0, rate: {rate}}}", "export.bits=5"]
        compressnet.finetune(converted, tmp_path / f"{rate}", overrides=[*overrides, "finetune.distill=null"])
        sizes.append(history(tmp_path / f"{rate}")[-1]["entropy_nbytes"])
    assert sizes[1] < 0.9 * sizes[0]


def test_a_model_learns_from_the_dense_one_through_quantisers(lenet: dict[str, Any], tmp_path: Path) -> None:
    overrides = ["finetune.distill={weight: 0.9}", "data.augment=affine", *UNIFORM]
    result = compressnet.run(lenet, tmp_path / "out", overrides=overrides)
    assert result.metrics["finetuned"].loss < 2.3
    assert describe(tmp_path / "out" / "finetune" / "best.safetensors").quantisers


def test_a_run_trains_anew_where_what_it_trains_through_has_changed(lenet: dict[str, Any], tmp_path: Path) -> None:
    compressnet.run(lenet, tmp_path / "out", overrides=UNIFORM)
    again = compressnet.run(lenet, tmp_path / "out", overrides=[*UNIFORM, "export.bits=3"])
    assert again.skipped[:2] == ("pretrain", "convert")
    assert "finetune" not in again.skipped


def test_a_block_is_trained_through_quantisers(lenet: dict[str, Any], tmp_path: Path) -> None:
    lenet["layers"] = [{"match": ["fc1", "relu3"], "block": "acdc_stack", "depth": 2, "features": 500, "bits": 6}]
    compressnet.convert(lenet, tmp_path / "converted.safetensors")
    compressnet.finetune(tmp_path / "converted.safetensors", tmp_path / "out", overrides=UNIFORM)
    best = tmp_path / "out" / "best.safetensors"
    state, quantisers = stored(best), describe(best).quantisers
    assert any(".structured" not in name and keys.get("most") == 31 for name, keys in quantisers.items())
    assert all(torch.equal(from_json(keys)(state[name]), state[name]) for name, keys in quantisers.items())


def test_a_file_that_is_trained_again_without_quantisers_names_none(converted: Path, tmp_path: Path) -> None:
    compressnet.finetune(converted, tmp_path / "first", overrides=UNIFORM)
    again = ["finetune.epochs=1", "finetune.quantise=null"]
    compressnet.finetune(tmp_path / "first" / "best.safetensors", tmp_path / "again", overrides=again)
    assert describe(tmp_path / "first" / "best.safetensors").quantisers
    assert not describe(tmp_path / "again" / "best.safetensors").quantisers


def test_statistics_of_norm_layers_are_left_alone_and_move_while_training() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    names = {name: Uniform(0.1, 7) for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    quantised = QuantisedParameters(model, names | {"1.running_mean": Float("bfloat16")})
    assert quantised.quantisers().keys() == {"0.weight", "0.bias", "1.weight", "1.bias"}
    quantised.run(torch.randn(4, 1, 6, 6)).sum().backward()
    assert model[1].running_mean.abs().sum() > 0
    assert model[0].weight.grad is not None
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with quantised.applied():
        assert len(model[0].weight.unique()) <= 15
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["finetune.quantise={}"], r"finetune\.quantise: there are no bits to train through"),
        (["finetune.quantise={}", "export.bits=auto"], r"export\.bits, which must be a number"),
        (
            ["finetune.quantise={rate: 1}", "export={bits: 4, quantiser: codebook}"],
            r"finetune\.quantise\.rate: numbers of a codebook keep their levels",
        ),
    ],
)
def test_a_recipe_that_cannot_be_trained_through_is_refused(
    lenet: dict[str, Any], tmp_path: Path, overrides: list[str], text: str
) -> None:
    with pytest.raises(RecipeError, match=text):
        compressnet.run(lenet, tmp_path / "out", overrides=overrides)
