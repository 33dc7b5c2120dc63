"""Numbers quantised, and written coded."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor, nn

from compressnet.allocation import Target, allocate_
from compressnet.checkpoint import fill_, load, write_coded
from compressnet.coding.choose import choose
from compressnet.coding.payload import on_grid
from compressnet.coding.quantisers import Quantiser, from_json
from compressnet.coding.symbols import Coder
from compressnet.description import Description
from compressnet.errors import FileError
from compressnet.folding import fold_norms_
from compressnet.layers import freeze
from compressnet.plan import PlannedBlock, PlannedLayer
from compressnet.progress import SILENT, Progress
from compressnet.recipe import ExportSection, Recipe
from compressnet.shipping.states import check_range, without_auxiliary


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
        judges: images of the recipe's data on which its answers were judged, or None.
    """

    model: nn.Module
    description: Description
    quantisers: Mapping[str, Quantiser]
    coder: Coder
    seed: int
    judges: Tensor | None = None

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
        check_range(state, coded, str(file))
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
    judges = None if choosing.images is None else choosing.judges
    return dataclasses.replace(numbers, quantisers=found.quantisers, judges=judges)


def _check_finite(state: Mapping[str, Tensor], where: str) -> None:
    wrong = next((name for name, tensor in state.items() if not tensor.isfinite().all()), None)
    if wrong:
        raise FileError(f"{wrong} holds numbers that are not finite", where, "train it again with a lower lr")
