from pathlib import Path
from typing import Any

import pytest

import compressnet
from compressnet.errors import FileError


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


def test_pretrained_weights_are_the_baseline(lenet: dict[str, Any], tmp_path: Path) -> None:
    trained = compressnet.run(lenet, tmp_path / "first")
    del lenet["pretrain"]
    lenet["model"]["weights"] = str(tmp_path / "first" / "pretrain" / "dense.safetensors")
    second = compressnet.run(lenet, tmp_path / "second")
    assert second.metrics["dense"].top1 == pytest.approx(trained.metrics["dense"].top1)


def test_two_runs_of_one_recipe_give_the_same_bytes(lenet: dict[str, Any], tmp_path: Path) -> None:
    recipe = {**lenet, "pretrain": None, "finetune": {"epochs": 1}}
    for name in ("a", "b"):
        compressnet.run(recipe, tmp_path / name)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_a_damaged_ledger_is_an_error(lenet: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(FileError, match="remove it"):
        compressnet.run(lenet, tmp_path)


def test_a_last_layer_made_anew_is_no_baseline(lenet: dict[str, Any], tmp_path: Path) -> None:
    first = compressnet.run(lenet, tmp_path / "first")
    del lenet["pretrain"]
    weights = str(tmp_path / "first" / "pretrain" / "dense.safetensors")
    lenet["model"] = {"name": "lenet5", "weights": weights, "num_classes": 12}
    second = compressnet.run(lenet, tmp_path / "second", overrides=["finetune.epochs=1"])
    assert "dense" in first.metrics
    assert "dense" not in second.metrics
