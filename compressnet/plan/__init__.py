"""A recipe and a model, resolved to exact layers, methods, seeds and prices."""

from compressnet.plan.blocks import PlannedBlock, in_order, plan_blocks
from compressnet.plan.layers import LayerKind, PlannedLayer, candidates
from compressnet.plan.make import Plan, make_plan, plan_layers
from compressnet.plan.resolve import resolve_preprocessing
from compressnet.plan.taught import check_taught, taught_layers

__all__ = [
    "LayerKind",
    "Plan",
    "PlannedBlock",
    "PlannedLayer",
    "candidates",
    "check_taught",
    "in_order",
    "make_plan",
    "plan_blocks",
    "plan_layers",
    "resolve_preprocessing",
    "taught_layers",
]
