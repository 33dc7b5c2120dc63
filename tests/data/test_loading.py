from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from compressnet.data import memory
from compressnet.data.datasets import PartDataset, open_part
from compressnet.data.loading import make_loader
from compressnet.errors import DataError
from compressnet.zoo.preprocessing import Preprocessing

TRANSFORM = Preprocessing(8, 8, "bilinear", (0.5,) * 3, (0.5,) * 3, 3).transform()


@pytest.fixture
def part(tmp_path) -> PartDataset:
    """Seven grey images, the level of each its index, in class folders."""
    for i in range(7):
        folder = tmp_path / f"{i // 4}"
        folder.mkdir(exist_ok=True)
        Image.new("L", (8, 8), i).save(folder / f"{i}.png")
    data = SimpleNamespace(dataset="imagefolder", root=tmp_path, val_fraction=0.1)
    return open_part(data, "test", TRANSFORM, 0)


def levels(images: torch.Tensor) -> list[int]:
    return ((images[:, 0, 0, 0] * 0.5 + 0.5) * 255).round().int().tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_come_in_the_data_sets_order(part, workers):
    batches = list(make_loader(part, 3, workers, device="cpu"))
    assert [levels(images) for images, _ in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert batches[0][0].shape == (3, 3, 8, 8)
    assert (batches[0][0].dtype, batches[0][1].dtype) == (torch.float32, torch.int64)


def test_batches_come_in_a_given_order(part):
    loader = make_loader(part, 2, 0, order=[6, 0, 0, 5, 1], device="cpu")
    assert [levels(images) for images, _ in loader] == [[6, 0], [0, 5], [1]]
    assert len(loader) == 3


def test_what_is_drawn_for_an_image_depends_on_the_seed_and_the_image_alone(part):
    part._transform = lambda image: torch.rand(3)
    before = torch.get_rng_state()
    one = torch.cat([images for images, _ in make_loader(part, 3, 0, seed=5, device="cpu")])
    two = torch.cat([images for images, _ in make_loader(part, 2, 2, order=range(6, -1, -1), seed=5, device="cpu")])
    other = torch.cat([images for images, _ in make_loader(part, 3, 0, seed=6, device="cpu")])
    assert torch.equal(one, two.flip(0))
    assert len(torch.cat([one, other]).unique(dim=0)) == 14
    assert torch.equal(torch.get_rng_state(), before), "torch's own generator is left alone"


def test_a_loader_can_be_gone_through_again(part):
    loader = make_loader(part, 7, 0, device=torch.device("cpu"))
    assert [len(images) for images, _ in loader] == [len(images) for images, _ in loader] == [7]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_without_a_traceback(part, tmp_path, workers):
    path = tmp_path / "1" / "5.png"
    path.write_bytes(b"no image")
    expected = f"{path}: unreadable image: not an image, or truncated\n  replace or remove the file"
    with pytest.raises(DataError) as caught:
        list(make_loader(part, 3, workers, device="cpu"))
    assert str(caught.value) == expected


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_no_images_is_refused(part, batch_size):
    with pytest.raises(DataError, match=f"data.batch_size: {batch_size} images make no batch\n  give at least 1"):
        make_loader(part, batch_size, 0, device="cpu")


def test_fewer_than_no_workers_are_refused(part):
    with pytest.raises(DataError, match=r"data.workers: -1 workers\n  give 0"):
        make_loader(part, 1, -1, device="cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_for_cuda_are_pinned(part, workers):
    assert all(images.is_pinned() for images, _ in make_loader(part, 3, workers, device="cuda"))


def test_a_part_in_memory_gives_the_same_batches(part):
    kept = memory.keep(make_loader(part, 3, 0, device="cpu"), part)
    for order in (None, [6, 0, 0, 5, 1]):
        batches = zip(*(make_loader(p, 2, 0, order=order, device="cpu") for p in (part, kept)), strict=True)
        assert all(torch.equal(a, b) for one, other in batches for a, b in zip(one, other, strict=True))
    assert kept[3][1] == part[3][1]
    assert (len(kept), kept.classes) == (len(part), part.classes)


def test_only_what_takes_little_memory_is_kept(part):
    nbytes = 7 * 3 * 8 * 8 * 4
    assert memory.fits(part, nbytes)
    assert not memory.fits(part, nbytes - 1)
