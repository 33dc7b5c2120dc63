"""The ratios that a layer may have where the budget of the whole file chooses among them."""

import dataclasses
from collections.abc import Iterable
from fnmatch import fnmatchcase

from compressnet.errors import PlanError
from compressnet.methods import BY_NAME
from compressnet.plan.layers import KEPT, PlannedLayer
from compressnet.recipe import Recipe, Rule
from compressnet.recipe.rules import BudgetRule
from compressnet.structured import MethodConfig

LARGEST = 256.0
"""Ratio that is tried where a rule has no ``max_ratio``."""
_GRID = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256)


def ratios(rule: BudgetRule, layer: PlannedLayer) -> list[float]:
    """Rising ratios that the rule and the method allow, each of which stores fewer numbers than before.

    Raises:
        PlanError: there is none.
    """
    method, most = BY_NAME[rule.method], rule.max_ratio or max(LARGEST, rule.min_ratio)
    found: dict[int, float] = {}
    for ratio in sorted({rule.min_ratio, most, *(float(each) for each in _GRID if rule.min_ratio < each < most)}):
        config = rule.config_at(ratio)
        if method.rejects(layer.shape, config) is None:
            found.setdefault(method(layer.shape, config, 0, device="meta").numel, ratio)
    if not found:
        reason = method.rejects(layer.shape, rule.config_at(rule.min_ratio))
        raise PlanError(f"no ratio from {rule.min_ratio:g} to {most:g} is possible: {reason}")
    return list(found.values())


def with_config(layer: PlannedLayer, config: MethodConfig | None) -> PlannedLayer:
    """A layer with other keys of its method, or with none and dense."""
    if config is None:
        if layer.method is None:
            return layer
        dense = PlannedLayer(layer.name, layer.kind, layer.shape, layer.groups, dense_shape=layer.dense_shape)
        return dataclasses.replace(dense, remark=KEPT, dense_macs=layer.dense_macs, macs=layer.dense_macs)
    method = BY_NAME[layer.method or ""]
    return dataclasses.replace(
        layer,
        config=config.model_dump(),
        remark=method.remark(layer.shape, config),
        macs=layer.macs_with(method, config),
    )


def rule_of(recipe: Recipe, layer: PlannedLayer) -> Rule | None:
    """The rule of a recipe that a layer of its plan was taken by; None where it stays dense."""
    rules = [rule for rule in recipe.rules if isinstance(rule, Rule)]
    return next((rule for rule in rules if takes(rule, layer)), None) if layer.method else None


def without_chosen_bits(recipe: Recipe, layers: Iterable[PlannedLayer]) -> tuple[PlannedLayer, ...]:
    """The layers of a plan with the bits that their rules say, and none that a budget has chosen."""
    rules = ((layer, rule_of(recipe, layer)) for layer in layers)
    return tuple(dataclasses.replace(layer, bits=None if rule is None else rule.bits) for layer, rule in rules)


def takes(rule: Rule, layer: PlannedLayer) -> bool:
    """Whether a rule would take a layer that no other one takes."""
    match = rule.match
    if not isinstance(match, str | tuple):
        return match.fits(layer.name, layer.kind, layer.shape) and (layer.groups == 1 or rule.grouped)
    globs = (match,) if isinstance(match, str) else match
    matched = any(fnmatchcase(layer.name, glob) for glob in globs)
    return matched and (layer.groups == 1 or rule.grouped or layer.name in globs)
