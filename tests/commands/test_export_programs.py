"""``export --onnx`` and ``--pt2``: the dense model as a program, verified, and nothing else on the way."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

import compressnet
from compressnet.errors import FileError
from compressnet.interchange import WAYS
from compressnet.progress import Progress
from tests.cli.calls import start

HEAD = {"match": ["fc1", "relu3", "fc2"], "block": "deepfried_head", "features": 1024}


class Notes(Progress):
    """What is noted."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def converted(lenet: dict[str, Any], tmp_path: Path) -> Path:
    compressnet.convert(lenet, tmp_path / "a.safetensors", overrides=["pretrain=null"])
    return tmp_path / "a.safetensors"


def run(path: Path, way: str, images: Tensor) -> Tensor:
    """The logits of a file as its users get them."""
    if way == "onnx":
        return torch.from_numpy(onnxruntime.InferenceSession(path).run(None, {"images": images.numpy()})[0])
    with path.open("rb") as file:
        found: Tensor = torch.export.load(file).module()(images)
    return found.detach()


@pytest.mark.parametrize("way", WAYS)
def test_a_program_computes_what_the_file_does(way: str, converted: Path, tmp_path: Path) -> None:
    notes = Notes()
    exported = compressnet.export(converted, tmp_path / f"a.{way}", progress=notes, **{way: True})
    assert exported.kind == WAYS[way].words
    assert exported.nbytes == (tmp_path / f"a.{way}").stat().st_size > 4 * 431_080
    assert exported.logits_difference <= 1e-4 * exported.logits_scale
    assert exported.agreement == 1
    assert notes.said == []
    images = torch.randn(3, 1, 28, 28)
    with torch.no_grad():
        expected = compressnet.load(converted)(images)
    torch.testing.assert_close(run(tmp_path / f"a.{way}", way, images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_blocks_are_written_out_and_their_growth_is_noted(way: str, lenet: dict[str, Any], tmp_path: Path) -> None:
    lenet["layers"] = [HEAD]
    compressnet.convert(lenet, tmp_path / "a.safetensors", overrides=["data=null", "pretrain=null"])
    notes = Notes()
    exported = compressnet.export(tmp_path / "a.safetensors", tmp_path / "b", progress=notes, **{way: True})
    assert exported.logits_difference <= 1e-4 * exported.logits_scale
    (note,) = notes.said
    assert note.endswith("whose numbers grow: fc1 from 3,872 to 820,224")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dense": True, "onnx": True}, "--dense and --onnx exclude each other"),
        ({"dense": True, "pt2": True}, "--dense and --pt2 exclude each other"),
        ({"onnx": True, "pt2": True}, "--onnx and --pt2 exclude each other"),
        ({"onnx": True, "dtype": "float16"}, "--onnx writes float32 alone, not float16"),
        ({"pt2": True, "dtype": "bfloat16"}, "--pt2 writes float32 alone, not bfloat16"),
        ({"pt2": True, "overrides": ["export.bits=5"]}, r"export\.bits=5 is of a compressnet file, and has no meaning"),
        ({"onnx": True, "with_recipe": True}, "--with-recipe is of a compressnet file, and has no meaning for --onnx"),
    ],
)
def test_options_that_do_not_go_together_are_one_error(
    options: dict[str, Any], message: str, converted: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileError, match=message):
        compressnet.export(converted, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_told_before_any_work(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(FileError, match=r"it needs onnx, onnxscript, onnxruntime; onnx cannot be found\n  pip"):
        compressnet.export(converted, tmp_path / "a.onnx", onnx=True)
    compressnet.export(converted, tmp_path / "a.pt2", pt2=True)


def test_a_program_that_computes_something_else_is_not_kept_nor_is_what_was_there_lost(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.pt2").write_text("mine")
    with pytest.raises(FileError, match="exists already"):
        compressnet.export(converted, tmp_path / "a.pt2", pt2=True)
    wrong = dataclasses.replace(WAYS["pt2"], run=lambda path, images: WAYS["pt2"].run(path, images) + 1)
    monkeypatch.setattr("compressnet.commands.export.WAYS", {"pt2": wrong})
    with pytest.raises(FileError, match="gives other logits"):
        compressnet.export(converted, tmp_path / "a.pt2", pt2=True, force=True)
    assert (tmp_path / "a.pt2").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"a.safetensors", "a.pt2"}


@pytest.mark.slow
def test_a_head_that_never_runs_is_in_no_program(tmp_path: Path) -> None:
    recipe = {
        "model": {"name": "googlenet", "weights": None, "num_classes": 3},
        "data": {"dataset": "fake", "image_size": 32},
        "layers": [],
    }
    compressnet.convert(recipe, tmp_path / "a.safetensors", overrides=["data=null"])
    compressnet.export(tmp_path / "a.safetensors", tmp_path / "a.pt2", pt2=True)
    with (tmp_path / "a.pt2").open("rb") as file:
        assert not any(name.startswith("aux") for name in torch.export.load(file).state_dict)


@pytest.mark.parametrize("way", WAYS)
def test_the_command_prints_its_summary_and_nothing_of_torchs(way: str, converted: Path, tmp_path: Path) -> None:
    with start("export", converted, "-o", tmp_path / "model", f"--{way}", "--json") as process:
        stdout, stderr = process.communicate()
    assert json.loads(stdout)["kind"] == WAYS[way].words
    assert [line.partition(":")[0] for line in stderr.splitlines()] == [
        "writing and verifying …",
        "writing and verifying",
    ]
    if way == "onnx":
        onnx.checker.check_model(tmp_path / "model")


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18", "vit_b_32"])
def test_whole_models_go_all_the_way(name: str, way: str, tmp_path: Path) -> None:
    recipe = {
        "model": {"name": name, "weights": None, "num_classes": 10},
        "layers": [{"match": "*", "method": "hashednet", "ratio": 8}],
    }
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    compressnet.export(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    exported = compressnet.export(tmp_path / "b.safetensors", tmp_path / "c", **{way: True})
    assert exported.logits_difference <= 1e-4 * exported.logits_scale
