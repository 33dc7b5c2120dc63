"""``export``: the file to ship, reloaded and compared before it is called done."""

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressnet.checkpoint import DTYPES, Description, describe, fill_, load, write, write_state_dict
from compressnet.errors import FileError, did_you_mean
from compressnet.layers import freeze
from compressnet.maths.hashing import normal
from compressnet.output import check_output, replacing
from compressnet.pretrained import dense_state
from compressnet.progress import SILENT, Progress
from compressnet.recipe import Recipe
from compressnet.rewrite import pack_
from compressnet.training.parts import recipe_of
from compressnet.zoo import models, weights
from compressnet.zoo.models import ModelSpec
from compressnet.zoo.preprocessing import Preprocessing

IMAGES = 8


@dataclass(frozen=True)
class Exported:
    """What was written, and how near it is to what it came from.

    Args:
        path: of the file.
        nbytes: of the file.
        source_nbytes: of the file it came from.
        dtype: of the parameters.
        dense: whether it is a plain state_dict.
        logits_difference: largest difference of a logit from the source's, on random images.
        logits_scale: largest logit of the source on them.
        agreement: share of those images with the same most likely class.
    """

    path: Path
    nbytes: int
    source_nbytes: int
    dtype: str
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
    force: bool = False,
    overrides: Iterable[str] = (),
    progress: Progress = SILENT,
) -> Exported:
    """Cast, pack, save, reload what was saved and compare logits; the file appears only when they agree.

    Heads that never run in evaluation are left out, except from a dense file, which loads into the ordinary model.

    Args:
        file: of any stage.
        output: the file to write.
        dtype: float32, float16 or bfloat16; by default the recipe's ``export.dtype``, or float32 for a dense file.
        dense: write an ordinary state_dict with torchvision's names, for people without compressnet.
        force: replace a file that is there.
        overrides: ``key.path=value`` each, such as ``export.dtype=bfloat16``.
        progress: is told.

    Raises:
        RecipeError: an override is wrong.
        FileError: the file is damaged, a number does not fit the dtype, or what was written does not compute the same.
    """
    description = describe(file)
    if description.spec is None or description.preprocessing is None:
        raise FileError("it holds a module that is not torchvision's", str(file), "compressnet.save writes it")
    recipe = recipe_of(description, file, overrides)
    if dtype is None:
        dtype = "float32" if dense else recipe.export.dtype
    if dtype not in DTYPES:
        raise FileError(f"unknown dtype '{dtype}'; {did_you_mean(dtype, DTYPES)}", "--dtype")
    output, source_nbytes = Path(output), Path(file).stat().st_size
    check_output(output, force)
    images = _images(description.preprocessing)
    source = load(file)
    wanted = _logits(source, images)
    with progress.task("writing and verifying", 3) as advance, replacing(output, force) as temporary:
        if dense:
            state = _cast(dense_state(source, str(file)), DTYPES[dtype], str(file))
            write_state_dict(state, temporary)
            advance()
            expected = _logits(_plain(description.spec, state), images)
            reloaded = _logits(_plain(description.spec, weights.read_state_dict(temporary)), images)
        else:
            model, described = _without_auxiliary(load(file, form="compressed"), description)
            layers = pack_(model, described.layers)
            state = _cast(model.state_dict(), DTYPES[dtype], str(file), set(dict(model.named_buffers())))
            fill_(model, state)
            described = dataclasses.replace(described, stage="exported", layers=layers, recipe=_to_ship(recipe))
            write(model, temporary, described)
            advance()
            freeze(model.float())
            expected, reloaded = _logits(model, images), _logits(load(temporary), images)
        advance()
        # equal to rounding: where a tensor lies in memory may choose another kernel
        if not torch.allclose(expected, reloaded, rtol=1e-5, atol=1e-6):
            difference = (expected - reloaded).abs().max().item()
            raise FileError(
                f"the file as reloaded gives other logits, by up to {difference:.3g}", str(output), "it is not kept"
            )
        advance()
    return Exported(
        output,
        output.stat().st_size,
        source_nbytes,
        dtype,
        dense,
        (reloaded - wanted).abs().max().item(),
        wanted.abs().max().item(),
        (reloaded.argmax(1) == wanted.argmax(1)).double().mean().item(),
    )


def _to_ship(recipe: Recipe) -> dict[str, Any]:
    """The recipe without the path of the weights, which means nothing elsewhere."""
    text = recipe.model_dump(mode="json", exclude_defaults=True)
    if recipe.model and recipe.model.weights and weights.is_path(recipe.model.weights):
        del text["model"]["weights"]
    return text


def _images(preprocessing: Preprocessing) -> Tensor:
    """Normal noise of the size the model sees, the same at every call."""
    shape = (IMAGES, preprocessing.channels, preprocessing.crop, preprocessing.crop)
    return normal(math.prod(shape), seed=0).float().view(shape)


@torch.no_grad()
def _logits(model: nn.Module, images: Tensor) -> Tensor:
    return model.eval()(images)


def _plain(spec: ModelSpec, state: Mapping[str, Tensor]) -> nn.Module:
    """The ordinary torchvision model with a state_dict."""
    model = models.skeleton(spec)
    fill_(model, {k: t.float() if t.is_floating_point() else t for k, t in state.items()})
    return model


def _without_auxiliary(model: nn.Module, description: Description) -> tuple[nn.Module, Description]:
    """The model without the heads that never run in evaluation."""
    assert description.spec is not None
    spec = models.drop_auxiliary_(model, description.spec)
    layers = tuple(layer for layer in description.layers if not layer.auxiliary)
    return model, dataclasses.replace(description, spec=spec, layers=layers)


def _cast(state: Mapping[str, Tensor], dtype: torch.dtype, where: str, kept: Collection[str] = ()) -> dict[str, Tensor]:
    """Floating-point tensors in another dtype, but for norm statistics, which are buffers.

    Raises:
        FileError: a number is too large for the dtype.
    """
    result = {}
    for name, tensor in state.items():
        cast = name not in kept and tensor.is_floating_point() and not name.endswith(("running_mean", "running_var"))
        result[name] = tensor.to(dtype) if cast else tensor
        if cast and tensor.isfinite().all() and not result[name].isfinite().all():
            raise FileError(f"{name} holds numbers too large for {dtype}", where, "--dtype bfloat16 holds them")
    return result
