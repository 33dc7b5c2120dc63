"""Images in folders: ``imagefolder`` and ``imagenet``, where these are classes, and ``images``, which have no labels.

Of class folders:

| in the root | test | train | val |
|---|---|---|---|
| ``train/``, ``val/``, ``test/`` | ``test/`` | ``train/`` | ``val/`` |
| ``train/`` and one of the others | the other | ``train/``, cut | cut out of ``train/`` |
| only ``val/`` or ``test/`` | it | refused | refused |
| class folders directly | the whole | the whole, cut | cut out of the whole |

In the last row test overlaps the other two: it is there to evaluate on, not to measure generalisation.

Of images without labels, at any depth, ``val/`` and ``test/`` are these parts; train is ``train/``, or, where there is
none, what lies in neither of them. Where there is no ``val/``, val is cut out of train.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from compressnet.data.sources import NO_LABEL, Part, Source
from compressnet.errors import DataError, listing

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_PARTS = ("train", "val", "test")
_LAYOUT = (
    "the layout is ROOT/train/<class>/*.jpg and ROOT/test/<class>/*.jpg (or val), "
    "or ROOT/<class>/*.jpg to evaluate only"
)
_UNLABELLED_LAYOUT = (
    "it takes ROOT with images at any depth, or ROOT/train and, where there are such parts, val and test"
)


@dataclass(frozen=True)
class Files:
    """Image files, opened one at a time.

    Raises:
        DataError: from ``[index]``, naming a file that cannot be decoded.
    """

    samples: Sequence[tuple[str, int]]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]:
        path, label = self.samples[index]
        return open_image(path), label


def open_image(path: str) -> Image.Image:
    """An image file, decoded.

    Raises:
        DataError: it cannot be.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    # PIL's decoders let all of these out of a damaged file.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        cure = "replace or remove the file"
        raise DataError(f"unreadable image: {_reason(error, path)}", path, cure) from error


def _reason(error: Exception, path: str) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image, or truncated" if os.path.getsize(path) else "the file is empty"
    return str(error)


def open_folder(root: Path, part: Part) -> Source:
    """A part of a root of class folders.

    Raises:
        DataError: the root is missing or empty, has no such part, or its parts disagree on the classes.
    """
    _check_root(root)
    here = [name for name in _PARTS if (root / name).is_dir()]
    if not here:
        return _open(root, _classes(root), shared=part != "test")
    if part == "test":
        if here == ["train"]:
            raise DataError("has train, but neither test nor val to evaluate on", str(root), _LAYOUT)
        folder = "test" if "test" in here else "val"
    else:
        _check_train(root, here, part)
        folder = "val" if part == "val" and len(here) == 3 else "train"
    classes = _classes(root / ("train" if "train" in here else folder))
    return _open(root / folder, classes, shared=part != "test" and len(here) < 3)


def open_imagenet(root: Path, part: Part) -> Source:
    """ImageNet as class folders: test is ``val/`` (its labelled 50,000), train and val are cut out of ``train/``.

    A thousand classes get their English names.

    Raises:
        DataError: as :func:`open_folder`.
    """
    _check_root(root)
    folder = "val" if part == "test" else "train"
    if not (root / folder).is_dir():
        cure = (
            "the layout is ROOT/train/<wnid>/*.JPEG and ROOT/val/<wnid>/*.JPEG; torchvision.datasets.ImageNet(ROOT, "
            "split) unpacks the official archives into it"
        )
        raise DataError(f"has no folder {folder}", str(root), cure)
    classes = _classes(root / folder)
    source = _open(root / folder, classes, shared=part != "test")
    if len(classes) != 1000:
        return source
    from compressnet.zoo.weights import preset

    return Source(source.images, preset(None, "ResNet50_Weights.IMAGENET1K_V1").meta["categories"], source.shared)


def open_unlabelled(root: Path, part: Part) -> Source:
    """A part of a root of images without labels.

    Raises:
        DataError: the root is missing or empty, or has no such part.
    """
    _check_root(root, _UNLABELLED_LAYOUT)
    here = [name for name in _PARTS if (root / name).is_dir()]
    if part == "test" and part not in here:
        raise DataError("has no folder test", str(root), "what is cut out of train is to choose by, not to report on")
    folder = root / part if part in here else root / "train" if "train" in here else root
    elsewhere = tuple(os.path.join(root, name, "") for name in here) if folder == root else ()
    samples = [
        (path, NO_LABEL)
        for path in (os.path.join(parent, name) for parent, name in _images(folder))
        if not path.startswith(elsewhere)
    ]
    if not samples:
        raise DataError(f"has no images ({', '.join(_EXTENSIONS)})", str(folder), _UNLABELLED_LAYOUT)
    return Source(Files(samples), (), shared=part != "test" and "val" not in here)


def _check_root(root: Path, layout: str = _LAYOUT) -> None:
    if not root.is_dir():
        what = "is a file, not a folder of images" if root.exists() else "there is no such folder"
        raise DataError(what, str(root), f"data.root is relative to where compressnet is started; {layout}")
    if not any(root.iterdir()):
        raise DataError("the folder is empty", str(root), layout)


def _check_train(root: Path, here: Sequence[str], part: Part) -> None:
    if "train" not in here:
        what = f"has only {' and '.join(here)}, so there is no {part} part: it can be evaluated on, not trained on"
        raise DataError(what, str(root), _LAYOUT)


def _classes(folder: Path) -> list[str]:
    """The class folders, sorted."""
    found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    if not found:
        raise DataError("has no class folders", str(folder), _LAYOUT)
    return found


def _open(folder: Path, classes: Sequence[str], shared: bool) -> Source:
    """The images of a folder, labelled by the place of their class in ``classes``."""
    unknown = [name for name in _classes(folder) if name not in set(classes)]
    if unknown:
        cure = "every part must have the classes of train, by the same names"
        raise DataError(f"has classes that train has not: {listing(unknown, 5)}", str(folder), cure)
    samples = [
        (os.path.join(parent, name), label)
        for label, name in enumerate(classes)
        for parent, name in _images(folder / name)
    ]
    if not samples:
        raise DataError(f"has no images ({', '.join(_EXTENSIONS)})", str(folder), _LAYOUT)
    empty = set(range(len(classes))) - {label for _, label in samples}
    if shared and empty:
        what = f"classes without images: {listing([classes[label] for label in sorted(empty)], 5)}"
        raise DataError(what, str(folder), "add images, or remove the empty folders")
    return Source(Files(samples), classes, shared)


def _images(folder: Path) -> list[tuple[str, str]]:
    """Folder and name of every image below a folder, in an order that does not depend on the file system."""
    return sorted(
        (parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(_EXTENSIONS) and name[0] != "."
    )
