"""The ways to write a model that is shipped: each writes it and says what it computes then."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from compressnet.allocation import Target, allocate_
from compressnet.checkpoint import DTYPES, fill_, load, write, write_coded, write_state_dict
from compressnet.coding.choose import choose
from compressnet.coding.payload import on_grid
from compressnet.coding.quantisers import Quantiser, from_json
from compressnet.coding.symbols import Coder
from compressnet.description import Description
from compressnet.errors import FileError
from compressnet.folding import fold_norms_
from compressnet.layers import freeze
from compressnet.plan import PlannedBlock, PlannedLayer
from compressnet.pretrained import dense_state
from compressnet.progress import SILENT, Progress
from compressnet.recipe import ExportSection, Recipe
from compressnet.rewrite import pack_
from compressnet.zoo import models, weights
from compressnet.zoo.models import ModelSpec

STATISTICS = ("running_mean", "running_var")


def write_dense(file: Path, description: Description, dtype: str, path: Path) -> nn.Module:
    """Write an ordinary state_dict; the model that it is of."""
    assert description.spec is not None
    state = cast(dense_state(load(file), str(file)), DTYPES[dtype], str(file))
    write_state_dict(state, path)
    return plain(description.spec, state)


def read_dense(description: Description, path: Path) -> nn.Module:
    """The ordinary torchvision model of a state_dict that was written."""
    assert description.spec is not None
    return plain(description.spec, weights.read_state_dict(path))


def plain(spec: ModelSpec, state: Mapping[str, Tensor]) -> nn.Module:
    """The ordinary torchvision model with a state_dict."""
    model = models.skeleton(spec)
    fill_(model, {k: t.float() if t.is_floating_point() else t for k, t in state.items()})
    return model.eval()


def write_plain(file: Path, description: Description, settings: ExportSection, path: Path) -> nn.Module:
    """Write tensors as they are, cast, with positions packed; the model that they are of."""
    model, described = without_auxiliary(load(file, form="compressed"), description)
    layers = pack_(model, described.layers)
    state = cast(model.state_dict(), DTYPES[settings.dtype], str(file), set(dict(model.named_buffers())))
    fill_(model, state)
    write(model, path, dataclasses.replace(described, layers=layers))
    freeze(model.float())
    return model


@dataclass(frozen=True)
class Choosing:
    """What the steps of ``export.bits: auto``, or of a file of a given size, are chosen by.

    Args:
        images: that tell what an error of each number costs, or None; see :func:`compressnet.allocation.allocate_`.
        judges: on which the coded model's answers are compared with those before.
        nbytes: how many the file may have, or None.
    """

    images: Tensor | None
    judges: Tensor
    nbytes: int | None = None


@dataclass(frozen=True)
class Numbers:
    """A model whose numbers are quantised.

    Args:
        model: of numbers that the quantisers have.
        description: what its file says of itself.
        quantisers: by the tensor's name.
        coder: of symbols.
        seed: of the recipe.
    """

    model: nn.Module
    description: Description
    quantisers: Mapping[str, Quantiser]
    coder: Coder
    seed: int

    def write(self, path: Path) -> nn.Module:
        """Write them coded; the model that they are of."""
        coded = on_grid(self.model.state_dict(), self.quantisers)
        described = dataclasses.replace(self.description, quantisers={})
        write_coded(coded, path, described, self.quantisers, self.coder, self.seed)
        return self.model

    def nbytes(self) -> int:
        """Of the file."""
        with TemporaryDirectory() as folder:
            self.write(Path(folder) / "model.safetensors")
            return (Path(folder) / "model.safetensors").stat().st_size


def quantise(
    file: Path,
    description: Description,
    recipe: Recipe,
    choosing: Choosing | None = None,
    progress: Progress = SILENT,
) -> Numbers:
    """The model of a file with the numbers that a coded file can have; its norms folded where the recipe says so.

    Args:
        file: of any stage.
        description: of it.
        recipe: its export section says how.
        choosing: of steps; without it bits are those of the recipe.
        progress: is told.

    Raises:
        FileError: a number is not finite or does not fit, or no steps keep to the tolerance or the bytes.
    """
    model, described = without_auxiliary(load(file, form="compressed"), description)
    _check_finite(model.state_dict(), str(file))
    known = {name: from_json(keys) for name, keys in described.quantisers.items() if name in model.state_dict()}
    coder: Coder = "huffman" if recipe.export.coder == "huffman" else "range"
    numbers = Numbers(model, described, known, coder, recipe.seed)
    if recipe.export.fold_norm:
        _fold_norms_(numbers, progress)
    if choosing is not None and not known:
        numbers = _allocated(numbers, recipe.export, choosing, progress)
    else:
        state = model.state_dict()
        quantisers = choose(state, [*described.layers, *described.blocks], recipe.export) | known
        coded = on_grid(state, quantisers)
        _check_range(state, coded, str(file))
        fill_(model, {name: t.float() if t.is_floating_point() else t for name, t in coded.items()})
        numbers = dataclasses.replace(numbers, quantisers=quantisers)
    freeze(model)
    return numbers


def _fold_norms_(numbers: Numbers, progress: Progress) -> None:
    if numbers.quantisers:
        progress.note("norms are not folded: these numbers were trained for the steps that they have")
        return
    assert numbers.description.preprocessing is not None
    fold_norms_(numbers.model, numbers.description.preprocessing.noise(1))


def _allocated(numbers: Numbers, settings: ExportSection, choosing: Choosing, progress: Progress) -> Numbers:
    def measure(model: nn.Module, quantisers: Mapping[str, Quantiser]) -> int:
        return dataclasses.replace(numbers, quantisers=quantisers).nbytes()

    planned: list[PlannedLayer | PlannedBlock] = [*numbers.description.layers, *numbers.description.blocks]
    target = None if choosing.nbytes is None else Target(choosing.nbytes, measure)
    found = allocate_(numbers.model, planned, settings, choosing.images, choosing.judges, target, progress)
    return dataclasses.replace(numbers, quantisers=found.quantisers)


def to_ship(description: Description, recipe: Recipe, with_recipe: bool) -> Description:
    """What a shipped file says of itself: the recipe and what was measured only where that is asked for.

    The path of the weights means nothing elsewhere, and is left out.
    """
    text: dict[str, Any] = recipe.model_dump(mode="json", exclude_defaults=True) if with_recipe else {}
    if with_recipe and recipe.model and recipe.model.weights and weights.is_path(recipe.model.weights):
        del text["model"]["weights"]
    results = description.results if with_recipe else {}
    return dataclasses.replace(description, stage="exported", recipe=text, results=results)


def without_auxiliary(model: nn.Module, description: Description) -> tuple[nn.Module, Description]:
    """The model without the heads that never run in evaluation."""
    assert description.spec is not None
    spec = models.drop_auxiliary_(model, description.spec)
    layers = tuple(layer for layer in description.layers if not layer.auxiliary)
    return model, dataclasses.replace(description, spec=spec, layers=layers)


def cast(state: Mapping[str, Tensor], dtype: torch.dtype, where: str, kept: Collection[str] = ()) -> dict[str, Tensor]:
    """Floating-point tensors in another dtype, but for norm statistics, which are buffers.

    Raises:
        FileError: a number is too large for the dtype.
    """
    result = {}
    for name, tensor in state.items():
        changed = name not in kept and tensor.is_floating_point() and not name.endswith(STATISTICS)
        result[name] = tensor.to(dtype) if changed else tensor
    _check_range(state, result, where)
    return result


def _check_range(state: Mapping[str, Tensor], result: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in state.items():
        if tensor.isfinite().all() and not result[name].isfinite().all():
            cure = "--dtype bfloat16 holds them"
            raise FileError(f"{name} holds numbers too large for {result[name].dtype}", where, cure)


def _check_finite(state: Mapping[str, Tensor], where: str) -> None:
    wrong = next((name for name, tensor in state.items() if not tensor.isfinite().all()), None)
    if wrong:
        raise FileError(f"{wrong} holds numbers that are not finite", where, "train it again with a lower lr")
