"""A recipe and a model, resolved to exact layers, methods, seeds and prices."""

from compressnet.plan.layers import LayerKind, PlannedLayer, candidates
from compressnet.plan.make import Plan, make_plan, plan_layers
from compressnet.plan.resolve import resolve_preprocessing

__all__ = ["LayerKind", "Plan", "PlannedLayer", "candidates", "make_plan", "plan_layers", "resolve_preprocessing"]
