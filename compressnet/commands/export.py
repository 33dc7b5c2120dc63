"""``export``: the file to ship, reloaded and compared before it is called done."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressnet.checkpoint import DTYPES, load
from compressnet.dense import dense_, expansion
from compressnet.description import Description, describe
from compressnet.errors import FileError, did_you_mean
from compressnet.interchange import WAYS, facts, write_verified
from compressnet.limits import MAX_BYTES, check_memory
from compressnet.nbytes import parse_nbytes
from compressnet.output import check_output, replacing
from compressnet.plan.ratios import without_chosen_bits
from compressnet.progress import SILENT, Progress
from compressnet.recipe import ExportSection, Recipe
from compressnet.shipping import (
    Choosing,
    Numbers,
    quantise,
    read_dense,
    to_ship,
    without_auxiliary,
    write_dense,
    write_plain,
)
from compressnet.training.parts import choosing_images, recipe_of

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
        kind: what it is, in words.
        logits_difference: largest difference of a logit from the source's, on random images.
        logits_scale: largest logit of the source on them.
        agreement: share of those images with the same most likely class.
    """

    path: Path
    nbytes: int
    source_nbytes: int
    form: str
    kind: str
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
    onnx: bool = False,
    pt2: bool = False,
    with_recipe: bool = False,
    target_size: str | int | None = None,
    force: bool = False,
    overrides: Iterable[str] = (),
    progress: Progress = SILENT,
) -> Exported:
    """Quantise, code, save, reload what was saved and compare; the file appears only when it is the same.

    Heads that never run in evaluation are left out, except from a dense file, which loads into the ordinary model. A
    program, which others run, is written of the dense model and run on random images, with any number of them.

    Args:
        file: of any stage.
        output: the file to write.
        dtype: float32, float16 or bfloat16, of what is not quantised; by default the recipe's ``export.dtype``, or
            float32 for a dense file.
        dense: write an ordinary state_dict with torchvision's names, for people without compressnet.
        onnx: write an ONNX model, and run it with onnxruntime.
        pt2: write a torch.export program, and run it.
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
    way = _way(dense, onnx, pt2, dtype, [*(["--with-recipe"] if with_recipe else []), *overrides])
    nbytes = None if target_size is None else _nbytes(str(target_size), way)
    preprocessing = description.preprocessing
    recipe = recipe_of(description, file, overrides)
    if nbytes is not None or any(override.startswith(REQUANTISED) for override in overrides):
        description = dataclasses.replace(description, quantisers={})
    elif way == "compressnet" and recipe.export.coder != "none":
        nbytes = recipe.budget
    if recipe.budget is not None and nbytes is not None:
        description = dataclasses.replace(description, layers=without_chosen_bits(recipe, description.layers))
    if dtype is None:
        dtype = "float32" if dense else recipe.export.dtype
    if nbytes is not None and recipe.export.coder == "none":
        raise FileError("export.coder: none and --target-size exclude each other", "export", "give one")
    if dtype not in DTYPES:
        raise FileError(f"unknown dtype '{dtype}'; {did_you_mean(dtype, DTYPES)}", "--dtype")
    settings = recipe.export.model_copy(update={"dtype": dtype})
    output, source_nbytes = Path(output), Path(file).stat().st_size
    check_output(output, force)
    images = preprocessing.noise(IMAGES)
    source = load(file)
    wanted = _logits(source, images)
    described = to_ship(description, recipe, with_recipe)
    if way in WAYS:
        if grown := expansion(source):
            progress.note(grown)
        check_memory(source, "dense", None, MAX_BYTES, str(file))
        with progress.task("writing and verifying", 1) as advance, replacing(output, force) as temporary:
            model = dense_(without_auxiliary(source, described)[0])
            reloaded = write_verified(WAYS[way], model, images, wanted, temporary, facts(described), str(output))
            advance()
        return _exported(output, source_nbytes, "float32", WAYS[way].words, wanted, reloaded)
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
    kind = "an ordinary state_dict" if dense else "a compressnet file"
    return _exported(output, source_nbytes, _form(settings, dense, nbytes), kind, wanted, reloaded)


def _way(dense: bool, onnx: bool, pt2: bool, dtype: str | None, others: Sequence[str]) -> str:
    """The one way out that is asked for; programs take no further words."""
    given = [name for name, wanted in (("dense", dense), ("onnx", onnx), ("pt2", pt2)) if wanted]
    if len(given) > 1:
        raise FileError(f"--{given[0]} and --{given[1]} exclude each other", "export", "give one")
    way = given[0] if given else "compressnet"
    if way in WAYS:
        if dtype not in (None, "float32"):
            raise FileError(f"--{way} writes float32 alone, not {dtype}", "--dtype", "leave it out")
        if others:
            raise FileError(
                f"{others[0]} is of a compressnet file, and has no meaning for --{way}", "export", "leave it out"
            )
        WAYS[way].check()
    return way


def _exported(output: Path, source_nbytes: int, form: str, kind: str, wanted: Tensor, reloaded: Tensor) -> Exported:
    return Exported(
        output,
        output.stat().st_size,
        source_nbytes,
        form,
        kind,
        (reloaded - wanted).abs().max().item(),
        wanted.abs().max().item(),
        (reloaded.argmax(1) == wanted.argmax(1)).double().mean().item(),
    )


def _quantised(file: Path, description: Description, recipe: Recipe, nbytes: int | None, progress: Progress) -> Numbers:
    """On the grids that numbers were trained for, where they were and the file then fits; else as the recipe says."""
    if description.quantisers and nbytes is not None:
        trained = quantise(file, description, recipe, progress=progress)
        if (taken := trained.nbytes()) <= nbytes:
            return trained
        progress.note(f"with the steps that it was trained for the file takes {taken:,} bytes: others are chosen")
        description = dataclasses.replace(description, quantisers={})
    choosing = _choosing(description, recipe, nbytes, str(file), progress)
    return quantise(file, description, recipe, choosing, progress)


def _nbytes(target_size: str, way: str) -> int:
    if way != "compressnet":
        raise FileError(f"--{way} and --target-size exclude each other", "export", "give one")
    try:
        return parse_nbytes(target_size)
    except ValueError as error:
        raise FileError(str(error), "--target-size") from None


def _choosing(
    description: Description, recipe: Recipe, nbytes: int | None, where: str, progress: Progress
) -> Choosing | None:
    """What steps are chosen by; None where bits are given, or numbers have their steps already."""
    if nbytes is None and (recipe.export.bits != "auto" or description.quantisers):
        return None
    assert description.preprocessing is not None
    images = choosing_images(recipe, description.preprocessing, where)
    if images is None:
        progress.note("no data: numbers are weighed by their size alone, and answers compared on noise")
        return Choosing(None, description.preprocessing.noise(IMAGES), nbytes)
    return Choosing(*images, nbytes)


def _form(settings: ExportSection, dense: bool, nbytes: int | None) -> str:
    if dense or settings.coder == "none":
        return settings.dtype
    if nbytes is not None:
        return f"the finest steps of {nbytes:,} bytes"
    if settings.bits == "auto":
        return f"the coarsest steps within {settings.tolerance:g} nats"
    return settings.dtype if settings.bits is None else f"{settings.quantiser} quantisers of {settings.bits} bits"


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
