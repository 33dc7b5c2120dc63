import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import compressnet
from compressnet.description import describe
from compressnet.errors import DataError, RecipeError, TrainingError
from compressnet.training.interrupt import Interrupted
from tests.conftest import LENET
from tests.training.stopping import StopAfter

DISTIL = ["finetune.labels=false", "finetune.distill={temperature: 2}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few digits: train and test, each with a folder for every class."""
    root, bunch = tmp_path_factory.mktemp("digits"), load_digits()
    for index in range(120):
        place = root / ("test" if index < 30 else "train") / str(bunch.target[index])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((bunch.images[index] * 15).astype("uint8")).save(place / f"{index:03}.png")
    return root


@pytest.fixture(scope="module")
def dense(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeNet-5, trained on them for a moment."""
    out = tmp_path_factory.mktemp("dense")
    data = {"dataset": "imagefolder", "root": str(folder), "image_size": 28, "batch_size": 16}
    compressnet.run(
        {**LENET, "data": data, "layers": [], "finetune": {"epochs": 0}}, out, overrides=["pretrain.epochs=3"]
    )
    return out / "pretrain" / "dense.safetensors"


@pytest.fixture(scope="module")
def recipe(dense: Path, folder: Path) -> dict[str, Any]:
    model = {"name": "lenet5", "weights": str(dense)}
    data = {"dataset": "imagefolder", "root": str(folder), "image_size": 28, "batch_size": 16}
    layers = [{"match": "conv2", "method": "freshnet", "ratio": 4}, {"match": "fc2", "method": "hashednet", "ratio": 8}]
    return {"model": model, "data": data, "layers": layers, "calibration": None, "finetune": {"epochs": 2, "lr": 0.002}}


@pytest.fixture(scope="module")
def converted(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("converted") / "converted.safetensors"
    compressnet.convert(recipe, path)
    return path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.pt", weights_only=True)["model"]


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_labels_are_not_looked_at(converted: Path, folder: Path, tmp_path: Path) -> None:
    for dataset in ("imagefolder", "images"):
        data = [f"data.dataset={dataset}", f"data.root={folder}"]
        trained = compressnet.finetune(converted, tmp_path / dataset, overrides=[*DISTIL, *data])
        assert (trained.test is None) == (dataset == "images")
        assert trained.images == {"train": 81, "val": 9} | ({"test": 30} if dataset == "imagefolder" else {})
    with_labels, without = weights(tmp_path / "imagefolder"), weights(tmp_path / "images")
    assert all(torch.equal(with_labels[name], without[name]) for name in without)


def test_what_cannot_be_told_without_labels_is_absent(converted: Path, folder: Path, tmp_path: Path) -> None:
    data = ["data.dataset=images", f"data.root={folder}"]
    trained = compressnet.finetune(converted, tmp_path / "out", overrides=[*DISTIL, *data])
    results = describe(trained.path).results["finetuned"]
    assert "test" not in trained.to_json()
    assert "test" not in results
    assert results["before"].keys() == results["val"].keys() == {"count", "divergence"}
    lines = history(tmp_path / "out")
    assert lines[0].keys() == {"epoch", "val"}
    assert lines[1].keys() == {"epoch", "loss", "images_per_s", "lr", "seconds", "skipped", "val"}
    assert describe(trained.path).classes == describe(converted).classes
    compressnet.report(trained.path)


def test_the_best_epoch_is_the_nearest_to_the_dense_model(converted: Path, tmp_path: Path) -> None:
    trained = compressnet.finetune(converted, tmp_path / "out", overrides=[*DISTIL, "finetune.epochs=3"])
    divergences = [line["val"]["divergence"] for line in history(tmp_path / "out")]
    assert trained.best.divergence == min(divergences) < divergences[0]
    assert trained.best_epoch == divergences.index(min(divergences))
    assert trained.test == compressnet.evaluate(trained.path)


def test_data_of_other_classes_will_do(recipe: dict[str, Any], tmp_path: Path) -> None:
    data = {"dataset": "fake", "num_classes": 12, "image_size": 28, "samples": 40, "batch_size": 20}
    finetune = {"epochs": 1, "labels": False, "distill": {}, "mixup": 0.2}
    unlabelled = recipe | {"data": data, "finetune": finetune}
    finished = compressnet.run(unlabelled, tmp_path / "out")
    assert finished.metrics == {}
    with pytest.raises(DataError, match="the data has 12 classes, the model 10"):
        compressnet.evaluate(tmp_path / "out" / "converted.safetensors")


def test_a_run_without_labels_tests_where_the_data_has_some(recipe: dict[str, Any], tmp_path: Path) -> None:
    unlabelled = recipe | {"finetune": {"epochs": 1, "labels": False, "distill": {}}}
    finished = compressnet.run(unlabelled, tmp_path / "out")
    assert finished.metrics.keys() == {"dense", "finetuned", "exported"}
    assert compressnet.run(unlabelled, tmp_path / "out").metrics == finished.metrics


def test_images_without_labels_are_enough_to_convert_and_export(recipe: dict[str, Any], tmp_path: Path) -> None:
    images = {"data": recipe["data"] | {"dataset": "images"}, "calibration": {"images": 20}}
    compressnet.run(recipe | images | {"finetune": {"epochs": 0}, "export": {"bits": "auto"}}, tmp_path / "out")
    assert describe(tmp_path / "out" / "converted.safetensors").results["output_errors"].keys() == {"conv2", "fc2"}
    with pytest.raises(DataError, match=r"data set 'images' have no labels\n.*finetune\.labels: false"):
        compressnet.run(recipe | images, tmp_path / "labelled")
    assert not (tmp_path / "labelled" / "converted.safetensors").exists()


def test_images_without_labels_are_not_to_evaluate_on(converted: Path, folder: Path, tmp_path: Path) -> None:
    data = ["data.dataset=images", f"data.root={folder}"]
    with pytest.raises(DataError, match=r"the images of data set 'images' have no labels\n  give class folders"):
        compressnet.evaluate(converted, overrides=data)
    with pytest.raises(DataError, match="have no labels"):
        compressnet.finetune(converted, tmp_path / "out", overrides=data)


@pytest.mark.parametrize("quantise", ["null", "{start: 0.4, rate: 0.1}"])
def test_a_run_that_learns_from_layers_resumes_to_the_same_bits(converted: Path, tmp_path: Path, quantise: str) -> None:
    distill = "finetune.distill={features: conv2, attention: 'conv?'}"
    overrides = ["finetune.labels=false", distill, f"finetune.quantise={quantise}", "export.bits=4"]
    compressnet.finetune(converted, tmp_path / "whole", overrides=overrides)
    with pytest.raises(Interrupted):
        compressnet.finetune(converted, tmp_path / "parts", overrides=overrides, progress=StopAfter(7, signal.SIGINT))
    compressnet.finetune(converted, tmp_path / "parts", overrides=overrides, resume=True)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_layers_draw_nearer_when_they_are_taught(converted: Path, dense: Path, tmp_path: Path) -> None:
    images = torch.rand(20, 1, 28, 28)
    teacher, student, error = compressnet.load(dense), compressnet.load(converted, form="compressed"), {}
    for weight in (0, 100):
        distill = f"finetune.distill={{features: conv2, feature_weight: {weight}}}"
        compressnet.finetune(converted, tmp_path / str(weight), overrides=["finetune.labels=false", distill])
        student.load_state_dict(weights(tmp_path / str(weight)))
        given, wanted = (each.conv2(each.conv1(images)) for each in (student, teacher))
        error[weight] = (given - wanted).square().mean()
    assert error[100] < error[0]


def test_a_layer_that_is_not_there_is_told_before_any_work(converted: Path, tmp_path: Path) -> None:
    overrides = ["data.dataset=imagefolder", "data.root=nowhere", "finetune.distill={attention: conv22}"]
    with pytest.raises(RecipeError, match=r"distill\.attention: 'conv22' matches no layer; did you mean 'conv2'\?"):
        compressnet.finetune(converted, tmp_path / "out", overrides=overrides)


def test_a_layer_that_cannot_be_taught_is_told_before_training(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"fc1 gives \(1, \d+\), which has no places to attend to"):
        compressnet.finetune(converted, tmp_path / "out", overrides=["finetune.distill={attention: fc1}"])


def test_the_dense_model_must_be_there_and_of_the_same_classes(
    recipe: dict[str, Any], dense: Path, converted: Path, tmp_path: Path
) -> None:
    compressnet.convert(
        recipe | {"model": recipe["model"] | {"num_classes": 4}, "data": None}, tmp_path / "four.safetensors"
    )
    overrides = [*DISTIL, "data.dataset=fake"]
    with pytest.raises(TrainingError, match=r"dense\.safetensors, tells 10 classes apart, the compressed one 4\n"):
        compressnet.finetune(tmp_path / "four.safetensors", tmp_path / "out", overrides=overrides)
    renamed = compressnet.finetune(converted, tmp_path / "fake", overrides=["data.dataset=fake", "finetune.epochs=0"])
    with pytest.raises(
        TrainingError, match="tells 0, 1, 2, … 9 apart, the compressed one class 0, class 1, class 2, … class 9"
    ):
        compressnet.finetune(renamed.path, tmp_path / "out", overrides=overrides)


def test_labels_can_be_left_out_only_for_a_teacher(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"finetune: without labels there is only the dense model .* distill: \{\}"):
        compressnet.finetune(converted, tmp_path / "out", overrides=["finetune.labels=false"])
