"""``report``: where every byte is, of files and of plans."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressnet.accounting import Account, account_of_file
from compressnet.errors import PlanError, did_you_mean

if TYPE_CHECKING:  # these import torch, which a file's report does without
    from compressnet.plan.choices import LayerChoices
    from compressnet.plan.layers import PlannedLayer

RECIPES = (".yaml", ".yml")


@dataclass(frozen=True)
class Methods:
    """What can hold each layer of a model.

    Args:
        source: as given.
        model: its name.
        ratio: dense numbers per stored number.
        layers: in module order, those alike together.
    """

    source: str
    model: str
    ratio: float
    layers: "tuple[LayerChoices, ...]"

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        layers = [layer.to_json() for layer in self.layers]
        return {"source": self.source, "model": self.model, "ratio": self.ratio, "layers": layers}


def report(*paths: str | Path, overrides: Iterable[str] = ()) -> list[Account]:
    """Account for files, from their headers alone, and price recipes.

    Args:
        paths: files of any stage, or recipes (.yaml).
        overrides: ``key.path=value`` each, on the recipes.

    Raises:
        CompressnetError: a file is damaged, or a recipe is wrong.
    """
    return [_account(Path(path), list(overrides)) for path in paths]


def _account(path: Path, overrides: list[str]) -> Account:
    if path.suffix not in RECIPES:
        return account_of_file(path)
    from compressnet.plan import make_plan  # imports torch, which a file's report does without
    from compressnet.plan.price import price
    from compressnet.recipe import read_recipe

    return price(make_plan(read_recipe(path, overrides)), str(path))


def report_methods(source: str | Path, *, ratio: float = 16, overrides: Iterable[str] = ()) -> Methods:
    """What can hold each layer of a model, at which numbers and multiply–accumulates.

    Args:
        source: a model's name; a recipe (.yaml), of which the model and the size of its images count; or a file.
        ratio: dense numbers per stored number, at least 1; a method without ratio takes the setting nearest to it,
            bitmaps aside.
        overrides: ``key.path=value`` each, on the recipe, or on that of a model by itself.

    Raises:
        CompressnetError: the source is none of these, or is wrong.
    """
    from compressnet.plan.choices import layer_choices

    if not 1 <= ratio < math.inf:
        raise PlanError(f"{ratio:g} is no ratio: that is dense numbers per stored number, at least 1", "--ratio")
    model, layers = _layers(str(source), list(overrides))
    return Methods(str(source), model, ratio, layer_choices(layers, ratio))


def _layers(source: str, overrides: list[str]) -> "tuple[str, tuple[PlannedLayer, ...]]":
    from compressnet.description import describe
    from compressnet.plan import make_plan
    from compressnet.recipe import read_recipe
    from compressnet.zoo import models

    path = Path(source)
    if path.exists() and path.suffix not in RECIPES:
        description = describe(path)
        return description.spec.name if description.spec else "a module", description.layers
    if source not in models.names() and path.suffix not in RECIPES:
        near = did_you_mean(source, models.names())
        raise PlanError("neither a model, a recipe nor a file", source, near)
    recipe = {"model": {"name": source}} if source in models.names() else path
    plan = make_plan(read_recipe(recipe, [*overrides, "layers=[]"]))
    assert plan.spec is not None
    return plan.spec.name, plan.layers
