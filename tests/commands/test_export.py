from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import get_model

import compressnet
from compressnet.container import read_header
from compressnet.errors import FileError


@pytest.fixture
def converted(lenet: dict[str, Any], tmp_path: Path) -> Path:
    compressnet.convert(lenet, tmp_path / "converted.safetensors")
    return tmp_path / "converted.safetensors"


@pytest.mark.parametrize(
    ("dtype", "code", "nbytes"), [("float16", "F16", 2), ("bfloat16", "BF16", 2), ("float32", "F32", 4)]
)
def test_parameters_are_stored_in_the_dtype(
    converted: Path, tmp_path: Path, dtype: str, code: str, nbytes: int
) -> None:
    result = compressnet.export(converted, tmp_path / "out.safetensors", dtype=dtype, overrides=["export.coder=none"])
    header = read_header(tmp_path / "out.safetensors")
    assert {span.dtype for span in header.spans.values()} == {code}
    assert result.nbytes == header.nbytes + nbytes * sum(span.numel for span in header.spans.values())
    assert result.logits_difference < 0.05 * result.logits_scale
    assert (result.logits_difference == 0) == (dtype == "float32")


def test_norm_statistics_stay_in_single_precision(tmp_path: Path) -> None:
    recipe = {
        "model": {"name": "resnet18", "num_classes": 4},
        "data": {"dataset": "fake", "image_size": 32},
        "layers": [],
    }
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    compressnet.export(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype="float16")
    spans = read_header(tmp_path / "b.safetensors").spans
    assert spans["bn1.running_var"].dtype == "F32"
    assert spans["bn1.weight"].dtype == "F16"


def test_a_dense_file_is_an_ordinary_state_dict(converted: Path, tmp_path: Path) -> None:
    compressnet.export(converted, tmp_path / "dense.safetensors", dense=True)
    plain = get_model("lenet5", num_classes=10).eval()
    plain.load_state_dict(load_file(tmp_path / "dense.safetensors"))
    x = torch.randn(3, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(plain(x), compressnet.load(converted)(x), rtol=1e-4, atol=1e-5)


def test_heads_that_never_run_are_not_exported(tmp_path: Path) -> None:
    recipe = {
        "model": {"name": "googlenet", "num_classes": 3},
        "data": {"dataset": "fake", "image_size": 64},
        "layers": [],
    }
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    assert any(name.startswith("aux1") for name in read_header(tmp_path / "a.safetensors").spans)
    compressnet.export(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype="float32")
    assert not any(name.startswith("aux") for name in read_header(tmp_path / "b.safetensors").spans)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(
            compressnet.load(tmp_path / "b.safetensors")(x), compressnet.load(tmp_path / "a.safetensors")(x)
        )


def test_a_number_too_large_for_the_dtype_is_an_error_with_the_cure(converted: Path, tmp_path: Path) -> None:
    model = compressnet.load(converted)
    with torch.no_grad():
        model.conv1.weight[0] = 1e6  # type: ignore[union-attr, index, operator]
    compressnet.save(model, tmp_path / "large.safetensors")
    with pytest.raises(FileError, match=r"conv1.weight.*\n.*bfloat16"):
        compressnet.export(tmp_path / "large.safetensors", tmp_path / "out.safetensors", dtype="float16")
    assert not (tmp_path / "out.safetensors").exists()


def test_an_unknown_dtype_is_an_error(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="did you mean 'float16'"):
        compressnet.export(converted, tmp_path / "out.safetensors", dtype="floaty16")


def test_a_file_that_is_there_is_kept(converted: Path, tmp_path: Path) -> None:
    (tmp_path / "out.safetensors").write_text("mine")
    with pytest.raises(FileError, match="exists already"):
        compressnet.export(converted, tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_text() == "mine"


def test_a_file_may_replace_the_one_it_comes_from(converted: Path) -> None:
    before = converted.stat().st_size
    result = compressnet.export(converted, converted, force=True)
    assert (result.source_nbytes, result.nbytes) == (before, converted.stat().st_size)
    assert result.nbytes < before


def test_a_model_whose_state_has_a_version_goes_through_all_stages(tmp_path: Path) -> None:
    recipe = {
        "model": {"name": "mnasnet0_5", "num_classes": 3},
        "data": {"dataset": "fake", "image_size": 32, "num_classes": 3, "samples": 8, "batch_size": 4},
        "layers": [{"match": "classifier.1", "method": "hashednet", "ratio": 4}],
    }
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    compressnet.finetune(tmp_path / "a.safetensors", tmp_path / "out", overrides=["finetune.epochs=1"])
    compressnet.finetune(tmp_path / "a.safetensors", tmp_path / "out", overrides=["finetune.epochs=1"], resume=True)
    for dense in (False, True):
        compressnet.export(tmp_path / "out" / "best.safetensors", tmp_path / f"{dense}.safetensors", dense=dense)
