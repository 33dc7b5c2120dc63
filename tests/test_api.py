from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressnet
from compressnet.errors import CompressnetError, DataError, FileError
from compressnet.layers import CompressedConv2d, CompressedLinear


def own_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 64), nn.Linear(64, 5)
    )


RECIPE: dict[str, Any] = {
    "layers": [
        {"match": "0", "method": "freshnet", "ratio": 2},
        {"match": "4", "method": "deepfried", "steps": 5},
    ]
}


def test_any_module_is_rewritten_in_place() -> None:
    module = own_module()
    assert compressnet.compress(module, RECIPE) is module
    assert isinstance(module[0], CompressedConv2d)
    assert isinstance(module[4], CompressedLinear)
    assert type(module[5]) is nn.Linear
    assert module(torch.randn(2, 3, 8, 8)).shape == (2, 5)


def test_images_bring_a_module_nearer_to_what_it_was() -> None:
    images = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    dense, alone, fitted = own_module().eval(), own_module().eval(), own_module().eval()
    recipe = {"layers": [{"match": "*", "method": "hashednet", "ratio": 2}]}
    compressnet.compress(alone, recipe)
    compressnet.compress(fitted, recipe, images=images)
    with torch.no_grad():
        expected = dense(images)
        assert (fitted(images) - expected).norm() < 0.8 * (alone(images) - expected).norm()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.randn(4, 1, 8, 8), "cannot take images of 1×8×8"),
        (torch.randn(4, 3, 9, 9), "cannot take images of 3×9×9"),
        (torch.randn(3, 8, 8), "cannot take images of 8×8"),
        (torch.randn(8), r"their shape is \(8,\)"),
        (torch.randn(0, 3, 8, 8), r"their shape is \(0, 3, 8, 8\)"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), "not a tensor of floating point"),
        (torch.full((4, 3, 8, 8), torch.nan), "infinite or not numbers"),
    ],
)
def test_images_of_the_wrong_shape_are_refused_and_the_module_is_as_it_was(images: Tensor, message: str) -> None:
    module = own_module()
    with pytest.raises(DataError, match=message):
        compressnet.compress(module, RECIPE, images=images)
    assert type(module[0]) is nn.Conv2d
    assert module.training


def test_a_module_of_ones_own_is_saved_and_loaded_into_its_like(tmp_path: Path) -> None:
    module = compressnet.compress(own_module(), RECIPE).eval()
    compressnet.save(module, tmp_path / "own.safetensors")
    loaded = compressnet.load(tmp_path / "own.safetensors", into=own_module())
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(x), module(x))
    (account,) = compressnet.report(tmp_path / "own.safetensors")
    assert account.numel < account.dense_numel


def test_a_module_of_ones_own_cannot_be_loaded_without_it(tmp_path: Path) -> None:
    compressnet.save(compressnet.compress(own_module(), RECIPE), tmp_path / "own.safetensors")
    with pytest.raises(FileError, match="into=module"):
        compressnet.load(tmp_path / "own.safetensors")


def test_another_module_is_refused(tmp_path: Path) -> None:
    compressnet.save(compressnet.compress(own_module(), RECIPE), tmp_path / "own.safetensors")
    with pytest.raises(FileError, match="the model has"):
        compressnet.load(tmp_path / "own.safetensors", into=nn.Sequential(nn.Conv2d(3, 8, 3)))


def test_a_module_that_was_not_rewritten_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="compress it first"):
        compressnet.save(own_module(), tmp_path / "own.safetensors")


def tied_module() -> nn.Module:
    module = own_module()
    module.append(nn.Linear(64, 5))
    module[6].weight = module[5].weight
    return module


def with_buffers(*buffers: Tensor) -> nn.Module:
    module = own_module()
    for number, buffer in enumerate(buffers):
        module.register_buffer(f"buffer{number}", buffer)
    return module


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (tied_module(), r"what shares its memory: 5\.weight and 6\.weight"),
        (with_buffers(torch.zeros(3, dtype=torch.complex64)), "it cannot hold buffer0\n"),
        (with_buffers(torch.eye(3).to_sparse()), "it cannot hold buffer0\n"),
    ],
)
def test_what_a_file_cannot_hold_is_named_and_nothing_is_written(
    module: nn.Module, message: str, tmp_path: Path
) -> None:
    compressnet.compress(module, RECIPE)
    with pytest.raises(FileError, match=message) as caught:
        compressnet.save(module, tmp_path / "own.safetensors")
    assert str(caught.value).startswith(f"{tmp_path / 'own.safetensors'}: ")
    assert not list(tmp_path.iterdir())


def test_tensors_that_lie_beside_each_other_in_one_memory_are_saved(tmp_path: Path) -> None:
    both = torch.arange(6.0)
    module = compressnet.compress(with_buffers(both[:3], both[3:]), RECIPE)
    compressnet.save(module, tmp_path / "own.safetensors")
    loaded = compressnet.load(tmp_path / "own.safetensors", into=with_buffers(torch.zeros(3), torch.zeros(3)))
    assert loaded.get_buffer("buffer1").tolist() == [3, 4, 5]


def test_transforms_prepare_images_as_the_file_says(lenet: dict[str, Any], tmp_path: Path) -> None:
    from PIL import Image

    compressnet.convert(lenet, tmp_path / "a.safetensors")
    tensor = compressnet.transforms(tmp_path / "a.safetensors")(Image.new("RGB", (40, 30), "white"))
    assert tensor.shape == (1, 28, 28)


def test_every_public_name_is_there_and_every_error_is_one_of_ours() -> None:
    for name in compressnet.__all__:
        assert getattr(compressnet, name) is not None
    with pytest.raises(CompressnetError):
        compressnet.load("nowhere.safetensors")
    with pytest.raises(AttributeError):
        compressnet.nothing  # noqa: B018
