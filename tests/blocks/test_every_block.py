"""Every block travels: converted, trained, exported and loaded, at the price that its plan said."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressnet
from compressnet.block import Block
from compressnet.blocks import BY_NAME
from compressnet.description import describe
from compressnet.errors import FileError, WeightsError
from compressnet.layers import CompressedLinear
from compressnet.zoo import models
from compressnet.zoo.models import ModelSpec
from tests.conftest import LENET

RULES: dict[str, dict[str, Any]] = {
    "deepfried_head": {"features": 2048},
    "acdc_stack": {"depth": 2},
}
RUN = ["fc1", "relu3", "fc2"]
HASHED = {"match": "fc2", "method": "hashednet", "ratio": 4}


def recipe(block: str, *more: dict[str, Any], **sections: Any) -> dict[str, Any]:
    rules = [{"match": RUN, "block": block, **RULES[block]}, *more]
    return {**LENET, "layers": rules, "finetune": {"epochs": 1}, "export": {"dtype": "float32"}, **sections}


@pytest.mark.parametrize(
    ("block", "more"),
    [*(pytest.param(block, [], id=block) for block in BY_NAME), pytest.param("deepfried_head", [HASHED], id="hashed")],
)
def test_a_block_is_converted_trained_exported_and_loaded_at_the_price_of_its_plan(
    block: str, more: list[dict[str, Any]], tmp_path: Path
) -> None:
    compressnet.convert({"model": LENET["model"]}, tmp_path / "dense.safetensors")
    given = recipe(
        block,
        {"match": "conv2", "method": "freshnet", "ratio": 2},
        *more,
        model=LENET["model"] | {"weights": str(tmp_path / "dense.safetensors")},
        calibration={"images": 50},
        pretrain=None,
    )
    plan = compressnet.convert(given, dry_run=True)
    files = [tmp_path / name for name in ("converted.safetensors", "run/best.safetensors", "exported.safetensors")]
    account = compressnet.convert(given, files[0])
    numels = {row.name: (row.dense_numel, row.numel) for row in account.rows if row.shape}
    assert numels == {row.name: (row.dense_numel, row.numel) for row in plan.rows if row.shape}
    assert account.numel == plan.numel
    assert account.dense_numel == plan.dense_numel == 431_080
    assert sum(row.nbytes or 0 for row in account.rows) + sum(account.overhead.values()) == files[0].stat().st_size
    assert {row.name for row in account.rows if row.output_error is not None} >= {"conv2", "fc1"}
    compressnet.finetune(files[0], files[1].parent)
    compressnet.export(files[1], files[2])
    x = torch.randn(3, 1, 28, 28)
    trained, exported, first = (compressnet.load(files[index])(x) for index in (1, 2, 0))
    assert torch.equal(trained, exported)
    assert not torch.equal(trained, first)
    (saved,) = describe(files[2]).blocks
    assert (saved.block, saved.run, saved.head) == (block, ("fc1", "relu3"), "fc2")


@pytest.mark.parametrize("block", BY_NAME)
def test_the_gradient_reaches_all_that_is_learned_and_training_moves_it(block: str) -> None:
    model = compressnet.compress(models.fresh(ModelSpec("lenet5", 10), 0), {"layers": recipe(block)["layers"]}).train()
    model(torch.randn(4, 1, 28, 28)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def own() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(48, 40),
        nn.ReLU(inplace=True),
        nn.Dropout(0.3),
        nn.Linear(40, 40),
        nn.ReLU(inplace=True),
        nn.Dropout(0.2),
        nn.Linear(40, 5),
    )


OWN: dict[str, Any] = {"layers": [{"block": "deepfried_head", "features": 256, "match": "[1-4]"}]}


def test_names_behind_a_block_do_not_move_and_its_last_dropout_stays() -> None:
    module = compressnet.compress(own(), OWN)
    assert isinstance(module[1], Block)
    assert [type(module[place]) for place in (2, 3, 4, 5)] == [nn.Identity] * 4
    assert module[6].p == 0.2
    assert module[7].in_features == 256
    assert {name.split(".")[0] for name in module.state_dict()} == {"1", "7"}
    module.train()(torch.randn(2, 3, 4, 4)).sum().backward()


def test_images_bring_a_module_of_ones_own_nearer_to_what_it_was() -> None:
    images = torch.randn(300, 3, 4, 4, generator=torch.Generator().manual_seed(0)).abs()
    dense, alone, fitted = own().eval(), own().eval(), own().eval()
    compressnet.compress(alone, OWN)
    compressnet.compress(fitted, OWN, images=images[:200])
    with torch.no_grad():
        expected = dense(images[200:])
        error = (fitted(images[200:]) - expected).norm() / expected.norm()
        assert error < 0.8 * (alone(images[200:]) - expected).norm() / expected.norm()
        assert error < 0.25


def test_the_layer_behind_is_fitted_again_to_what_compressed_layers_before_it_give() -> None:
    images = torch.randn(200, 3, 4, 4, generator=torch.Generator().manual_seed(0)).abs()

    def wide() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 48), nn.ReLU(), *own().eval()[1:]).eval()

    dense, compressed = wide(), wide()
    rules = [
        {"match": "1", "method": "hashednet", "ratio": 8},
        {"match": "3", "block": "deepfried_head", "features": 64},
    ]
    compressnet.compress(compressed, {"layers": rules}, images=images)
    head = compressed[6]
    with torch.no_grad():
        features = compressed[:6](images)
        residual = head(features) - dense[:7](images)
    assert residual.mean(0).abs().max() < 1e-4  # a fit with a bias leaves no mean


def test_a_module_with_a_block_is_saved_and_loaded_into_its_like(tmp_path: Path) -> None:
    rules = [*OWN["layers"], {"match": "7", "method": "hashednet", "ratio": 2}]
    module = compressnet.compress(own(), {"layers": rules}).eval()
    compressnet.save(module, tmp_path / "own.safetensors")
    loaded = compressnet.load(tmp_path / "own.safetensors", into=own())
    assert isinstance(loaded[7], CompressedLinear)
    x = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        assert torch.equal(loaded(x), module(x))
    with pytest.raises(FileError, match="its block 1 does not fit the model"):
        compressnet.load(tmp_path / "own.safetensors", into=nn.Sequential(nn.Flatten(), nn.Linear(48, 9)))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("block") / "converted.safetensors"
    compressnet.convert(recipe("deepfried_head", HASHED), path, overrides=["data=null"])
    return path


def test_there_is_no_dense_form(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no dense form of the model: at fc1 a block stands for several layers"):
        compressnet.export(converted, tmp_path / "dense.safetensors", dense=True)
    assert not list(tmp_path.iterdir())
    with pytest.raises(compressnet.CompressnetError, match="holds a model with blocks") as caught:
        compressnet.convert({"model": {"name": "lenet5", "weights": str(converted)}}, dry_run=True)
    assert not isinstance(caught.value, WeightsError)  # a mistake of the recipe, with its key


def test_numbers_that_are_not_learned_keep_their_dtype_on_export(tmp_path: Path) -> None:
    given = recipe("deepfried_head")
    given["layers"][0]["adaptive"] = False
    compressnet.convert(given, tmp_path / "a.safetensors", overrides=["data=null"])
    compressnet.export(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype="float16")
    state = compressnet.load(tmp_path / "b.safetensors", dtype=None).state_dict()
    kinds = {name: state[f"fc1.{name}"].dtype for name in ("scale", "gauss", "signs", "bias")}
    assert kinds == dict.fromkeys(("scale", "gauss", "signs"), torch.float32) | {"bias": torch.float16}


def test_a_run_trains_the_dense_model_that_a_block_is_then_fitted_to(tmp_path: Path) -> None:
    given = recipe("deepfried_head", finetune={"epochs": 0}, calibration={"images": 300})
    finished = compressnet.run(given, tmp_path / "run", device="cpu")
    dense = describe(tmp_path / "run" / "pretrain" / "dense.safetensors")
    assert [layer.name for layer in dense.layers] == ["conv1", "conv2", "fc1", "fc2"]
    assert dense.blocks == ()
    assert finished.metrics["exported"].top1 > finished.metrics["dense"].top1 - 10


def test_a_report_of_a_damaged_block_is_refused(converted: Path, tmp_path: Path) -> None:
    def change(plan: list[dict[str, Any]]) -> None:
        next(item for item in plan if "block" in item)["dense_numel"] = "many"

    with pytest.raises(FileError, match="damaged"):
        compressnet.report(spoilt(converted, tmp_path / "bad.safetensors", change))


def spoilt(path: Path, to: Path, change: Any) -> Path:
    """The file with its plan changed, and its digest and offsets as they were."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    meta = json.loads(table["__metadata__"]["compressnet"])
    change(meta["plan"])
    table["__metadata__"]["compressnet"] = json.dumps(meta, separators=(",", ":"))
    header = json.dumps(table).encode()
    to.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    return to


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("block", "deepfried_haed", "unknown block 'deepfried_haed'; did you mean 'deepfried_head'?"),
        ("block", ["x"], "damaged"),
        ("config", {"features": 2048, "secret": 1}, "its plan of fc1 is damaged"),
        ("config", {"features": 4096}, "its plan of fc1 is damaged"),
        ("config", 3, "its plan of fc1 is damaged"),
        ("shape", [2048, 900], "its block fc1 does not fit the model's layers"),
        ("shape", [2048], "its plan of fc1 is damaged"),
        ("shape", [2048.0, 800], "its plan of fc1 is damaged"),
        ("run", [], "its plan of fc1 is damaged"),
        ("run", ["fc1", "conv1"], "its block fc1 does not fit the model: its layers are not consecutive"),
        ("run", ["fc1"], "its block fc1 does not fit the model's layers"),
        ("run", ["fc1", "nowhere"], "its block fc1 does not fit the model: fc1, nowhere are not all in the model"),
        ("head", "conv1", "its block fc1 does not fit the model's layers"),
        ("head", None, "its plan of fc1 is damaged"),
        ("dense_numel", -1, "its plan of fc1 is damaged"),
        ("dense_numel", 7, "its block fc1 does not fit the model's layers"),
        ("seed", "7", "its plan of fc1 is damaged"),
        ("more", 7, "its plan of fc1 is damaged"),
    ],
)
def test_a_damaged_block_in_a_plan_is_refused(
    key: str, value: Any, message: str, converted: Path, tmp_path: Path
) -> None:
    def change(plan: list[dict[str, Any]]) -> None:
        (block,) = (item for item in plan if "block" in item)
        block[key] = value

    with pytest.raises(FileError) as caught:
        compressnet.load(spoilt(converted, tmp_path / "bad.safetensors", change))
    assert message in str(caught.value)


def _without_fit(plan: list[dict[str, Any]]) -> None:
    del plan[-1]["dense_shape"]


def _without_block(plan: list[dict[str, Any]]) -> None:
    plan[:] = [item for item in plan if "block" not in item]


def _twice(plan: list[dict[str, Any]]) -> None:
    plan.append(next(item for item in plan if "block" in item))


def _misfit(plan: list[dict[str, Any]]) -> None:
    plan[-1]["shape"] = [10, 1024]


def _also_dense(plan: list[dict[str, Any]]) -> None:
    plan.insert(0, {"name": "fc1", "kind": "linear", "shape": [500, 800]})


@pytest.mark.parametrize("change", [_without_fit, _without_block, _twice, _misfit, _also_dense])
def test_a_plan_whose_layers_and_blocks_do_not_fit_each_other_is_refused(
    change: Any, converted: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileError, match="its plan"):
        compressnet.load(spoilt(converted, tmp_path / "bad.safetensors", change))
