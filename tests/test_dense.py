"""The dense form: ordinary modules that compute what the compressed ones do."""

import copy
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer, get_model

import compressnet
from compressnet.errors import FileError
from compressnet.methods import BY_NAME

SIZES: dict[str, dict[str, Any]] = {"ratio": {"ratio": 4}, "density": {"density": 0.2}}


def rule(method: str, match: str | list[str] = "*") -> dict[str, Any]:
    sizes = next((SIZES[key] for key in BY_NAME[method].Config.sizes if key in SIZES), {})
    quick = {"steps": 1} if "steps" in BY_NAME[method].Config.model_fields else {}
    return {"match": match, "method": method, **sizes, **quick}


def types(model: nn.Module) -> set[str]:
    return {type(module).__module__.split(".")[0] for module in model.modules()}


def outputs(model: nn.Module, *shape: int) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("name", "method", "match", "shape"),
    [
        *(pytest.param("lenet5", name, ["conv2", "fc1"], (1, 28, 28), id=name) for name in BY_NAME),
        ("freshnets_cnn", "freshnet", "*", (3, 32, 32)),
        ("squeezenet1_1", "hashednet", "*", (3, 64, 64)),
        ("mobilenet_v3_small", "freshnet", "*", (3, 64, 64)),
        ("googlenet", "hashednet", "inception4*", (3, 64, 64)),
    ],
)
def test_the_dense_form_is_torchvisions_module_and_computes_the_same(
    name: str, method: str, match: str | list[str], shape: tuple[int, ...], tmp_path: Path
) -> None:
    recipe = {"model": {"name": name, "weights": None, "num_classes": 5}, "layers": [rule(method, match)]}
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dense = compressnet.load(tmp_path / "a.safetensors", form="dense")
    assert types(dense) <= {"torch", "torchvision"}
    assert not dense.training
    plain = get_model(name, num_classes=5, **({"init_weights": False} if name == "googlenet" else {}))
    assert str(dense) == str(plain)
    plain.load_state_dict(dense.state_dict())
    expected = outputs(compressnet.load(tmp_path / "a.safetensors"), *shape)
    torch.testing.assert_close(outputs(dense, *shape), expected, rtol=1e-4, atol=1e-5)
    assert all(parameter.requires_grad for parameter in dense.parameters())


def transformer() -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(image_size=16, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    nn.init.normal_(model.heads[0].weight)
    return model.eval()


def test_attention_of_a_module_of_ones_own_becomes_torchs_again(tmp_path: Path) -> None:
    compressed = compressnet.compress(transformer(), {"layers": [rule("hashednet")]})
    compressnet.save(compressed, tmp_path / "a.safetensors")
    own = transformer()
    dense = compressnet.load(tmp_path / "a.safetensors", into=own, form="dense")
    assert dense is own
    assert str(dense) == str(transformer())
    assert types(dense) <= {"torch", "torchvision"}
    torch.testing.assert_close(outputs(dense, 3, 16, 16), outputs(compressed, 3, 16, 16), rtol=1e-4, atol=1e-4)


BLOCKS: dict[str, tuple[dict[str, Any], str]] = {
    "deepfried_head": ({"features": 1024}, "fc1 from 3,872 to 820,224"),
    "acdc_stack": ({"depth": 3}, "fc1 from 7,200 to 1,922,400"),
}


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_become_linear_and_relu_with_a_warning_of_their_numbers(block: str, tmp_path: Path) -> None:
    keys, growth = BLOCKS[block]
    rules = [{"match": ["fc1", "relu3", "fc2"], "block": block, **keys}, rule("hashednet", "fc2")]
    model = {"name": "lenet5", "weights": None, "num_classes": 10}
    compressnet.convert({"model": model, "layers": rules}, tmp_path / "a.safetensors")
    with pytest.warns(UserWarning, match=f"in the place of blocks, whose numbers grow: {growth}$"):
        dense = compressnet.load(tmp_path / "a.safetensors", form="dense")
    assert types(dense) == {"torch"}
    assert {type(module) for module in dense.get_submodule("fc1")} == {nn.Linear, nn.ReLU}
    expected = outputs(compressnet.load(tmp_path / "a.safetensors"), 1, 28, 28)
    torch.testing.assert_close(outputs(dense, 1, 28, 28), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def converted(lenet: dict[str, Any], tmp_path: Path) -> Path:
    compressnet.convert(lenet, tmp_path / "a.safetensors", overrides=["data=null", "pretrain=null"])
    return tmp_path / "a.safetensors"


LOADED_ELSEWHERE = """
import sys, torch
model = torch.load(sys.argv[1], weights_only=False)
assert not any(name.startswith("compressnet") for name in sys.modules)
print(model(torch.ones(1, 1, 28, 28)).sum().item())
"""


def test_a_dense_model_can_be_pickled_for_who_has_no_compressnet(converted: Path, tmp_path: Path) -> None:
    dense = compressnet.load(converted, form="dense")
    torch.save(dense, tmp_path / "a.pt")
    there = subprocess.run(
        [sys.executable, "-c", LOADED_ELSEWHERE, str(tmp_path / "a.pt")], capture_output=True, check=True
    )
    assert float(there.stdout) == pytest.approx(dense(torch.ones(1, 1, 28, 28)).sum().item(), rel=1e-4)


def test_the_dense_form_has_the_dtype_that_is_asked_for(converted: Path) -> None:
    dense = compressnet.load(converted, form="dense", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in dense.parameters()} == {torch.bfloat16}
    with pytest.raises(FileError, match="was not rewritten"):
        compressnet.save(dense, "nowhere.safetensors")


def test_an_unknown_form_is_an_error_with_the_nearest(converted: Path) -> None:
    with pytest.raises(FileError, match="unknown form 'dens'; did you mean 'dense'"):
        compressnet.load(converted, form="dens")  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["limit", "digest", "other"])
def test_a_module_of_ones_own_is_as_it_was_when_a_file_is_refused(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    compressnet.save(compressnet.compress(transformer(), {"layers": [rule("hashednet")]}), file)
    if damage == "digest":
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    own, text = transformer(), str(transformer())
    if damage == "other":
        own.class_token = nn.Parameter(torch.zeros(1, 1, 17))
    before = copy.deepcopy(own.state_dict())
    with pytest.raises(FileError):
        compressnet.load(file, into=own, max_bytes=1000 if damage == "limit" else 1 << 30)
    assert str(own) == text
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())
