import dataclasses
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressnet
from compressnet.commands.finetune import finetune
from compressnet.description import describe
from compressnet.errors import DataError, RecipeError, ResumeError, TrainingError, WeightsError
from compressnet.plan import PlannedLayer
from compressnet.progress import Progress
from compressnet.training.interrupt import Interrupted
from compressnet.transfer import _drawn, renew_classifier_
from tests.training.stopping import StopAfter

FAKE = ["data={dataset: fake, num_classes: 4, samples: 16, batch_size: 8}", "finetune.epochs=1"]
TO_FOUR = ["model.num_classes=4", *FAKE]


@pytest.fixture
def converted(lenet: dict[str, Any], tmp_path: Path) -> Path:
    """LeNet-5 of ten classes, all its layers but the first compressed."""
    compressnet.convert(lenet, tmp_path / "converted.safetensors")
    return tmp_path / "converted.safetensors"


def numbers(file: Path) -> dict[str, Tensor]:
    return compressnet.load(file, form="compressed").state_dict()


def test_a_compressed_file_is_trained_for_another_task(converted: Path, tmp_path: Path) -> None:
    trained = compressnet.finetune(converted, tmp_path / "out", overrides=TO_FOUR)
    described, before = describe(trained.path), describe(converted)
    assert described.spec is not None
    assert described.spec.num_classes == 4
    assert described.classes == ("class 0", "class 1", "class 2", "class 3")
    assert described.preprocessing == before.preprocessing
    assert described.recipe["model"]["num_classes"] == 4
    layers = {layer.name: layer for layer in described.layers}
    assert (layers["fc2"].shape, layers["fc2"].method, dict(layers["fc2"].config)["ratio"]) == (
        (4, 500),
        "hashednet",
        2,
    )
    assert compressnet.load(trained.path)(torch.zeros(1, 1, 28, 28)).shape == (1, 4)
    assert compressnet.evaluate(trained.path) == trained.test
    assert "fc2" not in described.results["projection_errors"]


def test_everything_but_the_last_layer_is_kept(converted: Path) -> None:
    model = compressnet.load(converted, form="compressed")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    described = renew_classifier_(model, describe(converted), 4, seed=0)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("fc2."))
    assert after["fc2.structured.buckets"].numel() == 4 * 500 // 2
    assert [
        layer.name for layer, old in zip(described.layers, describe(converted).layers, strict=True) if layer != old
    ] == ["fc2"]


def test_with_the_number_of_classes_it_has_the_last_layer_is_kept_too(converted: Path, tmp_path: Path) -> None:
    overrides = ["model.num_classes=10", "data.dataset=fake", "finetune.epochs=0"]
    after = numbers(compressnet.finetune(converted, tmp_path / "out", overrides=overrides).path)
    assert all(torch.equal(tensor, after[name]) for name, tensor in numbers(converted).items())


def test_a_compressed_last_layer_starts_at_the_scale_of_a_drawn_one(converted: Path) -> None:
    model = compressnet.load(converted, form="compressed")
    renew_classifier_(model, describe(converted), 100, seed=3)
    last = model.get_submodule("fc2")
    torch.manual_seed(3)
    drawn = nn.Linear(500, 100)
    assert isinstance(last.weight, Tensor)
    assert last.weight.std().item() == pytest.approx(drawn.weight.std().item(), rel=0.02)
    assert last.get_parameter("bias").abs().max() <= 1 / 500**0.5


@pytest.mark.parametrize("ways", [{}, {"overrides": ["export.bits=5"]}, {"with_recipe": True}])
def test_an_exported_file_is_trained_for_another_task(converted: Path, tmp_path: Path, ways: dict[str, Any]) -> None:
    compressnet.export(converted, tmp_path / "model.safetensors", **ways)
    trained = compressnet.finetune(tmp_path / "model.safetensors", tmp_path / "out", overrides=TO_FOUR)
    assert describe(trained.path).quantisers == {}
    account = compressnet.export(trained.path, tmp_path / "again.safetensors", overrides=["export.bits=4"])
    assert account.nbytes < (tmp_path / "model.safetensors").stat().st_size
    assert compressnet.load(tmp_path / "again.safetensors")(torch.zeros(1, 1, 28, 28)).shape == (1, 4)


def test_numbers_that_were_trained_through_quantisers_leave_their_grids(converted: Path, tmp_path: Path) -> None:
    overrides = ["finetune.epochs=1", "finetune.quantise={start: 0}", "export.bits=3"]
    first = compressnet.finetune(converted, tmp_path / "first", overrides=overrides)
    assert "fc2.structured.buckets" in describe(first.path).quantisers
    plain = compressnet.finetune(first.path, tmp_path / "plain", overrides=[*TO_FOUR, "finetune.quantise=null"])
    assert describe(plain.path).quantisers == {}
    again = compressnet.finetune(first.path, tmp_path / "again", overrides=TO_FOUR)
    assert "fc2.structured.buckets" in describe(again.path).quantisers
    assert len(numbers(again.path)["fc2.structured.buckets"].unique()) <= 7


def test_positions_that_export_has_packed_are_made_anew_with_the_layer(lenet: dict[str, Any], tmp_path: Path) -> None:
    lenet["layers"] = [{"match": ["fc1", "fc2"], "method": "pruned", "density": 0.02}]
    compressnet.convert(lenet, tmp_path / "converted.safetensors")
    compressnet.export(
        tmp_path / "converted.safetensors", tmp_path / "model.safetensors", overrides=["export.coder=none"]
    )
    assert "gaps" in "".join(numbers(tmp_path / "model.safetensors"))
    trained = compressnet.finetune(tmp_path / "model.safetensors", tmp_path / "out", overrides=TO_FOUR)
    assert numbers(trained.path)["fc2.structured.values"].numel() == 4 * 500 // 50


def test_a_layer_that_its_method_cannot_hold_any_more_becomes_dense_and_that_is_said(
    lenet: dict[str, Any], tmp_path: Path
) -> None:
    lenet["layers"] = [{"match": "fc2", "method": "lowrank", "rank": 8}]
    compressnet.convert(lenet, tmp_path / "a.safetensors")
    told: list[str] = []

    class Listener(Progress):
        def note(self, message: str) -> None:
            told.append(message)

    trained = finetune(tmp_path / "a.safetensors", tmp_path / "out", overrides=TO_FOUR, progress=Listener())
    assert numbers(trained.path)["fc2.weight"].shape == (4, 500)
    assert any("fc2 is made anew for 4 classes: dense, as lowrank cannot hold it" in line for line in told)


def test_the_layer_behind_a_block_takes_its_features(lenet: dict[str, Any], tmp_path: Path) -> None:
    block = {"match": ["fc1", "relu3", "fc2"], "block": "deepfried_head", "features": 1024}
    lenet["layers"] = [block, {"match": "conv2", "method": "freshnet", "ratio": 2}]
    compressnet.convert(lenet, tmp_path / "a.safetensors")
    trained = compressnet.finetune(tmp_path / "a.safetensors", tmp_path / "out", overrides=TO_FOUR)
    assert numbers(trained.path)["fc2.weight"].shape == (4, 1024)
    assert numbers(trained.path)["fc2.weight"].std().item() == pytest.approx(1 / (3 * 1024) ** 0.5, rel=0.1)
    last = describe(trained.path).layers[-1]
    assert (last.shape, last.dense_shape) == ((4, 1024), (4, 500))


def test_a_dense_file_gets_a_new_last_layer_as_well(lenet: dict[str, Any], tmp_path: Path) -> None:
    compressnet.convert(lenet | {"layers": []}, tmp_path / "dense.safetensors")
    trained = compressnet.finetune(tmp_path / "dense.safetensors", tmp_path / "out", overrides=TO_FOUR)
    assert numbers(trained.path)["fc2.weight"].shape == (4, 500)


def test_auxiliary_heads_get_new_last_layers_too(tmp_path: Path) -> None:
    recipe = {
        "model": {"name": "googlenet", "num_classes": 3},
        "layers": [{"match": "fc", "method": "hashednet", "ratio": 2}],
    }
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    model = compressnet.load(tmp_path / "a.safetensors", form="compressed")
    renew_classifier_(model, describe(tmp_path / "a.safetensors"), 5, seed=0)
    outputs = model.train()(torch.zeros(2, 3, 96, 96))
    assert [logits.shape for logits in outputs] == [(2, 5)] * 3


def test_a_last_layer_that_starts_from_zeros_is_drawn_where_a_method_holds_it() -> None:
    zeros = nn.Linear(24, 17)
    nn.init.zeros_(zeros.weight)
    dense = PlannedLayer("heads.head", "linear", (17, 24))
    assert not _drawn(zeros, dense, 0).get_parameter("weight").any()
    assert _drawn(zeros, dataclasses.replace(dense, method="lowrank"), 0).get_parameter("weight").all()


@pytest.mark.parametrize("method", [None, "hashednet"])
def test_squeezenets_last_layer_is_a_convolution(method: str | None, tmp_path: Path) -> None:
    layers = [{"match": "*.expand3x3", "method": "freshnet", "ratio": 4}]
    if method:
        layers.append({"match": "classifier.1", "method": method, "ratio": 2})
    data = {"dataset": "fake", "num_classes": 3, "samples": 8, "batch_size": 4, "image_size": 64}
    recipe = {"model": {"name": "squeezenet1_1"}, "data": data, "layers": layers, "finetune": {"epochs": 1}}
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    trained = compressnet.finetune(tmp_path / "a.safetensors", tmp_path / "out", overrides=["model.num_classes=3"])
    last = next(layer for layer in describe(trained.path).layers if layer.name == "classifier.1")
    assert (last.shape, last.method, last.numel()) == ((3, 512, 1, 1), method, 1536 // (2 if method else 1))
    assert compressnet.load(trained.path)(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_an_interrupted_transfer_resumes_to_the_same_bits(converted: Path, tmp_path: Path) -> None:
    overrides = [*TO_FOUR, "finetune.epochs=3"]
    compressnet.finetune(converted, tmp_path / "whole", overrides=overrides)
    with pytest.raises(Interrupted):
        compressnet.finetune(converted, tmp_path / "parts", overrides=overrides, progress=StopAfter(5, signal.SIGTERM))
    compressnet.finetune(converted, tmp_path / "parts", overrides=overrides, resume=True)
    best = [(tmp_path / name / "best.safetensors").read_bytes() for name in ("whole", "parts")]
    assert best[0] == best[1]


def test_a_transfer_to_other_classes_is_another_run(converted: Path, tmp_path: Path) -> None:
    compressnet.finetune(converted, tmp_path / "out", overrides=TO_FOUR)
    with pytest.raises(ResumeError, match=r"model\.num_classes was 4, is 5"):
        compressnet.finetune(converted, tmp_path / "out", overrides=[*TO_FOUR, "model.num_classes=5"], resume=True)


def test_a_teacher_of_the_new_task_is_named_by_its_weights(
    converted: Path, lenet: dict[str, Any], tmp_path: Path
) -> None:
    compressnet.convert(lenet | {"layers": []}, tmp_path / "dense.safetensors")
    dense = compressnet.finetune(tmp_path / "dense.safetensors", tmp_path / "dense", overrides=TO_FOUR)
    distilled = [*TO_FOUR, "finetune.distill={}", f"model.weights={dense.path}"]
    compressnet.finetune(converted, tmp_path / "out", overrides=distilled)
    other = [*distilled, f"model.weights={tmp_path / 'other.safetensors'}"]
    (tmp_path / "other.safetensors").write_bytes(dense.path.read_bytes())
    with pytest.raises(ResumeError, match=r"model\.weights was '.*best.safetensors', is '.*other.safetensors'"):
        compressnet.finetune(converted, tmp_path / "out", overrides=other, resume=True)


def test_a_teacher_of_other_classes_is_refused(converted: Path, lenet: dict[str, Any], tmp_path: Path) -> None:
    dense = tmp_path / "dense.safetensors"
    compressnet.convert(lenet | {"layers": []}, dense)
    with pytest.raises(TrainingError, match=r"(?s)classes.*--set model\.weights=PATH"):
        compressnet.finetune(
            converted, tmp_path / "out", overrides=[*TO_FOUR, "finetune.distill={}", f"model.weights={dense}"]
        )


def test_a_teacher_that_is_another_model_is_refused(converted: Path, tmp_path: Path) -> None:
    compressnet.convert({"model": {"name": "lenet_300_100", "num_classes": 4}}, tmp_path / "other.safetensors")
    distilled = [*TO_FOUR, "finetune.distill={}", f"model.weights={tmp_path / 'other.safetensors'}"]
    with pytest.raises(WeightsError, match="does not fit"):
        compressnet.finetune(converted, tmp_path / "out", overrides=distilled)


@pytest.mark.parametrize(
    ("classes", "told"), [(12, "the data has 12 classes, the model 10"), (4, "has 4 classes, the model 10")]
)
def test_data_of_other_classes_names_the_cure(converted: Path, tmp_path: Path, classes: int, told: str) -> None:
    named = compressnet.finetune(converted, tmp_path / "named", overrides=["finetune.epochs=0"]).path
    with pytest.raises(DataError, match=f"(?s){told}.*--set model.num_classes={classes}"):
        compressnet.finetune(named, tmp_path / "out", overrides=["data.dataset=fake", f"data.num_classes={classes}"])


@pytest.mark.parametrize("override", ["model.name=alexnet", "model={name: lenet5, num_classes: 4}", "model=null"])
def test_nothing_else_of_the_model_can_be_set(converted: Path, tmp_path: Path, override: str) -> None:
    with pytest.raises(RecipeError, match=r"converted already\n.*model\.num_classes and model\.weights"):
        compressnet.finetune(converted, tmp_path / "out", overrides=[override])


@pytest.mark.parametrize("value", ["0", "many", "1000001"])
def test_a_number_of_classes_that_is_none_is_refused(converted: Path, tmp_path: Path, value: str) -> None:
    with pytest.raises(RecipeError, match=r"model\.num_classes"):
        compressnet.finetune(converted, tmp_path / "out", overrides=[f"model.num_classes={value}"])


def test_a_file_is_not_evaluated_as_another_model(converted: Path) -> None:
    with pytest.raises(RecipeError, match="converted already"):
        compressnet.evaluate(converted, overrides=["model.num_classes=4"])
