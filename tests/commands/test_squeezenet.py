"""Pretrained SqueezeNet 1.1 through shipped recipes, on 1,000 ImageNet images."""

from pathlib import Path

import pytest

import compressnet
from compressnet.commands.recipes import recipe

pytestmark = pytest.mark.slow


@pytest.fixture
def local(real_data: Path) -> list[str]:
    return [
        f"model.weights={real_data / 'weights' / 'squeezenet1_1.pth'}",
        f"data.root={real_data / 'imagenet-sample'}",
        "data.workers=0",
    ]


def correct(file: Path) -> int:
    metrics = compressnet.evaluate(file)
    return round(metrics.count * metrics.top1 / 100)


def test_the_dense_model_its_dense_file_and_its_half_precision_file_agree(local: list[str], tmp_path: Path) -> None:
    dense = recipe("squeezenet1_1-imagenet-dense").path
    compressnet.convert(dense, tmp_path / "a.safetensors", overrides=local)
    assert correct(tmp_path / "a.safetensors") == 640
    compressnet.export(tmp_path / "a.safetensors", tmp_path / "half.safetensors", with_recipe=True)
    assert abs(correct(tmp_path / "half.safetensors") - 640) <= 2
    compressnet.export(tmp_path / "a.safetensors", tmp_path / "plain.safetensors", dense=True)
    overrides = [*local[1:], f"model.weights={tmp_path / 'plain.safetensors'}"]
    metrics = compressnet.evaluate(dense, overrides=overrides)
    assert abs(round(10 * metrics.top1) - 640) <= 2


@pytest.mark.parametrize(("how", "at_least"), [("calibration=null", 50), ("calibration.images=200", 550)])
def test_freshnet_converts_it(how: str, at_least: int, local: list[str], real_data: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):  # there is none to train on: images of val are seen, without their labels
        (tmp_path / part).symlink_to(real_data / "imagenet-sample" / "val")
    account = compressnet.convert(
        recipe("squeezenet1_1-imagenet-freshnet-2x").path,
        tmp_path / "a.safetensors",
        overrides=[*local, f"data.root={tmp_path}", how],
    )
    assert account.numel < 0.8 * account.dense_numel
    assert correct(tmp_path / "a.safetensors") > at_least  # before any training; chance is 1
