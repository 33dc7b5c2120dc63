"""Data sets by name, each cut into train, val (the part to choose by) and test (the part to report).

Test is the data set's own test part. Val is cut out of its training part by a specified permutation, so that the same
recipe seed gives the same images everywhere; where an imagefolder brings all three, they are taken as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from compressnet.data.downloading import download_once
from compressnet.data.folders import open_folder, open_imagenet, open_unlabelled
from compressnet.data.sources import Arrays, Images, Part, Source
from compressnet.errors import DataError, did_you_mean
from compressnet.maths.hashing import Purpose, hash_words, permutation

Transform = Callable[[Image.Image], Tensor]

DIGITS_TEST = 360
_DIGITS_SEED = 0  # the test digits are the same whatever the recipe's seed
_FAKE_SIDE = 32


class DataSection(Protocol):
    """What is read of a recipe's ``data``."""

    @property
    def dataset(self) -> str:
        """A name in ``DATASETS``."""

    @property
    def root(self) -> Any:
        """The folder of the data, or None for those that need none."""

    @property
    def val_fraction(self) -> float:
        """The part of the training images to choose by."""


class PartDataset(Dataset[tuple[Tensor, int]]):
    """One part of a data set, transformed: ``[index]`` gives a float32 image and the index of its class.

    Attributes:
        classes: names of the classes; none where the images have no labels.
    """

    def __init__(self, images: Images, indices: Sequence[int], classes: Sequence[str], transform: Transform) -> None:
        self.classes = list(classes)
        self._images, self._indices, self._transform = images, indices, transform

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self._images[self._indices[index]]
        return self._transform(image), label


def open_part(data: DataSection, part: Part, transform: Transform, seed: int) -> PartDataset:
    """Open one part of a recipe's data, downloading the data set when it is one to be had and not there.

    Args:
        data: the recipe's section.
        part: ``train`` to learn from, ``val`` to choose by, ``test`` to report.
        transform: from a PIL image to a tensor.
        seed: of the cut between train and val.

    Raises:
        DataError: the data set is unknown, missing, empty, or has no such part.
    """
    if data.dataset not in DATASETS:
        raise DataError(f"unknown data set '{data.dataset}'; {did_you_mean(data.dataset, DATASETS)}", "data.dataset")
    source = DATASETS[data.dataset](data, part)
    indices: Sequence[int] = range(len(source.images))
    if source.shared:
        train, val = split(len(source.images), data.val_fraction, seed)
        indices = val if part == "val" else train
    if not indices:
        what = f"leaves no images for {part} out of {len(source.images)}"
        raise DataError(what, "data.val_fraction", "choose one between 0 and 1, such as 0.1")
    return PartDataset(source.images, indices, source.classes, transform)


def split(numel: int, val_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of train and val: disjoint, ascending, together everything.

    >>> [len(part) for part in split(50, 0.1, seed=0)]
    [45, 5]
    """
    count = round(numel * val_fraction)
    if 0 < val_fraction < 1 and numel > 1:
        count = min(max(count, 1), numel - 1)
    order = permutation(numel, seed).astype(np.int64) if numel else np.empty(0, np.int64)
    return np.sort(order[count:]).tolist(), np.sort(order[:count]).tolist()


def check_classes(dataset: PartDataset, num_classes: int) -> None:
    """Refuse data with more classes than the model tells apart.

    Raises:
        DataError: with the number the model needs.
    """
    found = len(dataset.classes)
    if found > num_classes:
        cure = (
            f"set model.num_classes: {found} (of a file, `finetune FILE --set model.num_classes={found}` makes the "
            "last layer anew), or choose the model's own data"
        )
        raise DataError(f"the data has {found} classes, the model {num_classes}", "data", cure)


def _root(data: DataSection, what_for: str) -> Path:
    if data.root is None:
        raise DataError(f"data.root is missing, {what_for}", f"data set {data.dataset}", "add root: PATH to data")
    return Path(data.root).expanduser()


def _digits(data: DataSection, part: Part) -> Source:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        cure = "pip install 'compressnet[quickstart]'"
        raise DataError("scikit-learn, which holds the digits, is not installed", "data set digits", cure) from error
    bunch = load_digits()
    order = permutation(len(bunch.target), _DIGITS_SEED).astype(np.int64)
    chosen = np.sort(order[:DIGITS_TEST] if part == "test" else order[DIGITS_TEST:])
    pixels = np.rint(bunch.images[chosen] * (255 / 16)).astype(np.uint8)  # intensities are 0 … 16
    return Source(Arrays(pixels, bunch.target[chosen].tolist()), _figures(), part != "test")


def _figures() -> list[str]:
    return [str(figure) for figure in range(10)]


def _torchvision(name: str, entries: Sequence[str]) -> Callable[[DataSection, Part], Source]:
    def build(data: DataSection, part: Part) -> Source:
        from torchvision import datasets

        make = getattr(datasets, name)
        images = download_once(
            data.dataset,
            _root(data, "the folder that holds the data set or is to hold it"),
            entries,
            lambda root, download: make(root, train=part != "test", download=download),
        )
        return Source(images, images.classes, part != "test")

    return build


def _svhn(data: DataSection, part: Part) -> Source:
    from torchvision import datasets

    half = "test" if part == "test" else "train"
    root = _root(data, "the folder that holds the data set or is to hold it")
    try:
        images = download_once(
            data.dataset,
            root,
            [f"{half}_32x32.mat"],
            lambda root, download: datasets.SVHN(root, split=half, download=download),
        )
    except ModuleNotFoundError as error:
        raise DataError("scipy, which reads SVHN, is not installed", str(root), "pip install scipy") from error
    return Source(images, _figures(), part != "test")


def _imagenet(data: DataSection, part: Part) -> Source:
    return open_imagenet(_root(data, "the folder that holds train and val"), part)


def _imagefolder(data: DataSection, part: Part) -> Source:
    return open_folder(_root(data, "the folder that holds the class folders"), part)


def _images(data: DataSection, part: Part) -> Source:
    return open_unlabelled(_root(data, "the folder that holds the images"), part)


def _fake(data: DataSection, part: Part) -> Source:
    """Noise, 32×32 in colour, of ``num_classes`` classes (10) and ``samples`` images a part (64)."""
    classes = getattr(data, "num_classes", None) or 10
    count = getattr(data, "samples", None) or 64
    shape = (count, _FAKE_SIDE, _FAKE_SIDE, 3)
    words = np.arange(np.prod(shape), dtype=np.uint32)
    pixels = (hash_words(words, 0, Purpose.INITIAL, ("train", "val", "test").index(part)) >> np.uint32(24)).astype(
        np.uint8
    )
    labels = [index % classes for index in range(count)]
    return Source(Arrays(pixels.reshape(shape), labels), [f"class {label}" for label in range(classes)])


DATASETS: Mapping[str, Callable[[DataSection, Part], Source]] = {
    "digits": _digits,
    "mnist": _torchvision("MNIST", ["MNIST"]),
    "fashion_mnist": _torchvision("FashionMNIST", ["FashionMNIST"]),
    "cifar10": _torchvision("CIFAR10", ["cifar-10-batches-py", "cifar-10-python.tar.gz"]),
    "cifar100": _torchvision("CIFAR100", ["cifar-100-python", "cifar-100-python.tar.gz"]),
    "svhn": _svhn,
    "imagenet": _imagenet,
    "imagefolder": _imagefolder,
    "images": _images,
    "fake": _fake,
}
