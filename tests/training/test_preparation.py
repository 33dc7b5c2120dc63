import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressnet
from compressnet.data.datasets import open_part
from compressnet.data.loading import make_loader
from compressnet.description import describe
from compressnet.errors import TrainingError
from compressnet.progress import Progress
from compressnet.recipe import Recipe
from compressnet.training.interrupt import Interrupted
from tests.conftest import LENET
from tests.training.stopping import StopAfter

CALIBRATE = ["finetune.calibrate={images: 300}", "finetune.epochs=2"]


class Told(Progress):
    """Remembers titles and notes; sends this process a signal in a task whose title begins so."""

    def __init__(self, stop: str | None = None) -> None:
        self.stop, self.titles, self.notes = stop, list[str](), list[str]()

    @contextmanager
    def task(self, title: str, total: int | None = None) -> Iterator[Any]:
        self.titles.append(title)
        if self.stop and title.startswith(self.stop):
            os.kill(os.getpid(), signal.SIGINT)
        yield lambda steps=1, **fields: None

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained LeNet-5."""
    folder = tmp_path_factory.mktemp("dense")
    recipe = {key: LENET[key] for key in ("model", "data", "finetune")}
    compressnet.convert(recipe, folder / "untrained.safetensors")
    return compressnet.finetune(folder / "untrained.safetensors", folder / "out").path


@pytest.fixture
def recipe(lenet: dict[str, Any], dense: Path) -> dict[str, Any]:
    del lenet["pretrain"]
    return lenet | {"model": {"name": "lenet5", "weights": str(dense)}}


@pytest.fixture
def projected(recipe: dict[str, Any], tmp_path: Path) -> Path:
    """Converted without a look at an image."""
    compressnet.convert(recipe | {"calibration": None}, tmp_path / "converted.safetensors")
    return tmp_path / "converted.safetensors"


def test_a_file_that_was_converted_without_data_is_calibrated_before_training(projected: Path, tmp_path: Path) -> None:
    trained = compressnet.finetune(
        projected, tmp_path / "out", overrides=["finetune.calibrate={}", "finetune.epochs=0"]
    )
    assert trained.stages.keys() == {"calibrate"}
    assert trained.stages["calibrate"].top1 > trained.before.top1 + 20
    assert (trained.best, trained.best_epoch) == (trained.stages["calibrate"], 0)
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert lines[1] == {"epoch": 0, "stage": "calibrate", "val": trained.best.to_json()}
    assert describe(trained.path).results["finetuned"]["stages"] == {"calibrate": trained.best.to_json()}


def test_passes_follow_each_other(recipe: dict[str, Any], tmp_path: Path) -> None:
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    told, settings = Told(), ["finetune.calibrate={images: 200, passes: 2}", "finetune.epochs=0"]
    trained = compressnet.finetune(tmp_path / "a.safetensors", tmp_path / "out", overrides=settings, progress=told)
    assert [title for title in told.titles if "pass " in title] == [f"calibrating, pass {n} of 2" for n in (1, 2)]
    assert trained.stages["calibrate"].loss < 1.2 * trained.before.loss


def test_a_model_with_a_block_is_calibrated(recipe: dict[str, Any], tmp_path: Path) -> None:
    block = {"match": ["fc1", "relu3"], "block": "acdc_stack", "depth": 2, "features": 500}
    recipe |= {"layers": [block, recipe["layers"][0]], "calibration": None}
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    settings = ["finetune.calibrate={}", "finetune.epochs=0"]
    trained = compressnet.finetune(tmp_path / "a.safetensors", tmp_path / "out", overrides=settings)
    assert trained.stages["calibrate"].loss < trained.before.loss


@pytest.mark.parametrize("where", ["in the stage", "in training"])
def test_a_resumed_run_does_not_repeat_a_stage_and_ends_with_the_same_bits(
    projected: Path, tmp_path: Path, where: str
) -> None:
    compressnet.finetune(projected, tmp_path / "whole", overrides=CALIBRATE)
    stop: Progress = Told("calibrating") if where == "in the stage" else StopAfter(13, signal.SIGINT)
    with pytest.raises(Interrupted, match="after calibrate" if where == "in the stage" else "step 13"):
        compressnet.finetune(projected, tmp_path / "parts", overrides=CALIBRATE, progress=stop)
    told = Told()
    compressnet.finetune(projected, tmp_path / "parts", overrides=CALIBRATE, resume=True, progress=told)
    assert not [title for title in told.titles if title.startswith("calibrating")]
    whole, parts = (torch.load(tmp_path / name / "last.pt", weights_only=True)["model"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    best = [(tmp_path / name / "best.safetensors").read_bytes() for name in ("whole", "parts")]
    assert best[0] == best[1]


@pytest.mark.parametrize("key", ["calibrate", "gradual"])
def test_a_stage_that_needs_the_dense_model_says_so(lenet: dict[str, Any], tmp_path: Path, key: str) -> None:
    compressnet.convert(lenet, tmp_path / "a.safetensors")
    with pytest.raises(TrainingError, match=rf"finetune\.{key}: there is no trained dense model.*\n.*{key}=null"):
        compressnet.finetune(tmp_path / "a.safetensors", tmp_path / "out", overrides=[f"finetune.{key}={{}}"])


def test_what_has_been_trained_since_is_not_calibrated(projected: Path, tmp_path: Path) -> None:
    first = compressnet.finetune(projected, tmp_path / "first", overrides=["finetune.epochs=1"])
    with pytest.raises(TrainingError, match=r"conv1\.weight is not the dense model's.*\n.*calibrate=null"):
        compressnet.finetune(first.path, tmp_path / "out", overrides=CALIBRATE)


def test_what_has_nothing_to_do_is_left_out_with_a_note(recipe: dict[str, Any], tmp_path: Path) -> None:
    compressnet.convert(recipe | {"layers": []}, tmp_path / "a.safetensors")
    told = Told()
    trained = compressnet.finetune(
        tmp_path / "a.safetensors",
        tmp_path / "out",
        overrides=["finetune.calibrate={}", "finetune.batchnorm={}", "finetune.epochs=0"],
        progress=told,
    )
    assert trained.stages == {}
    assert [note.split(",")[0] for note in told.notes] == [
        "finetune.calibrate: no layer is compressed",
        "finetune.batchnorm: the model has no norm statistics",
    ]


def test_norm_statistics_are_those_of_training_images(tmp_path: Path) -> None:
    recipe = {
        "model": {"name": "resnet18", "num_classes": 10},
        "data": {"dataset": "fake", "samples": 36, "batch_size": 12, "image_size": 32},
        "layers": [{"match": "layer4.*.conv2", "method": "freshnet", "ratio": 64}],
        "finetune": {"epochs": 0, "batchnorm": {"images": 36}},
    }
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    trained = compressnet.finetune(tmp_path / "a.safetensors", tmp_path / "out")
    assert trained.stages.keys() == {"batchnorm"}
    tuned = compressnet.load(tmp_path / "a.safetensors", form="compressed")
    tuned.load_state_dict(torch.load(tmp_path / "out" / "last.pt", weights_only=True)["model"])
    before = compressnet.load(tmp_path / "a.safetensors", form="compressed")
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, tuned.state_dict()[name]) != ("running" in name or "num_batches" in name), name
    # All 36 images of the part are taken, whatever their order: the mean of what the first norm sees is known.
    images = torch.cat([batch for batch, _ in training_images(tmp_path / "a.safetensors")])
    assert len(images) == 36
    conv, norm = tuned.get_submodule("conv1"), tuned.get_submodule("bn1")
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        seen = conv(images)
    assert torch.allclose(norm.running_mean, seen.mean((0, 2, 3)), atol=1e-5)  # type: ignore[arg-type]


def training_images(file: Path) -> Any:
    description = describe(file)
    recipe = Recipe.model_validate(description.recipe)
    assert description.preprocessing is not None
    assert recipe.data is not None
    part = open_part(recipe.data, "train", description.preprocessing.transform("none"), recipe.seed)
    return make_loader(part, 12, 0, device="cpu")
