"""The recipe: what a user wants, in YAML, validated with every mistake at once."""

from compressnet.recipe.recovery import (
    BatchNormSection,
    CalibrateSection,
    DistillSection,
    GradualSection,
    QuantiseSection,
)
from compressnet.recipe.rules import BlockRule, MatchSpec, Rule
from compressnet.recipe.schema import (
    CalibrationSection,
    DataSection,
    ExportSection,
    FinetuneSection,
    ModelSection,
    Recipe,
    TrainSection,
)
from compressnet.recipe.text import Draft, Mistake, mistakes_error, read_recipe

__all__ = [
    "BatchNormSection",
    "BlockRule",
    "CalibrateSection",
    "CalibrationSection",
    "DataSection",
    "DistillSection",
    "Draft",
    "ExportSection",
    "FinetuneSection",
    "GradualSection",
    "MatchSpec",
    "Mistake",
    "ModelSection",
    "QuantiseSection",
    "Recipe",
    "Rule",
    "TrainSection",
    "mistakes_error",
    "read_recipe",
]
