"""The layers that fine-tuning teaches: modules of the dense model, which the compressed one has by the same names."""

from collections.abc import Sequence

from torch import nn

from compressnet.errors import PlanError
from compressnet.plan.runs import matching
from compressnet.recipe import Draft


def taught_layers(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The modules that names and globs mean, at any depth.

    Raises:
        PlanError: one means none.
    """
    return matching(model, patterns, leaves=False) if patterns else []


def check_taught(draft: Draft, model: nn.Module) -> None:
    """Note layers in ``finetune.distill`` that the dense model has not."""
    distill = draft.recipe.finetune.distill if draft.recipe else None
    for key in ("features", "attention"):
        try:
            taught_layers(model, getattr(distill, key, ()))
        except PlanError as error:
            draft.mistake(("finetune", "distill", key), str(error))
