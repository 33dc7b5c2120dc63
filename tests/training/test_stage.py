import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import compressnet
from compressnet.description import describe
from compressnet.errors import DataError, FileError, RecipeError, ResumeError, TrainingError
from compressnet.training.interrupt import Interrupted
from compressnet.training.stage import _class_names
from tests.training.stopping import StopAfter


@pytest.fixture
def converted(lenet: dict[str, Any], tmp_path: Path) -> Path:
    """One layer of it has learning rates and a weight decay of its own."""
    lenet["layers"][1] |= {"lr_scale": {"gauss": 4, "signs": 0}, "weight_decay": 0.01}
    compressnet.convert(lenet, tmp_path / "converted.safetensors")
    return tmp_path / "converted.safetensors"


def test_training_lowers_the_loss_and_its_files_say_so(converted: Path, tmp_path: Path) -> None:
    trained = compressnet.finetune(converted, tmp_path / "out", overrides=["finetune.epochs=3"])
    assert trained.best.loss < trained.before.loss
    assert trained.images == {"train": 1293, "val": 144, "test": 360}
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert {"loss", "top1", "val", "images_per_s"} <= lines[1].keys()
    assert (tmp_path / "out" / "last.pt").exists()
    measured = compressnet.evaluate(tmp_path / "out" / "best.safetensors")
    assert measured == trained.test


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_resumes_to_the_same_bits(
    converted: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    compressnet.finetune(converted, tmp_path / "whole", overrides=["finetune.epochs=2"])
    with pytest.raises(Interrupted, match="--resume") as caught:
        compressnet.finetune(
            converted, tmp_path / "parts", overrides=["finetune.epochs=2"], progress=StopAfter(27, number)
        )
    assert caught.value.exit_code == code
    compressnet.finetune(converted, tmp_path / "parts", overrides=["finetune.epochs=2"], resume=True)
    whole, parts = (torch.load(tmp_path / name / "last.pt", weights_only=True)["model"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    best = [(tmp_path / name / "best.safetensors").read_bytes() for name in ("whole", "parts")]
    assert best[0] == best[1]


def test_the_learning_rates_of_a_rule_reach_its_tensors(converted: Path, tmp_path: Path) -> None:
    compressnet.finetune(converted, tmp_path / "out", overrides=["finetune.epochs=1"])
    state = torch.load(tmp_path / "out" / "last.pt", weights_only=True)
    groups = {group["lr_scale"]: group for group in state["optimizer"]["param_groups"]}
    assert groups[4]["lr"] == pytest.approx(4 * groups[1]["lr"])
    before = compressnet.load(converted, form="compressed").state_dict()
    still = [name for name in before if torch.equal(before[name], state["model"][name])]
    assert still == ["fc1.structured.signs"]


def test_another_recipe_cannot_be_resumed_and_what_differs_is_said(converted: Path, tmp_path: Path) -> None:
    compressnet.finetune(converted, tmp_path / "out", overrides=["finetune.epochs=1"])
    with pytest.raises(ResumeError, match=r"another run: finetune\.lr was 0\.002, is 0\.5\n"):
        compressnet.finetune(
            converted, tmp_path / "out", overrides=["finetune.epochs=1", "finetune.lr=0.5"], resume=True
        )


def test_there_must_be_something_to_resume_before_images_and_teacher_are_read(converted: Path, tmp_path: Path) -> None:
    overrides = ["data={dataset: imagefolder, root: nowhere}", "finetune.distill={}"]
    with pytest.raises(ResumeError, match="without --resume"):
        compressnet.finetune(converted, tmp_path / "out", resume=True, overrides=overrides)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "best.safetensors").touch()
    with pytest.raises(ResumeError, match="--force"):
        compressnet.finetune(converted, tmp_path / "out", resume=True, overrides=overrides)
    (tmp_path / "out" / "last.pt").touch()
    with pytest.raises(ResumeError, match=r"best\.safetensors: the best epoch so far is gone .*\n.*--force"):
        compressnet.finetune(converted, tmp_path / "out", resume=True, overrides=overrides)


@pytest.mark.parametrize("place", ["converted.safetensors", "converted.safetensors/out"])
def test_a_file_is_no_folder_to_train_in(converted: Path, tmp_path: Path, place: str) -> None:
    with pytest.raises(FileError, match=r"converted\.safetensors: it is a file, not a folder"):
        compressnet.finetune(converted, tmp_path / place, force=True, overrides=["data.root=nowhere"])


def test_a_history_that_cannot_be_written_is_told(converted: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "metrics.jsonl").mkdir(parents=True)
    with pytest.raises(FileError, match=r"metrics\.jsonl: it is a folder"):
        compressnet.finetune(converted, tmp_path / "out")


def test_data_that_is_missing_is_told_of_the_file_by_its_path(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        compressnet.finetune(converted, tmp_path / "out", overrides=["data=null"])
    assert str(caught.value).startswith(f"{converted}: its recipe has no data section")


def test_classes_are_called_as_in_the_data_they_were_last_trained_on(converted: Path, tmp_path: Path) -> None:
    compressnet.finetune(converted, tmp_path / "digits", overrides=["finetune.epochs=0"])
    digits = tmp_path / "digits" / "best.safetensors"
    assert describe(digits).classes == tuple("0123456789")
    compressnet.finetune(digits, tmp_path / "fake", overrides=["finetune.epochs=0", "data.dataset=fake"])
    assert describe(tmp_path / "fake" / "best.safetensors").classes == tuple(f"class {n}" for n in range(10))


def test_imagenets_folders_take_no_words_from_a_model() -> None:
    words, folders = tuple(f"animal {n}" for n in range(1000)), tuple(f"n{n:08}" for n in range(1000))
    assert _class_names(words, folders, 1000) == words
    assert _class_names(None, folders, 1000) == folders
    assert _class_names(words, words[:5], 1000) == words


@pytest.mark.parametrize("override", ["calibration=null", "calibration.images=9", "layers=[]", "model.name=alexnet"])
def test_what_is_past_cannot_be_set(converted: Path, tmp_path: Path, override: str) -> None:
    with pytest.raises(RecipeError, match="is converted already"):
        compressnet.finetune(converted, tmp_path / "out", overrides=[override])


def test_a_finished_run_is_not_overwritten(converted: Path, tmp_path: Path) -> None:
    compressnet.finetune(converted, tmp_path / "out", overrides=["finetune.epochs=1"])
    with pytest.raises(FileError, match="--resume goes on"):
        compressnet.finetune(converted, tmp_path / "out")


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_loss_that_is_not_finite_stops_with_the_cure(converted: Path, tmp_path: Path) -> None:
    overrides = ["finetune.epochs=2", "finetune.lr=1e18", "finetune.optimizer=sgd", "finetune.warmup_epochs=0"]
    with pytest.raises(TrainingError, match=r"not finite.*\n.*lower finetune.lr"):
        compressnet.finetune(converted, tmp_path / "out", overrides=overrides)
    compressnet.load(tmp_path / "out" / "best.safetensors")


def test_a_batch_larger_than_the_training_part_is_refused(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.batch_size: 1294 images a step, but there are 1293 .*\n.*1293 at most"):
        compressnet.finetune(converted, tmp_path / "out", overrides=["data.batch_size=1294"])
    assert not (tmp_path / "out").exists()


def test_data_with_more_classes_than_the_model_is_refused(converted: Path, tmp_path: Path) -> None:
    overrides = ["data.dataset=fake", "data.num_classes=11"]
    with pytest.raises(DataError, match="11"):
        compressnet.finetune(converted, tmp_path / "out", overrides=overrides)


@pytest.mark.parametrize("name", ["googlenet", pytest.param("inception_v3", marks=pytest.mark.slow)])
def test_models_with_auxiliary_heads_train_with_their_outputs(name: str, tmp_path: Path) -> None:
    recipe = {
        "model": {"name": name, "num_classes": 2},
        "data": {
            "dataset": "fake",
            "num_classes": 2,
            "samples": 6,
            "batch_size": 4,
            "image_size": 128 if name == "googlenet" else 299,
        },
        "layers": [{"match": {"kernel": [3, 3], "min_numel": 100_000}, "method": "freshnet", "ratio": 8}],
        "finetune": {"epochs": 1},
    }
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    head = "aux1.fc2" if name == "googlenet" else "AuxLogits.fc"
    before = compressnet.load(tmp_path / "a.safetensors").get_submodule(head).weight.clone()  # type: ignore[union-attr, operator]
    compressnet.finetune(tmp_path / "a.safetensors", tmp_path / "out")
    state = torch.load(tmp_path / "out" / "last.pt", weights_only=True)["model"]
    assert not torch.equal(state[f"{head}.weight"], before)


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_a_model_learns_from_the_dense_one(lenet: dict[str, Any], tmp_path: Path, augment: str) -> None:
    overrides = ["finetune.distill={weight: 1.0, temperature: 2}", f"data.augment={augment}", "finetune.epochs=1"]
    result = compressnet.run(lenet, tmp_path / "out", overrides=overrides)
    assert result.metrics["finetuned"].loss < 2.3


def test_there_must_be_a_dense_model_to_learn_from(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="weights is null"):
        compressnet.finetune(converted, tmp_path / "out", overrides=["finetune.distill={}"])


def test_images_too_small_for_an_auxiliary_head_are_refused_before_training(tmp_path: Path) -> None:
    recipe = {
        "model": {"name": "inception_v3", "num_classes": 2},
        "data": {"dataset": "fake", "num_classes": 2, "samples": 6, "batch_size": 2, "image_size": 96},
        "layers": [],
    }
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    with pytest.raises(TrainingError, match="auxiliary head cannot take images of 96×96"):
        compressnet.finetune(tmp_path / "a.safetensors", tmp_path / "out")
