from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

import compressnet
from compressnet.description import describe
from compressnet.errors import DataError, FileError


def test_all_stages_run_and_a_second_call_skips_them(lenet: dict[str, Any], tmp_path: Path) -> None:
    first = compressnet.run(lenet, tmp_path / "out")
    assert first.skipped == ()
    assert first.metrics.keys() == {"dense", "finetuned", "exported"}
    assert all(metrics.count == 360 for metrics in first.metrics.values())
    assert first.dense_file_nbytes > 5 * (first.account.file_nbytes or 0)
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.safetensors")}
    assert names == {
        "pretrain/dense.safetensors",
        "converted.safetensors",
        "finetune/best.safetensors",
        "model.safetensors",
    }
    again = compressnet.run(lenet, tmp_path / "out")
    assert again.skipped == ("pretrain", "convert", "finetune", "export", "test exported")
    assert again.metrics == first.metrics


def test_only_what_changed_is_done_again(lenet: dict[str, Any], tmp_path: Path) -> None:
    compressnet.run(lenet, tmp_path / "out")
    again = compressnet.run(lenet, tmp_path / "out", overrides=["finetune.epochs=1"])
    assert again.skipped == ("pretrain", "convert")
    (tmp_path / "out" / "model.safetensors").unlink()
    assert "export" not in compressnet.run(lenet, tmp_path / "out", overrides=["finetune.epochs=1"]).skipped


def test_the_summary_has_each_stage(lenet: dict[str, Any], tmp_path: Path) -> None:
    finished = compressnet.run(lenet, tmp_path / "out", overrides=["finetune.calibrate={images: 50}"])
    assert list(finished.val) == ["dense", "converted", "after calibrate", "finetuned"]
    assert list(finished.nbytes) == ["dense", "converted", "finetuned", "exported"]


def test_pretrained_weights_are_the_baseline(lenet: dict[str, Any], tmp_path: Path) -> None:
    trained = compressnet.run(lenet, tmp_path / "first")
    del lenet["pretrain"]
    lenet["model"]["weights"] = str(tmp_path / "first" / "pretrain" / "dense.safetensors")
    second = compressnet.run(lenet, tmp_path / "second")
    assert second.metrics["dense"].top1 == pytest.approx(trained.metrics["dense"].top1)


def test_a_batch_larger_than_the_training_part_is_refused_before_anything_is_converted(
    lenet: dict[str, Any], tmp_path: Path
) -> None:
    compressnet.run({**lenet, "layers": [], "finetune": {"epochs": 0}}, tmp_path / "first")
    del lenet["pretrain"]
    lenet["model"]["weights"] = str(tmp_path / "first" / "pretrain" / "dense.safetensors")
    with pytest.raises(DataError, match="there are 1293 to train on"):
        compressnet.run(lenet, tmp_path / "second", overrides=["data.batch_size=2000"])
    assert not (tmp_path / "second" / "converted.safetensors").exists()


def test_how_often_the_state_is_saved_changes_nothing(lenet: dict[str, Any], tmp_path: Path) -> None:
    compressnet.run(lenet, tmp_path / "out")
    again = compressnet.run(lenet, tmp_path / "out", overrides=["finetune.save_every=9", "pretrain.save_every=1min"])
    assert again.skipped == ("pretrain", "convert", "finetune", "export", "test exported")


def test_two_runs_of_one_recipe_give_the_same_bytes(lenet: dict[str, Any], tmp_path: Path) -> None:
    recipe = {**lenet, "pretrain": None, "finetune": {"epochs": 1}}
    for name in ("a", "b"):
        compressnet.run(recipe, tmp_path / name)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("ledger", [b"{", b"[]", b'{"pretrain": {"x": 1}}', b'{"pretrain": 1}', b"\xff", b"[" * 10**5])
def test_a_damaged_ledger_is_an_error(lenet: dict[str, Any], tmp_path: Path, ledger: bytes) -> None:
    (tmp_path / "run.json").write_bytes(ledger)
    with pytest.raises(FileError, match=r"it is damaged\n.*remove it"):
        compressnet.run(lenet, tmp_path)


def test_a_ledger_that_cannot_be_read_is_an_error(lenet: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    with pytest.raises(FileError, match=r"run\.json: cannot be read"):
        compressnet.run(lenet, tmp_path)


@pytest.mark.parametrize("below", ["file", "file/a/b"])
def test_a_file_is_no_folder_for_a_run(lenet: dict[str, Any], tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="file: it is a file, not a folder"):
        compressnet.run(lenet, tmp_path / below)


def quick(recipe: dict[str, Any]) -> dict[str, Any]:
    """Without training, on noise."""
    data = {"dataset": "fake", "image_size": 28, "samples": 8, "batch_size": 8}
    rest = {key: value for key, value in recipe.items() if key != "pretrain"}
    return rest | {"data": data, "layers": recipe["layers"][:1], "finetune": {"epochs": 0}}


def flip(path: Path) -> None:
    """Change the last byte."""
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))


def test_a_stage_whose_file_is_damaged_is_done_again(lenet: dict[str, Any], tmp_path: Path) -> None:
    compressnet.run(quick(lenet), tmp_path)
    converted, exported = tmp_path / "converted.safetensors", tmp_path / "model.safetensors"
    good = converted.read_bytes(), exported.read_bytes()
    flip(exported)
    assert compressnet.run(quick(lenet), tmp_path).skipped == ("convert", "test exported")
    converted.write_bytes(good[0][:-100])
    assert compressnet.run(quick(lenet), tmp_path).skipped == ("export", "test exported")
    assert (converted.read_bytes(), exported.read_bytes()) == good


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_weights_in_a_file_of_the_same_name_are_noticed(
    lenet: dict[str, Any], tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    recipe = quick(lenet) | {"model": {"name": "lenet5", "weights": str(path)}}
    save = torch.save if suffix == ".pth" else save_file
    for seed in (0, 1):
        torch.manual_seed(seed)
        save(get_model("lenet5").state_dict(), path)
        assert compressnet.run(recipe, tmp_path / "out").skipped == ()
    assert compressnet.run(recipe, tmp_path / "out").skipped == ("test dense", "convert", "export", "test exported")


def test_how_images_are_loaded_decides_nothing(lenet: dict[str, Any], tmp_path: Path) -> None:
    first = compressnet.run(quick(lenet), tmp_path)
    again = compressnet.run(quick(lenet), tmp_path, overrides=["data.workers=1", "data.cache=false"])
    assert again.skipped == ("convert", "export", "test exported")
    assert again.metrics == first.metrics


def test_a_stage_that_is_done_again_loads_images_as_told_now(lenet: dict[str, Any], tmp_path: Path) -> None:
    compressnet.run(quick(lenet), tmp_path)
    compressnet.run(quick(lenet), tmp_path, overrides=["data.workers=1", "finetune.epochs=1"])
    assert describe(tmp_path / "converted.safetensors").recipe["data"].get("workers") is None
    assert describe(tmp_path / "finetune" / "best.safetensors").recipe["data"]["workers"] == 1


def test_a_last_layer_made_anew_is_no_baseline(lenet: dict[str, Any], tmp_path: Path) -> None:
    first = compressnet.run(lenet, tmp_path / "first")
    del lenet["pretrain"]
    weights = str(tmp_path / "first" / "pretrain" / "dense.safetensors")
    lenet["model"] = {"name": "lenet5", "weights": weights, "num_classes": 12}
    second = compressnet.run(lenet, tmp_path / "second", overrides=["finetune.epochs=1"])
    assert "dense" in first.metrics
    assert "dense" not in second.metrics
