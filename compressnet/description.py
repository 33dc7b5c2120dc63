"""What a file says of itself beside its tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compressnet.coding.quantisers import from_json
from compressnet.container import Header, damaged, read_header
from compressnet.plan import Plan, PlannedBlock, PlannedLayer, in_order
from compressnet.recipe import Recipe
from compressnet.zoo.models import ModelSpec
from compressnet.zoo.preprocessing import Preprocessing


@dataclass(frozen=True)
class Description:
    """What a file says of itself beside its tensors.

    Args:
        stage: dense, converted, finetuned or exported.
        layers: of the plan.
        spec: the dense model; None for a module of the caller's own.
        preprocessing: of its images.
        classes: their names.
        recipe: as a mapping.
        results: measured figures, such as accuracies and projection errors.
        blocks: of the plan.
        quantisers: of tensors whose numbers are quantised already, as they write themselves.
    """

    stage: str
    layers: tuple[PlannedLayer, ...] = ()
    spec: ModelSpec | None = None
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[PlannedBlock, ...] = ()
    quantisers: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, stage: str) -> "Description":
        """The description of a plan's file."""
        recipe = plan.recipe.model_dump(mode="json", exclude_defaults=True)
        return cls(stage, plan.layers, plan.spec, plan.preprocessing, plan.classes, recipe, blocks=plan.blocks)

    def to_json(self) -> dict[str, Any]:
        """As it travels."""
        packages = {name: version(name) for name in ("compressnet", "torch", "torchvision")}
        return {
            "stage": self.stage,
            "versions": packages,
            "model": self.spec.to_json() if self.spec else None,
            "preprocessing": self.preprocessing.to_json() if self.preprocessing else None,
            "classes": list(self.classes) if self.classes else None,
            "plan": [each.to_json() for each in in_order(self.blocks, self.layers)],
            "recipe": dict(self.recipe),
            "results": dict(self.results),
        } | ({"quantisers": dict(self.quantisers)} if self.quantisers else {})

    @classmethod
    def read(cls, header: Header) -> "Description":
        """From the header of a file.

        Raises:
            FileError: something in it is not what this version writes.
        """
        meta, where = header.meta, str(header.path)
        try:
            description = cls(
                str(meta["stage"]),
                tuple(PlannedLayer.from_json(item, where) for item in meta["plan"] if "block" not in item),
                ModelSpec.from_json(meta["model"]) if meta["model"] else None,
                Preprocessing.from_json(meta["preprocessing"]) if meta["preprocessing"] else None,
                tuple(meta["classes"]) if meta["classes"] else None,
                Recipe.model_validate(meta["recipe"]).model_dump(mode="json", exclude_defaults=True),
                dict(meta["results"]),
                tuple(PlannedBlock.from_json(item, where) for item in meta["plan"] if "block" in item),
                {name: from_json(keys).to_json() for name, keys in meta.get("quantisers", {}).items()},
            )
            if description.spec and description.classes and len(description.classes) != description.spec.num_classes:
                raise ValueError
            return description
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError):
            raise damaged(where) from None


def describe(path: str | Path) -> Description:
    """What a file says of itself, from its header alone."""
    return Description.read(read_header(path))
