"""What a data set gives before it is cut into parts and transformed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Part = Literal["train", "val", "test"]
NO_LABEL = -1
"""The class of an image of which it is not known."""


class Images(Protocol):
    """Labelled images, as torchvision's data sets without a transform are."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]: ...


@dataclass(frozen=True)
class Source:
    """The images a part comes from.

    Attributes:
        images: each with the index of its class.
        classes: their names; none where the images have no labels.
        shared: whether these are train's and val's together, still to be cut.
    """

    images: Images
    classes: Sequence[str]
    shared: bool = False


@dataclass(frozen=True)
class Arrays:
    """Images in memory: uint8 of shape (count, height, width) or (count, height, width, 3)."""

    pixels: NDArray[np.uint8]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]), self.labels[index]
