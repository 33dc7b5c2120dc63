"""Files whose steps are chosen: by a tolerance, or by a size."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressnet
from compressnet.checkpoint import save
from compressnet.description import describe
from compressnet.errors import DataError, FileError
from tests.conftest import LENET


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that tells digits apart, with a layer of shared values."""
    folder = tmp_path_factory.mktemp("tuned")
    layers = [{"match": "fc1", "method": "hashednet", "ratio": 8}]
    compressnet.convert(copy.deepcopy(LENET) | {"layers": layers}, folder / "converted.safetensors")
    compressnet.finetune(folder / "converted.safetensors", folder / "tuned", overrides=["finetune.epochs=3"])
    return folder / "tuned" / "best.safetensors"


@pytest.mark.parametrize("size", ["40kB", "60000"])
def test_a_file_of_a_size_has_no_more_bytes_and_uses_all_but_three_hundredths(
    tuned: Path, tmp_path: Path, size: str
) -> None:
    found = compressnet.export(tuned, tmp_path / "out.safetensors", target_size=size)
    nbytes = (tmp_path / "out.safetensors").stat().st_size
    assert found.nbytes == nbytes
    assert 0.97 < nbytes / int(size.replace("kB", "000")) <= 1


def test_a_file_of_more_bytes_is_nearer_to_its_source(tuned: Path, tmp_path: Path) -> None:
    small = compressnet.export(tuned, tmp_path / "small.safetensors", target_size="30kB")
    large = compressnet.export(tuned, tmp_path / "large.safetensors", target_size="60kB")
    assert large.logits_difference < small.logits_difference


@pytest.mark.parametrize("over", [[], ["data=null"]])
def test_auto_keeps_to_its_tolerance_with_data_or_without(tuned: Path, tmp_path: Path, over: list[str]) -> None:
    loose, tight = (
        compressnet.export(
            tuned,
            tmp_path / f"{tolerance}.safetensors",
            overrides=["export.bits=auto", f"export.tolerance={tolerance}", *over],
        )
        for tolerance in (0.1, 0.001)
    )
    assert loose.nbytes < tight.nbytes < tuned.stat().st_size / 2
    assert tight.logits_difference < loose.logits_difference


def test_the_same_command_writes_the_same_file(tuned: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file in files:
        compressnet.export(tuned, file, overrides=["export.bits=auto"])
    assert files[0].read_bytes() == files[1].read_bytes()


def test_folded_norms_are_smaller_and_compute_the_same(tmp_path: Path) -> None:
    recipe = {"model": {"name": "mobilenet_v2", "num_classes": 4}, "data": {"dataset": "fake", "image_size": 32}}
    compressnet.convert(recipe | {"layers": []}, tmp_path / "a.safetensors")
    model = compressnet.load(tmp_path / "a.safetensors", form="compressed")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    save(model, tmp_path / "a.safetensors", describe(tmp_path / "a.safetensors"), force=True)
    files = [tmp_path / "plain.safetensors", tmp_path / "folded.safetensors"]
    for file, fold in zip(files, ("false", "true"), strict=True):
        compressnet.export(tmp_path / "a.safetensors", file, dtype="float32", overrides=[f"export.fold_norm={fold}"])
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain, folded = (compressnet.load(file)(images) for file in files)
    torch.testing.assert_close(folded, plain, rtol=1e-3, atol=1e-5)
    assert files[1].stat().st_size < files[0].stat().st_size - 30_000


@pytest.mark.parametrize(
    ("size", "more", "message"),
    [
        ("lots", {}, "'lots' is no size; one is such as 500kB"),
        ("500kB", {"dense": True}, "--dense and --target-size exclude each other"),
        ("500kB", {"overrides": ["export.coder=none"]}, "export.coder: none and --target-size exclude each other"),
        ("300", {}, "no steps make the file fit 300 bytes"),
    ],
)
def test_a_size_that_cannot_be_had_is_refused(
    tuned: Path, tmp_path: Path, size: str, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(FileError, match=message):
        compressnet.export(tuned, tmp_path / "out.safetensors", target_size=size, **more)
    assert not (tmp_path / "out.safetensors").exists()


def test_data_that_is_not_there_is_an_error_with_its_cure(tuned: Path, tmp_path: Path) -> None:
    over = ["export.bits=auto", "data.dataset=imagefolder", f"data.root={tmp_path / 'nowhere'}"]
    with pytest.raises(DataError, match="--set data=null chooses without"):
        compressnet.export(tuned, tmp_path / "out.safetensors", overrides=over)
