import gzip
import os
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets, models
from torchvision.transforms.functional import pil_to_tensor

from compressnet.data.datasets import DATASETS, check_classes, open_part, split
from compressnet.data.loading import make_loader
from compressnet.errors import DataError
from compressnet.maths.hashing import permutation
from compressnet.zoo.models import ModelSpec
from compressnet.zoo.preprocessing import Preprocessing, from_preset
from compressnet.zoo.weights import dense_model

PARTS = ("train", "val", "test")


def section(dataset: str, root: Path | None = None, **keys) -> SimpleNamespace:
    return SimpleNamespace(
        **{"dataset": dataset, "root": root, "val_fraction": 0.1, "num_classes": None, "samples": None, **keys}
    )


def images(part) -> set[bytes]:
    return {part[i][0].numpy().tobytes() for i in range(len(part))}


def test_there_are_ten_data_sets():
    assert list(DATASETS) == [
        "digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "imagenet", "imagefolder", "images",
        "fake",
    ]  # fmt: skip


def test_an_unknown_data_set_is_refused_with_the_nearest_name():
    with pytest.raises(DataError, match=r"data.dataset: unknown data set 'minst'; did you mean 'mnist'"):
        open_part(section("minst"), "train", pil_to_tensor, 0)


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in ("digits", "fake")])
def test_a_data_set_without_its_root_is_refused(name):
    with pytest.raises(DataError, match=f"data set {name}: data.root is missing.*\n  add root: PATH to data"):
        open_part(section(name), "test", pil_to_tensor, 0)


def test_digits_are_cut_into_three_disjoint_parts():
    train, val, test = (open_part(section("digits"), part, pil_to_tensor, 0) for part in PARTS)
    assert (len(train), len(val), len(test)) == (1293, 144, 360)
    assert len(images(train) | images(val) | images(test)) == 1797
    assert train.classes == [str(i) for i in range(10)]
    assert {train[i][1] for i in range(len(train))} == set(range(10))
    assert train[0][0].shape == (1, 8, 8)
    assert max(int(train[i][0].max()) for i in range(9)) == 255


def test_the_test_digits_are_the_same_whatever_the_seed():
    test, again = (open_part(section("digits"), "test", pil_to_tensor, seed) for seed in (0, 7))
    assert all(torch.equal(test[i][0], again[i][0]) for i in range(len(test)))


def test_digits_without_scikit_learn_say_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # what makes an import fail
    with pytest.raises(DataError, match=r"is not installed\n  pip install 'compressnet\[quickstart\]'"):
        open_part(section("digits"), "test", pil_to_tensor, 0)


def test_a_seed_cuts_the_same_parts_and_another_seed_others():
    one, same, other = (images(open_part(section("digits"), "val", pil_to_tensor, seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize(
    ("numel", "fraction", "val"), [(50, 0.1, 5), (50, 0.0, 0), (3, 0.01, 1), (2, 0.99, 1), (50, 0.5, 25), (0, 0.1, 0)]
)
def test_a_split_gives_disjoint_ascending_parts_that_are_together_everything(numel, fraction, val):
    train, chosen = split(numel, fraction, seed=3)
    assert len(chosen) == val
    assert sorted(train + chosen) == list(range(numel))
    assert train == sorted(train)
    assert chosen == sorted(chosen)


def test_the_split_is_the_specified_one():
    assert split(20, 0.25, seed=3)[1] == sorted(permutation(20, 3)[:5].tolist())


def test_a_val_fraction_of_nothing_leaves_no_val_part():
    with pytest.raises(DataError, match=r"data.val_fraction: leaves no images for val out of 1437\n  choose one"):
        open_part(section("digits", val_fraction=0.0), "val", pil_to_tensor, 0)


def test_fake_images_are_deterministic_and_differ_between_parts():
    one, same, val = (open_part(section("fake"), part, pil_to_tensor, 0) for part in ("train", "train", "val"))
    assert len(one) == len(val) == 64
    assert torch.equal(one[5][0], same[5][0])
    assert not torch.equal(one[5][0], val[5][0])
    assert one[5][0].shape == (3, 32, 32)


def test_fake_data_has_the_classes_and_samples_asked_for():
    part = open_part(section("fake", num_classes=3, samples=7), "test", pil_to_tensor, 0)
    assert part.classes == ["class 0", "class 1", "class 2"]
    assert [part[i][1] for i in range(len(part))] == [0, 1, 2, 0, 1, 2, 0]


def write_mnist(raw: Path, half: str, count: int, compress: bool) -> None:
    """MNIST's own format (idx) with images of one grey level each."""
    raw.mkdir(parents=True, exist_ok=True)
    pixels = np.repeat(np.arange(count, dtype=np.uint8), 784).tobytes()
    labels = bytes(i % 10 for i in range(count))
    for name, header, body in (
        (f"{half}-images-idx3-ubyte", struct.pack(">IIII", 2051, count, 28, 28), pixels),
        (f"{half}-labels-idx1-ubyte", struct.pack(">II", 2049, count), labels),
    ):
        if compress:
            (raw / f"{name}.gz").write_bytes(gzip.compress(header + body))
        else:
            (raw / name).write_bytes(header + body)


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_in_torchvisions_layout_is_opened_without_a_download(tmp_path, name, folder):
    write_mnist(tmp_path / folder / "raw", "train", 40, compress=False)
    write_mnist(tmp_path / folder / "raw", "t10k", 20, compress=False)
    train, val, test = (open_part(section(name, tmp_path), part, pil_to_tensor, 0) for part in PARTS)
    assert (len(train), len(val), len(test)) == (36, 4, 20)
    assert test[13][0].unique().tolist() == [13]
    assert test[13][1] == 3
    assert len(train.classes) == 10


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("mnist", "MNIST"),
        ("fashion_mnist", "FashionMNIST"),
        ("cifar10", "cifar-10-batches-py or cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python or cifar-100-python.tar.gz"),
        ("svhn", "test_32x32.mat"),
    ],
)
def test_a_data_set_that_cannot_be_downloaded_is_refused_and_leaves_nothing(tmp_path, monkeypatch, name, entry):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # discard: nothing listens there
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    root = tmp_path / "data"
    with pytest.raises(
        DataError, match=f"data: {name} is not there and cannot be downloaded: .+\n  .*put {entry} into"
    ):
        open_part(section(name, root), "test", pil_to_tensor, 0)
    assert not root.exists()


def test_an_imagefolder_is_opened_by_its_path(tmp_path):
    for i in range(40):
        path = tmp_path / "train" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (i, 0, 0)).save(path)
    train, val = (open_part(section("imagefolder", str(tmp_path)), part, pil_to_tensor, 0) for part in PARTS[:2])
    assert (len(train), len(val)) == (36, 4)
    assert len(images(train) | images(val)) == 40
    theirs = datasets.ImageFolder(tmp_path / "train", pil_to_tensor)
    labels = {image.numpy().tobytes(): label for image, label in theirs}
    assert all(labels[image.numpy().tobytes()] == label for image, label in (train[i] for i in range(36)))


@pytest.mark.parametrize("num_classes", [10, 1000])
def test_data_of_no_more_classes_than_the_models_is_accepted(num_classes):
    check_classes(open_part(section("fake"), "test", pil_to_tensor, 0), num_classes)


def test_data_of_more_classes_than_the_models_is_refused():
    part = open_part(section("fake", num_classes=12), "test", pil_to_tensor, 0)
    with pytest.raises(DataError, match=r"data: the data has 12 classes, the model 10\n  set model.num_classes: 12"):
        check_classes(part, 10)


@pytest.fixture
def real() -> Path:
    """The folder of real data."""
    if "COMPRESSNET_DATA" not in os.environ:
        pytest.skip("COMPRESSNET_DATA does not name the folder of real data")
    return Path(os.environ["COMPRESSNET_DATA"])


def correct(model: torch.nn.Module, part) -> int:
    with torch.inference_mode():
        return sum(
            int((model(pixels).argmax(1) == labels).sum()) for pixels, labels in make_loader(part, 100, 0, device="cpu")
        )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "first"), [("imagefolder", "n01440764"), ("imagenet", "tench")])
def test_the_sample_of_imagenet_opens_as_imagefolder_and_as_imagenet(real, name, first):
    part = open_part(section(name, real / "imagenet-sample"), "test", pil_to_tensor, 0)
    assert len(part) == len(part.classes) == 1000
    assert part.classes[0] == first
    assert part[999][1] == 999


@pytest.mark.slow
def test_squeezenet_recognises_640_of_the_sample_of_imagenet(real):
    transform = from_preset(models.SqueezeNet1_1_Weights.IMAGENET1K_V1).transform()
    part = open_part(section("imagefolder", real / "imagenet-sample"), "test", transform, 0)
    model = dense_model(ModelSpec("squeezenet1_1", 1000, {}), str(real / "weights" / "squeezenet1_1.pth"), 0)
    assert correct(model, part) == 640


@pytest.mark.slow
def test_the_sample_of_imagenet_has_nothing_to_train_on(real):
    with pytest.raises(DataError, match="has only val, so there is no train part"):
        open_part(section("imagefolder", real / "imagenet-sample"), "train", pil_to_tensor, 0)


@pytest.mark.slow
def test_lenet5_recognises_9893_of_the_test_digits_of_mnist(real, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in (real / "mnist").glob("*.gz"):
        (raw / archive.name).symlink_to(archive.resolve())
    transform = Preprocessing(28, 28, "bilinear", (0.1307,), (0.3081,), 1).transform()
    part = open_part(section("mnist", tmp_path), "test", transform, 0)
    model = dense_model(ModelSpec("lenet5", 10, {}), str(real / "weights" / "lenet5-mnist.pth"), 0)
    assert len(part) == 10_000
    assert correct(model, part) == 9893
