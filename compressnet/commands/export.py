"""``export``: the file to ship, reloaded and compared before it is called done."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressnet.checkpoint import DTYPES, load
from compressnet.description import Description, describe
from compressnet.errors import DataError, FileError, did_you_mean
from compressnet.nbytes import parse_nbytes
from compressnet.output import check_output, replacing
from compressnet.plan.ratios import without_chosen_bits
from compressnet.progress import SILENT, Progress
from compressnet.recipe import ExportSection, Recipe
from compressnet.recipe.schema import CalibrationSection
from compressnet.shipping import Choosing, Numbers, noise, quantise, read_dense, to_ship, write_dense, write_plain
from compressnet.training.parts import open_images, recipe_of, sample_images

IMAGES = 8
REQUANTISED = ("export.bits", "export.vector_bits", "export.quantiser", "export.group")
"""Overrides after which numbers that are quantised already are quantised anew."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how near it is to what it came from.

    Args:
        path: of the file.
        nbytes: of the file.
        source_nbytes: of the file it came from.
        form: of its numbers, in words.
        dense: whether it is a plain state_dict.
        logits_difference: largest difference of a logit from the source's, on random images.
        logits_scale: largest logit of the source on them.
        agreement: share of those images with the same most likely class.
    """

    path: Path
    nbytes: int
    source_nbytes: int
    form: str
    dense: bool
    logits_difference: float
    logits_scale: float
    agreement: float

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return dataclasses.asdict(self) | {"path": str(self.path)}


def export(
    file: str | Path,
    output: str | Path,
    *,
    dtype: str | None = None,
    dense: bool = False,
    with_recipe: bool = False,
    target_size: str | int | None = None,
    force: bool = False,
    overrides: Iterable[str] = (),
    progress: Progress = SILENT,
) -> Exported:
    """Quantise, code, save, reload what was saved and compare; the file appears only when it is the same.

    Heads that never run in evaluation are left out, except from a dense file, which loads into the ordinary model.

    Args:
        file: of any stage.
        output: the file to write.
        dtype: float32, float16 or bfloat16, of what is not quantised; by default the recipe's ``export.dtype``, or
            float32 for a dense file.
        dense: write an ordinary state_dict with torchvision's names, for people without compressnet.
        with_recipe: the file carries the recipe and what was measured, too.
        target_size: how many bytes the file may have, such as ``500kB`` or ``2.5MiB``: steps are the smallest that fit.
        force: replace a file that is there.
        overrides: ``key.path=value`` each, such as ``export.bits=5``.
        progress: is told.

    Raises:
        RecipeError: an override is wrong.
        DataError: the images that steps are chosen by cannot be used.
        FileError: the file is damaged, a number does not fit the dtype, or what was written does not compute the same.
    """
    description = describe(file)
    if description.spec is None or description.preprocessing is None:
        raise FileError("it holds a module that is not torchvision's", str(file), "compressnet.save writes it")
    overrides = list(overrides)
    preprocessing = description.preprocessing
    recipe = recipe_of(description, file, overrides)
    nbytes = _nbytes(target_size, dense, recipe.export.coder)
    if nbytes is not None or any(override.startswith(REQUANTISED) for override in overrides):
        description = dataclasses.replace(description, quantisers={})
    elif not dense and recipe.export.coder != "none":
        nbytes = recipe.budget
    if recipe.budget is not None and nbytes is not None:
        description = dataclasses.replace(description, layers=without_chosen_bits(recipe, description.layers))
    if dtype is None:
        dtype = "float32" if dense else recipe.export.dtype
    if dtype not in DTYPES:
        raise FileError(f"unknown dtype '{dtype}'; {did_you_mean(dtype, DTYPES)}", "--dtype")
    settings = recipe.export.model_copy(update={"dtype": dtype})
    output, source_nbytes = Path(output), Path(file).stat().st_size
    check_output(output, force)
    images = noise(preprocessing, IMAGES)
    wanted = _logits(load(file), images)
    described = to_ship(description, recipe, with_recipe)
    recipe = recipe.model_copy(update={"export": settings})
    numbers = None
    if not dense and settings.coder != "none":
        numbers = _quantised(Path(file), described, recipe, nbytes, progress)
    with progress.task("writing and verifying", 2) as advance, replacing(output, force) as temporary:
        if numbers is not None:
            model = numbers.write(temporary)
        elif dense:
            model = write_dense(Path(file), described, dtype, temporary)
        else:
            model = write_plain(Path(file), described, settings, temporary)
        advance()
        again = read_dense(described, temporary) if dense else load(temporary)
        _compare(model.state_dict(), again.state_dict(), str(output))
        reloaded = _logits(again, images)
        _check_logits(_logits(model, images), reloaded, str(output))
        advance()
    return Exported(
        output,
        output.stat().st_size,
        source_nbytes,
        _form(settings, dense, nbytes),
        dense,
        (reloaded - wanted).abs().max().item(),
        wanted.abs().max().item(),
        (reloaded.argmax(1) == wanted.argmax(1)).double().mean().item(),
    )


def _quantised(file: Path, description: Description, recipe: Recipe, nbytes: int | None, progress: Progress) -> Numbers:
    """On the grids that numbers were trained for, where they were and the file then fits; else on ones chosen here."""
    if description.quantisers:
        trained = quantise(file, description, recipe, progress=progress)
        if nbytes is None or trained.nbytes() <= nbytes:
            return trained
        progress.note(f"the steps that it was trained for take {trained.nbytes():,} bytes: others are chosen")
        description = dataclasses.replace(description, quantisers={})
    if nbytes is None and recipe.export.bits != "auto":
        return quantise(file, description, recipe, progress=progress)
    choosing = _choosing(description, recipe, nbytes, str(file), progress)
    return quantise(file, description, recipe, choosing, progress)


def _nbytes(target_size: str | int | None, dense: bool, coder: str) -> int | None:
    """The bytes of a size.

    Raises:
        FileError: it is no size, or the file is not one whose size can be chosen.
    """
    if target_size is None:
        return None
    if dense or coder == "none":
        what = "the size of a file can be chosen where its numbers are coded"
        raise FileError(what, "--target-size", "leave out --dense and export.coder: none")
    try:
        return parse_nbytes(str(target_size))
    except ValueError as error:
        raise FileError(str(error), "--target-size") from None


def _choosing(description: Description, recipe: Recipe, nbytes: int | None, where: str, progress: Progress) -> Choosing:
    """Training images, as many as calibration takes, without their labels: two thirds to weigh numbers by, the others
    to judge by. Without data nothing is weighed, and noise judges.

    Raises:
        DataError: they cannot be used.
    """
    assert description.spec is not None
    assert description.preprocessing is not None
    if recipe.data is None:
        progress.note("no data: numbers are weighed by their size alone, and answers compared on noise")
        return Choosing(None, noise(description.preprocessing, IMAGES), nbytes)
    plain = recipe.model_copy(update={"data": recipe.data.model_copy(update={"augment": "none"})})
    try:
        dataset = open_images(
            plain, description.preprocessing, "train", description.spec.num_classes, where, description.classes
        )
        images = sample_images(dataset, (recipe.calibration or CalibrationSection()).images, recipe.seed)
    except DataError as error:
        cure = "steps are chosen by training images; --set data=null chooses without, and worse"
        raise DataError(f"{error}\n  {cure}") from None
    judges = max(1, len(images) // 3)
    return Choosing(images[judges:] if len(images) > judges else images, images[:judges], nbytes)


def _form(settings: ExportSection, dense: bool, nbytes: int | None) -> str:
    if not dense and settings.coder != "none":
        if nbytes is not None:
            return f"the finest steps of {nbytes:,} bytes"
        if settings.bits == "auto":
            return f"the coarsest steps within {settings.tolerance:g} nats"
        if settings.bits is not None:
            return f"{settings.quantiser} quantisers of {settings.bits} bits"
    return settings.dtype


def _compare(written: Mapping[str, Tensor], read: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in written.items():
        if not torch.equal(tensor, read[name]):
            raise FileError(f"the file as reloaded has other numbers in {name}", where, "it is not kept")


def _check_logits(expected: Tensor, reloaded: Tensor, where: str) -> None:
    """Equal to rounding: where a tensor lies in memory may choose another kernel."""
    if not torch.allclose(expected, reloaded, rtol=1e-5, atol=1e-6):
        difference = (expected - reloaded).abs().max().item()
        raise FileError(f"the file as reloaded gives other logits, by up to {difference:.3g}", where, "it is not kept")


@torch.no_grad()
def _logits(model: nn.Module, images: Tensor) -> Tensor:
    return model.eval()(images)
