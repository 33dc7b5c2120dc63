"""From an image to what a model sees: resize, centre crop, scale to [0, 1], normalise."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from compressnet.errors import FileError, RecipeError
from compressnet.maths.hashing import normal

Augment = Literal["none", "flip", "crop", "randaugment"]
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
SIZE = 224
MAX_SIZE = 8192
MEAN = {1: (0.5,), 3: (0.485, 0.456, 0.406)}
STD = {1: (0.5,), 3: (0.229, 0.224, 0.225)}
CROP_SCALE = (0.35, 1.0)
_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a tensor; travels in the file.

    Attributes:
        resize: pixels of the shorter side before the crop.
        crop: pixels of both sides after it.
        interpolation: one of ``INTERPOLATIONS``.
        mean: subtracted, one number a channel, on the scale of [0, 1].
        std: divided by, one number a channel.
        channels: 3 (grey images are repeated) or 1 (coloured ones become grey).
    """

    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int

    def to_json(self) -> dict[str, Any]:
        """The form that travels in a file."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    def noise(self, count: int) -> Tensor:
        """Normal noise of the size the model sees, the same at every call: shape (count, C, H, W)."""
        shape = (count, self.channels, self.crop, self.crop)
        return normal(math.prod(shape), seed=0).float().view(shape)

    @classmethod
    def from_json(cls, value: object) -> "Preprocessing":
        """The inverse of :meth:`to_json`.

        Raises:
            FileError: a key, type or value is not what :meth:`to_json` writes.
        """
        damaged = "the file is damaged, or not from compressnet"
        keys = list(cls.__dataclass_fields__)
        if not isinstance(value, dict) or set(value) != set(keys):
            raise FileError(f"holds no {', '.join(keys)}", "preprocessing", damaged)
        for key in ("mean", "std"):
            if not isinstance(value[key], list):
                raise FileError(f"{value[key]!r} is no list of numbers", f"preprocessing.{key}", damaged)
        made = cls(**{**value, "mean": tuple(value["mean"]), "std": tuple(value["std"])})
        mistake = made.mistake()
        if mistake:
            raise FileError(mistake[1], f"preprocessing.{mistake[0]}", damaged)
        return made

    def mistake(self) -> tuple[str, str] | None:
        """The first value that cannot be: its name, and what is wrong with it."""
        for key, pixels in (("resize", self.resize), ("crop", self.crop)):
            if type(pixels) is not int or not 1 <= pixels <= MAX_SIZE:
                return key, f"{pixels!r} is no number of pixels from 1 to {MAX_SIZE}"
        if self.crop > self.resize:
            return "crop", f"{self.crop} pixels cannot be cut out of {self.resize}"
        if self.interpolation not in INTERPOLATIONS:
            return (
                "interpolation",
                f"unknown interpolation {self.interpolation!r}; there are {', '.join(INTERPOLATIONS)}",
            )
        if type(self.channels) is not int or self.channels not in _MODES:
            return "channels", f"{self.channels!r} channels; images have 1 or 3"
        for key, numbers in (("mean", self.mean), ("std", self.std)):
            if not all(type(n) in (int, float) and math.isfinite(n) for n in numbers):
                return key, f"{list(numbers)!r} are not all numbers"
            if len(numbers) != self.channels:
                return key, f"{len(numbers)} numbers for {self.channels} channels"
        if min(self.std) <= 0:
            return "std", f"{list(self.std)!r} are not all above 0"
        return None

    def transform(self, augment: Augment = "none", magnitude: int = 9) -> Callable[[Image.Image], Tensor]:
        """What makes a float32 tensor of shape (channels, crop, crop) of a PIL image; it can be pickled.

        Args:
            augment: ``none``, exactly torchvision's evaluation preset; ``flip``, mirrored half the time; ``crop``, a
                random part of 35 to 100 % of the image's area, mirrored half the time; ``randaugment``, the same and
                two operations drawn for each image (Cubuk et al., https://arxiv.org/abs/1909.13719), in the order of
                torchvision's training recipes.
            magnitude: of these operations, 0 to 30.
        """
        from torchvision import transforms
        from torchvision.transforms.v2 import RandAugment

        mode = transforms.InterpolationMode(self.interpolation)
        cut = [transforms.Resize(self.resize, mode, antialias=True), transforms.CenterCrop(self.crop)]
        if augment in ("crop", "randaugment"):
            cut = [transforms.RandomResizedCrop(self.crop, CROP_SCALE, interpolation=mode, antialias=True)]
        if augment != "none":
            cut.append(transforms.RandomHorizontalFlip())
        if augment == "randaugment":
            cut.append(RandAugment(magnitude=magnitude, interpolation=transforms.InterpolationMode.BILINEAR))
        scale = [
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float32),
            transforms.Normalize(self.mean, self.std),
        ]
        return transforms.Compose([_Channels(self.channels), *cut, *scale])


@dataclass(frozen=True)
class _Channels:
    """Grey or coloured, whatever the image was."""

    channels: int

    def __call__(self, image: Image.Image) -> Image.Image:
        mode = _MODES[self.channels]
        if image.mode == mode:
            return image
        if "transparency" in image.info:
            image = image.convert("RGBA")  # PIL warns about palettes with transparency converted directly
        return image.convert(mode)


def from_preset(weights: Any) -> Preprocessing:
    """The evaluation preset of torchvision's weights.

    Args:
        weights: a member of a torchvision ``WeightsEnum``.
    """
    preset = weights.transforms()
    return Preprocessing(
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        channels=3,
    )


def resolve(
    base: Preprocessing | None,
    *,
    channels: int,
    image_size: int | None = None,
    resize: int | None = None,
    crop: int | None = None,
    interpolation: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preprocessing:
    """The preprocessing of a recipe: what it says itself, else what its preset says, else the defaults.

    Args:
        base: the preset's, if any. Its ``mean`` and ``std`` are for its own number of channels only.
        channels: of the model's input, see :func:`input_channels`.
        image_size: the model's input in pixels; with a base, its ``resize`` is scaled in proportion.
        resize: as in :class:`Preprocessing`, and so the others. Of ``resize`` and ``crop``, one alone without a base
            or an ``image_size`` is both.

    Raises:
        RecipeError: a value cannot be, or two do not fit each other.
    """
    scaled, cut = image_size, image_size
    if base is not None:
        cut = image_size if image_size is not None else base.crop
        scaled = round(base.resize * cut / base.crop)
    fitting = base if base is not None and base.channels == channels else None
    made = Preprocessing(
        resize=_first(resize, scaled, crop, SIZE),
        crop=_first(crop, cut, resize, SIZE),
        interpolation=_first(interpolation, base.interpolation if base else None, "bilinear"),
        mean=tuple(_first(mean, fitting.mean if fitting else None, MEAN.get(channels, ()))),
        std=tuple(_first(std, fitting.std if fitting else None, STD.get(channels, ()))),
        channels=channels,
    )
    mistake = made.mistake()
    if mistake:
        key, what = mistake
        raise RecipeError(what, f"data.{key}", _CURES.get(key))
    return made


_CURES = {
    "crop": "give data.resize as well, at least as large, or data.image_size for both",
    "mean": "give one number for each channel of the model's input",
    "std": "give one positive number for each channel of the model's input",
}


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def input_channels(module: nn.Module) -> int:
    """The channels of a model's input: ``in_channels`` of its first module that has any, or else 3.

    >>> input_channels(nn.Sequential(nn.ReLU(), nn.Conv2d(1, 8, 3)))
    1
    """
    for part in module.modules():
        channels = getattr(part, "in_channels", None)
        if isinstance(channels, int):
            return channels
    return 3
