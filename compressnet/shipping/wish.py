"""What is to be written, with every contradiction refused before any work."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressnet.coding.quantisers import FLOATS
from compressnet.description import Description, describe
from compressnet.errors import FileError, did_you_mean
from compressnet.interchange import WAYS
from compressnet.nbytes import parse_nbytes
from compressnet.plan.ratios import without_chosen_bits
from compressnet.recipe import Recipe
from compressnet.training.parts import recipe_of
from compressnet.zoo import weights
from compressnet.zoo.preprocessing import Preprocessing

REQUANTISED = ("export.bits", "export.vector_bits", "export.quantiser", "export.group")
"""Overrides after which numbers that are quantised already are quantised anew."""


@dataclass(frozen=True)
class Wish:
    """What is to be written.

    Args:
        file: of any stage.
        way: compressnet, dense, onnx or pt2.
        description: of the file; its quantisers are those that are kept.
        recipe: its export section says how.
        nbytes: how many the file may have, or None.
        with_recipe: the file carries the recipe and what was measured, too.
    """

    file: Path
    way: str
    description: Description
    recipe: Recipe
    nbytes: int | None = None
    with_recipe: bool = False

    @property
    def preprocessing(self) -> Preprocessing:
        """Of the model's images."""
        assert self.description.preprocessing is not None
        return self.description.preprocessing

    @property
    def coded(self) -> bool:
        """Whether numbers are quantised and coded."""
        return self.way == "compressnet" and self.recipe.export.coder != "none"

    @property
    def kind(self) -> str:
        """What is written, in words."""
        if self.way in WAYS:
            return WAYS[self.way].words
        return "an ordinary state_dict" if self.way == "dense" else "a compressnet file"

    @property
    def form(self) -> str:
        """Of its numbers, in words."""
        settings = self.recipe.export
        if not self.coded:
            return settings.dtype
        if self.nbytes is not None:
            return f"the finest steps of {self.nbytes:,} bytes"
        if settings.bits == "auto":
            return f"the coarsest steps within {settings.tolerance:g} nats"
        return settings.dtype if settings.bits is None else f"{settings.quantiser} quantisers of {settings.bits} bits"

    @property
    def described(self) -> Description:
        """What the shipped file says of itself: the recipe and what was measured only where that is asked for.

        The path of the weights means nothing elsewhere, and is left out.
        """
        recipe, kept = self.recipe, self.with_recipe
        text: dict[str, Any] = recipe.model_dump(mode="json", exclude_defaults=True) if kept else {}
        if kept and recipe.model and recipe.model.weights and weights.is_path(recipe.model.weights):
            del text["model"]["weights"]
        results = self.description.results if kept else {}
        return dataclasses.replace(self.description, stage="exported", recipe=text, results=results)


def wish_of(
    file: Path, ways: Sequence[str], dtype: str | None, target_size: str | None, with_recipe: bool, overrides: list[str]
) -> Wish:
    """What the arguments of ``export`` ask for.

    Raises:
        RecipeError: an override is wrong.
        FileError: the file is damaged, or two of the arguments exclude each other.
    """
    description = describe(file)
    if description.spec is None or description.preprocessing is None:
        raise FileError("it holds a module that is not torchvision's", str(file), "compressnet.save writes it")
    way = _way(ways, dtype, [*(["--with-recipe"] if with_recipe else []), *overrides])
    nbytes = None if target_size is None else _nbytes(target_size, way)
    recipe = recipe_of(description, file, overrides)
    if dtype is None:
        dtype = "float32" if way != "compressnet" else recipe.export.dtype
    if dtype not in FLOATS:
        raise FileError(f"unknown dtype '{dtype}'; {did_you_mean(dtype, FLOATS)}", "--dtype")
    if nbytes is not None and recipe.export.coder == "none":
        raise FileError("export.coder: none and --target-size exclude each other", "export", "give one")
    if nbytes is not None or any(override.startswith(REQUANTISED) for override in overrides):
        description = dataclasses.replace(description, quantisers={})
    elif way == "compressnet" and recipe.export.coder != "none":
        nbytes = recipe.budget
    if recipe.budget is not None and nbytes is not None:
        description = dataclasses.replace(description, layers=without_chosen_bits(recipe, description.layers))
    settings = recipe.export.model_copy(update={"dtype": dtype})
    return Wish(file, way, description, recipe.model_copy(update={"export": settings}), nbytes, with_recipe)


def _way(given: Sequence[str], dtype: str | None, others: Sequence[str]) -> str:
    """The one way out that is asked for; programs take no further words."""
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


def _nbytes(target_size: str, way: str) -> int:
    if way != "compressnet":
        raise FileError(f"--{way} and --target-size exclude each other", "export", "give one")
    try:
        return parse_nbytes(target_size)
    except ValueError as error:
        raise FileError(str(error), "--target-size") from None
