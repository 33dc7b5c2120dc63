"""The recipe: what a user wants, in YAML, validated with every mistake at once."""

from compressnet.recipe.schema import (
    BlockRule,
    CalibrationSection,
    DataSection,
    DistillSection,
    ExportSection,
    FinetuneSection,
    MatchSpec,
    ModelSection,
    Recipe,
    Rule,
    TrainSection,
)
from compressnet.recipe.text import Draft, Mistake, mistakes_error, read_recipe

__all__ = [
    "BlockRule",
    "CalibrationSection",
    "DataSection",
    "DistillSection",
    "Draft",
    "ExportSection",
    "FinetuneSection",
    "MatchSpec",
    "Mistake",
    "ModelSection",
    "Recipe",
    "Rule",
    "TrainSection",
    "mistakes_error",
    "read_recipe",
]
