"""``predict``: the most likely classes of images, prepared as the file says."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from compressnet.checkpoint import load
from compressnet.data.folders import open_image
from compressnet.description import describe
from compressnet.errors import DataError, FileError
from compressnet.plan import resolve_preprocessing
from compressnet.training.parts import find_device, recipe_of


@dataclass(frozen=True)
class Prediction:
    """The most likely classes of one image, best first.

    Args:
        image: its path.
        classes: their names, or numbers where the file knows no names.
        probabilities: in 0 … 1.
    """

    image: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        ranked = zip(self.classes, self.probabilities, strict=True)
        return {"image": self.image, "classes": [{"name": name, "probability": p} for name, p in ranked]}


def predict(
    file: str | Path,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    device: str = "auto",
    overrides: Iterable[str] = (),
) -> list[Prediction]:
    """Classify images.

    Args:
        file: of any stage.
        images: paths.
        top: how many classes of each.
        device: auto, cpu, cuda or cuda:N.
        overrides: ``key.path=value`` each, such as ``data.resize=256``.

    Raises:
        CompressnetError: the file is damaged, or an image cannot be read.
    """
    where = find_device(device)
    description = describe(file)
    if description.preprocessing is None:
        raise FileError("it does not say how images are prepared", str(file), "load(path, into=module) and call it")
    if not images:
        return []
    recipe, base = recipe_of(description, file, overrides), description.preprocessing
    transform = resolve_preprocessing(base, recipe.data if overrides else None, base.channels).transform()
    batch = torch.stack([transform(_open(Path(path))) for path in images])
    with torch.no_grad():
        probabilities = load(file, where)(batch.to(where)).softmax(1).cpu()
    best = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
    names = description.classes or tuple(map(str, range(probabilities.shape[1])))
    return [
        Prediction(str(path), tuple(names[i] for i in indices), tuple(values))
        for path, indices, values in zip(images, best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _open(path: Path) -> Image.Image:
    if not path.exists():
        raise DataError("no such image", str(path))
    return open_image(str(path))
