"""An exported file holds positions as gaps where these are fewer bytes, and is a file as any other."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import compressnet
from compressnet.checkpoint import save
from compressnet.container import KEY, read_header
from compressnet.description import describe
from compressnet.digest import seal
from compressnet.errors import FileError
from compressnet.methods.pruned import PrunedWeight
from compressnet.rewrite import pack_
from compressnet.zoo import models

IMAGES = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
SPARSE = {"conv2": 0.5, "fc1": 0.02}
GAPS = "fc1.structured.gaps"
PLAIN = ["export.coder=none"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """LeNet-5 with a layer that packs and one that does not, converted and exported."""
    folder = tmp_path_factory.mktemp("packed")
    recipe = {
        "model": {"name": "lenet5", "num_classes": 10},
        "data": {"dataset": "digits", "image_size": 28},
        "layers": [{"match": name, "method": "pruned", "density": density} for name, density in SPARSE.items()],
        "calibration": None,
        "finetune": {"epochs": 1},
    }
    converted, exported = folder / "converted.safetensors", folder / "model.safetensors"
    compressnet.convert(recipe, converted)
    compressnet.export(converted, exported, dtype="float16", with_recipe=True, overrides=PLAIN)
    return converted, exported


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IMAGES)


def pruned_at(path: Path, name: str) -> PrunedWeight:
    weight = compressnet.load(path).get_submodule(f"{name}.structured")
    assert isinstance(weight, PrunedWeight)
    return weight


def test_the_smaller_of_bitmap_and_gaps_is_stored_and_the_report_counts_its_bytes(files: tuple[Path, Path]) -> None:
    converted, exported = (read_header(path).spans for path in files)
    assert {name for name in converted if name.endswith("gaps")} == set()
    assert {name for name in exported if name.endswith(("gaps", "bitmap"))} == {"conv2.structured.bitmap", GAPS}
    assert exported[GAPS].nbytes < converted["fc1.structured.bitmap"].nbytes / 5
    (account,) = compressnet.report(files[1])
    row = next(row for row in account.rows if row.name == "fc1")
    assert row.nbytes == 2 * 8000 + exported[GAPS].nbytes
    assert row.numel == 8000 + row.positions_nbytes == 8000 + exported[GAPS].nbytes
    assert account.file_nbytes == files[1].stat().st_size
    assert row.numel == describe(files[1]).layers[2].numel()


def test_the_file_is_smaller_than_with_the_bitmap_and_computes_the_same_bits(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    exported = compressnet.load(files[1])
    model = compressnet.load(files[0], form="compressed").half()
    save(model, tmp_path / "bitmap.safetensors", dataclasses.replace(describe(files[0]), stage="exported"))
    assert files[1].stat().st_size < (tmp_path / "bitmap.safetensors").stat().st_size - 40_000
    assert torch.equal(logits(exported), logits(compressnet.load(tmp_path / "bitmap.safetensors")))


def test_a_loaded_file_saves_to_the_same_bytes(files: tuple[Path, Path], tmp_path: Path) -> None:
    compressnet.save(compressnet.load(files[1], dtype=None), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == files[1].read_bytes()


def test_an_export_of_an_export_is_the_same_file(files: tuple[Path, Path], tmp_path: Path) -> None:
    compressnet.export(files[1], tmp_path / "again.safetensors", with_recipe=True)
    assert (tmp_path / "again.safetensors").read_bytes() == files[1].read_bytes()


def test_a_dense_file_of_an_export_computes_the_same(files: tuple[Path, Path], tmp_path: Path) -> None:
    compressnet.export(files[1], tmp_path / "dense.safetensors", dense=True)
    plain = models.fresh(describe(files[1]).spec, 0)  # type: ignore[arg-type]
    plain.load_state_dict(load_file(tmp_path / "dense.safetensors"))
    torch.testing.assert_close(logits(plain), logits(compressnet.load(files[1])))


def test_it_fills_a_module_of_the_callers_own(files: tuple[Path, Path]) -> None:
    own = models.fresh(describe(files[1]).spec, 1)  # type: ignore[arg-type]
    assert torch.equal(logits(compressnet.load(files[1], into=own)), logits(compressnet.load(files[1])))


def test_it_is_trained_at_the_positions_it_has(files: tuple[Path, Path], tmp_path: Path) -> None:
    compressnet.finetune(files[1], tmp_path / "run", overrides=["finetune.lr=0.01", "data.batch_size=256"])
    before, after = (pruned_at(path, "fc1") for path in (files[1], tmp_path / "run" / "best.safetensors"))
    assert torch.equal(before.positions, after.positions)
    assert not torch.equal(before.values, after.values)
    assert after.to_dense().count_nonzero() == 8000
    compressnet.export(tmp_path / "run" / "best.safetensors", tmp_path / "again.safetensors", overrides=PLAIN)
    assert (tmp_path / "again.safetensors").stat().st_size < files[0].stat().st_size
    assert pruned_at(tmp_path / "again.safetensors", "fc1").config == before.config


def test_attention_is_packed_too(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.TransformerEncoderLayer(24, 2, 40, batch_first=True)).eval()
    x = torch.randn(2, 5, 24)
    compressnet.compress(module, {"layers": [{"match": "*_proj", "method": "pruned", "density": 0.03}]})
    expected = module(x)
    description: Any = module._compressnet
    layers = pack_(module, description.layers)
    assert [set(layer.config) for layer in layers if layer.method] == [{"density", "bits", "codes"}] * 2
    save(module, tmp_path / "own.safetensors", dataclasses.replace(description, layers=layers))
    dense = torch.nn.Sequential(torch.nn.TransformerEncoderLayer(24, 2, 40, batch_first=True))
    assert torch.equal(compressnet.load(tmp_path / "own.safetensors", into=dense)(x), expected)


def changed(path: Path, output: Path, name: str, tensor: torch.Tensor) -> Path:
    """The file with another tensor, and a digest that fits."""
    meta = dict(read_header(path).meta) | {"sha256": "0" * 64}
    save_file(load_file(path) | {name: tensor}, output, {KEY: json.dumps(meta, separators=(",", ":"))})
    seal(output)
    return output


@pytest.mark.parametrize("damaged", [0x00, 0x5A])
def test_gaps_that_leave_the_weight_or_are_of_another_count_are_refused(
    files: tuple[Path, Path], tmp_path: Path, damaged: int
) -> None:
    path = changed(files[1], tmp_path / "x.safetensors", GAPS, torch.full_like(load_file(files[1])[GAPS], damaged))
    with pytest.raises(FileError, match=r"its tensors of fc1 hold no weight: its positions are not 8,000 of 400,000"):
        compressnet.load(path)


def test_a_bitmap_of_another_count_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    bitmap = load_file(files[1])["conv2.structured.bitmap"]
    path = changed(files[1], tmp_path / "x.safetensors", "conv2.structured.bitmap", bitmap.bitwise_or(0x11))
    with pytest.raises(FileError, match=r"its tensors of conv2 hold no weight: its positions are not 12,500 of 25,000"):
        compressnet.load(path)


def test_gaps_that_are_no_bytes_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    path = changed(files[1], tmp_path / "x.safetensors", GAPS, load_file(files[1])[GAPS].float())
    with pytest.raises(FileError, match=r"fc1.structured.gaps is of torch.float32, not of bytes"):
        compressnet.load(path)


def test_a_recipe_does_not_set_how_positions_are_packed() -> None:
    recipe = {"model": {"name": "lenet5"}, "layers": [{"match": "fc1", "method": "pruned", "density": 0.1, "codes": 4}]}
    with pytest.raises(compressnet.CompressnetError, match="unknown key"):
        compressnet.convert(recipe, dry_run=True)
