"""``export``: the file to ship, reloaded and compared before it is called done."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressnet.checkpoint import load
from compressnet.dense import dense_, expansion
from compressnet.errors import FileError
from compressnet.interchange import WAYS, facts, write_verified
from compressnet.limits import MAX_BYTES, check_memory
from compressnet.output import check_output, replacing
from compressnet.progress import SILENT, Progress
from compressnet.shipping.numbers import Choosing, Numbers, quantise
from compressnet.shipping.states import read_dense, without_auxiliary, write_dense, write_plain
from compressnet.shipping.wish import Wish, wish_of
from compressnet.training.parts import choosing_images

IMAGES = 8
"""Of noise, on which answers are compared where there are no others."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how near it is to what it came from.

    Args:
        path: of the file.
        nbytes: of the file.
        source_nbytes: of the file it came from.
        form: of its numbers, in words.
        kind: what it is, in words.
        compared_on: which images, in words: those that steps were chosen by, or noise.
        logits_difference: largest difference of a logit from the source's on them.
        logits_scale: largest logit of the source on them.
        agreement: share of those images with the same most likely class.
    """

    path: Path
    nbytes: int
    source_nbytes: int
    form: str
    kind: str
    compared_on: str
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
    given = [way for way, wanted in (("dense", dense), ("onnx", onnx), ("pt2", pt2)) if wanted]
    size = None if target_size is None else str(target_size)
    wish = wish_of(Path(file), given, dtype, size, with_recipe, list(overrides))
    output, source_nbytes = Path(output), Path(file).stat().st_size
    check_output(output, force)
    source = load(file)
    numbers = _numbers(wish, progress) if wish.coded else None
    judges = None if numbers is None else numbers.judges
    images = wish.preprocessing.noise(IMAGES) if judges is None else judges
    wanted = _logits(source, images)
    with progress.task("writing and verifying", 1) as advance, replacing(output, force) as temporary:
        if wish.way in WAYS:
            reloaded = _write_program(wish, source, images, wanted, temporary, output, progress)
        else:
            reloaded = _write(wish, numbers, images, temporary, output)
        advance()
    return Exported(
        output,
        output.stat().st_size,
        source_nbytes,
        wish.form,
        wish.kind,
        "random images" if judges is None else f"{len(judges)} images to choose by",
        (reloaded - wanted).abs().max().item(),
        wanted.abs().max().item(),
        (reloaded.argmax(1) == wanted.argmax(1)).double().mean().item(),
    )


def _numbers(wish: Wish, progress: Progress) -> Numbers:
    """On the grids that numbers were trained for, where they were and the file then fits; else as the recipe says."""
    if wish.description.quantisers and wish.nbytes is not None:
        trained = quantise(wish.file, wish.described, wish.recipe, progress=progress)
        if (taken := trained.nbytes()) <= wish.nbytes:
            return trained
        progress.note(f"with the steps that it was trained for the file takes {taken:,} bytes: others are chosen")
        wish = dataclasses.replace(wish, description=dataclasses.replace(wish.description, quantisers={}))
    return quantise(wish.file, wish.described, wish.recipe, _choosing(wish, progress), progress)


def _choosing(wish: Wish, progress: Progress) -> Choosing | None:
    """What steps are chosen by; None where bits are given, or numbers have their steps already."""
    if wish.nbytes is None and (wish.recipe.export.bits != "auto" or wish.description.quantisers):
        return None
    images = choosing_images(wish.recipe, wish.preprocessing, str(wish.file))
    if images is None:
        progress.note("no data: numbers are weighed by their size alone, and answers compared on noise")
        return Choosing(None, wish.preprocessing.noise(IMAGES), wish.nbytes)
    return Choosing(*images, wish.nbytes)


def _write_program(
    wish: Wish, source: nn.Module, images: Tensor, wanted: Tensor, path: Path, output: Path, progress: Progress
) -> Tensor:
    """Write the dense model as a program; its logits when it is run."""
    if grown := expansion(source):
        progress.note(grown)
    check_memory(source, "dense", None, MAX_BYTES, str(wish.file))
    model = dense_(without_auxiliary(source, wish.described)[0])
    return write_verified(WAYS[wish.way], model, images, wanted, path, facts(wish.described), str(output))


def _write(wish: Wish, numbers: Numbers | None, images: Tensor, path: Path, output: Path) -> Tensor:
    """Write a file, read it again, and compare; the logits of what was read."""
    if numbers is not None:
        model = numbers.write(path)
    elif wish.way == "dense":
        model = write_dense(wish.file, wish.described, wish.recipe.export.dtype, path)
    else:
        model = write_plain(wish.file, wish.described, wish.recipe.export, path)
    again = read_dense(wish.described, path) if wish.way == "dense" else load(path)
    _compare(model.state_dict(), again.state_dict(), str(output))
    reloaded = _logits(again, images)
    _check_logits(_logits(model, images), reloaded, str(output))
    return reloaded


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
