"""compress, save and load for modules of the caller's own, and what a file says of its images."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from torch import Tensor, nn

from compressnet.calibration import BlockFit, calibrate_
from compressnet.checkpoint import save as save_
from compressnet.description import Description, describe
from compressnet.errors import FileError
from compressnet.plan import PlannedLayer, candidates, plan_blocks, plan_layers
from compressnet.progress import SILENT, Progress
from compressnet.recipe import Recipe, read_recipe
from compressnet.rewrite import project_

Module = TypeVar("Module", bound=nn.Module)


def compress(
    module: Module,
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    images: Tensor | None = None,
    progress: Progress = SILENT,
) -> Module:
    """Rewrite any module in place by the layers of a recipe, whose other sections are not needed.

    Args:
        module: torchvision's, timm's or one's own; ``nn.Conv2d``, ``nn.Linear`` and ``nn.MultiheadAttention`` inside it
            are rewritten.
        recipe: path, mapping such as ``{"layers": [{"match": "*", "method": "hashednet", "ratio": 8}]}``, or recipe.
        images: as the module takes them, of shape (N, C, H, W), without labels; layers are fitted to what the dense
            module, in float32 on the CPU, makes of them all. A few hundred do. Without them, or with
            ``calibration: null``, weights are projected by themselves.
        progress: is told.

    Returns:
        ``module``.

    Raises:
        RecipeError: the recipe is wrong or does not fit the module.
        DataError: the module cannot take the images.
    """
    draft = read_recipe(recipe)
    if draft.raw.get("budget") is not None:
        draft.mistake(("budget",), "it is of a file that is exported: convert chooses the ratios, compress takes them")
    blocks, found = plan_blocks(draft, module, candidates(module))
    layers = plan_layers(draft, found)
    calibration = draft.checked().calibration
    images = None if calibration is None else images
    fitted = BlockFit(module, blocks, images)
    fitted.place_()
    compressed = sum(layer.method is not None for layer in layers)
    with progress.task("projecting" if images is None else "calibrating", compressed) as advance:

        def done(layer: PlannedLayer, error: float, output_error: float | None) -> None:
            known = {} if output_error is None else {"output_error": output_error}
            advance(1, layer=layer.name, error=error, **known)

        if images is None or calibration is None or not compressed:
            project_(module, layers, done)
        else:
            calibrate_(module, layers, images, ridge=calibration.ridge, on_layer=done)
    if compressed:
        fitted.refit_()
    recipe_text = draft.checked().model_dump(mode="json", exclude_defaults=True, exclude={"model", "data"})
    module._compressnet = Description("converted", layers, recipe=recipe_text, blocks=blocks)  # type: ignore[assignment]
    return module


def save(module: nn.Module, path: str | Path, *, force: bool = False) -> None:
    """Write a module that :func:`compress` has rewritten, or that ``load`` has given.

    Raises:
        FileError: the module is neither, or the file exists and ``force`` is not given.
    """
    description = getattr(module, "_compressnet", None)
    if not isinstance(description, Description):
        raise FileError("this module was not rewritten by compressnet", type(module).__name__, "compress it first")
    save_(module, path, description, force=force)


def transforms(path: str | Path) -> Callable[[Image.Image], Tensor]:
    """What prepares an image for the model of a file: PIL image to float32 tensor of shape (C, H, W).

    Raises:
        FileError: the file is damaged, or holds a module that is not torchvision's.
    """
    preprocessing = describe(path).preprocessing
    if preprocessing is None:
        raise FileError("it does not say how images are prepared", str(path))
    return preprocessing.transform()
