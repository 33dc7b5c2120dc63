"""Programs of dense models: written, run by others, and refused where they would be wrong."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from compressnet.description import Description
from compressnet.errors import FileError
from compressnet.interchange import WAYS, facts, write_verified
from compressnet.zoo import models
from compressnet.zoo.models import ModelSpec
from compressnet.zoo.preprocessing import Preprocessing

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def transformer() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(16, 8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)
    nn.init.normal_(model.heads[0].weight)
    return model.eval()


def logits(model: nn.Module, images: Tensor = IMAGES) -> Tensor:
    with torch.no_grad():
        return model(images)


DESCRIBED = Description(
    "exported",
    spec=ModelSpec("vit_b_16", 5),
    preprocessing=Preprocessing(18, 16, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), 3),
    classes=("a", "b", "c", "d", "é"),
)


@pytest.fixture(scope="module", params=WAYS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, nn.Module]:
    """A way, what it wrote of a transformer, and the transformer."""
    path, model = tmp_path_factory.mktemp("programs") / f"a.{request.param}", transformer()
    found = write_verified(WAYS[request.param], model, IMAGES, logits(model), path, facts(DESCRIBED), "a")
    torch.testing.assert_close(found, logits(model), rtol=1e-4, atol=1e-4)
    return request.param, path, model


@pytest.mark.parametrize("count", [1, 3, 7])
def test_a_program_takes_any_number_of_images(written: tuple[str, Path, nn.Module], count: int) -> None:
    way, path, model = written
    images = torch.randn(count, 3, 16, 16)
    if way == "onnx":
        (found,) = onnxruntime.InferenceSession(path).run(["logits"], {"images": images.numpy()})
    else:
        with path.open("rb") as file:
            found = torch.export.load(file).module()(images).detach()
    torch.testing.assert_close(torch.as_tensor(found), logits(model, images), rtol=1e-4, atol=1e-4)


def test_a_program_says_how_its_images_are_prepared_and_what_its_classes_are(
    written: tuple[str, Path, nn.Module],
) -> None:
    way, path, _ = written
    if way == "onnx":
        said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        assert onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map == said
    else:
        said = dict.fromkeys(("model", "preprocessing", "classes", "producer"), "")
        with path.open("rb") as file:
            torch.export.load(file, extra_files=said)
    assert said["model"] == "vit_b_16"
    assert Preprocessing.from_json(json.loads(said["preprocessing"])) == DESCRIBED.preprocessing
    assert json.loads(said["classes"]) == list("abcdé")
    assert said["producer"].startswith("compressnet ")


def test_a_program_names_no_files_of_this_machine_and_is_the_same_when_written_again(
    written: tuple[str, Path, nn.Module], tmp_path: Path
) -> None:
    way, path, model = written
    assert b"site-packages" not in path.read_bytes()
    WAYS[way].write(model, IMAGES, tmp_path / "other name", facts(DESCRIBED))
    assert (tmp_path / "other name").read_bytes() == path.read_bytes()


def test_an_onnx_model_is_well_formed_with_named_ends_and_a_free_first_side(tmp_path: Path) -> None:
    model = models.fresh(ModelSpec("lenet_300_100", 10), 0)
    WAYS["onnx"].write(model, torch.zeros(2, 1, 28, 28), tmp_path / "a.onnx", {})
    proto = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(proto, full_check=True)
    (given,), (gives,) = proto.graph.input, proto.graph.output
    assert (given.name, gives.name) == ("images", "logits")
    sides = [[side.dim_param or side.dim_value for side in end.type.tensor_type.shape.dim] for end in (given, gives)]
    assert sides == [["batch", 1, 28, 28], ["batch", 10]]
    assert sum(len(tensor.raw_data) for tensor in proto.graph.initializer) >= 4 * 266_610


@pytest.mark.parametrize("wrong", [lambda found: found * (1 + 2e-4), lambda found: found * torch.nan])
@pytest.mark.parametrize("count", [1, 4])
def test_other_logits_are_an_error(wrong: Any, count: int, tmp_path: Path) -> None:
    def run(path: Path, images: Tensor) -> Tensor:
        found = WAYS["pt2"].run(path, images)
        return wrong(found) if len(images) == count else found

    model = transformer()
    way = dataclasses.replace(WAYS["pt2"], run=run)
    with pytest.raises(FileError, match=r"out\.pt2: what was written gives other logits, by up to .*\n.*not kept"):
        write_verified(way, model, IMAGES, logits(model), tmp_path / "a.pt2", {}, "out.pt2")


def test_a_missing_package_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(FileError, match=r"onnxruntime cannot be found\n  pip install .*compressnet\[onnx\]"):
        WAYS["onnx"].check()


def test_a_model_beyond_what_an_onnx_file_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"ends at 2 GiB; the dense numbers are 4,295,098,368 bytes\n  --pt2"):
        WAYS["onnx"].write(nn.Linear(1 << 15, 1 << 15, device="meta"), IMAGES, tmp_path / "a.onnx", {})


class Fickle(nn.Module):
    """What it computes depends on the numbers that it is given."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) if images.sum() > 0 else images.flatten(1)[:, :3]


@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_torch_cannot_follow_is_an_error(way: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"torch\.export cannot follow the model: .+\n  --dense"):
        WAYS[way].write(Fickle(), IMAGES, tmp_path / "a", {})


def test_a_file_that_onnxruntime_cannot_run_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(FileError, match=r"onnxruntime cannot run what was written: .+"):
        WAYS["onnx"].run(tmp_path / "a.onnx", IMAGES)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "name", ["resnet18", "googlenet", "mobilenet_v3_small", "densenet121", "vit_b_32", "swin_t", "maxvit_t"]
)
def test_models_of_every_kind_become_programs(way: str, name: str, tmp_path: Path) -> None:
    model = models.fresh(ModelSpec(name, 10, {"aux_logits": True} if name == "googlenet" else {}), 0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)  # a fresh head of zeros would hide everything
    images = torch.randn(2, 3, 224, 224)
    write_verified(WAYS[way], model, images, logits(model, images), tmp_path / "a", {}, "a")
