"""A layer's budget of numbers or bytes, as the ratio that comes nearest to it from below."""

import math
from collections.abc import Callable

from compressnet.errors import PlanError
from compressnet.methods import BY_NAME
from compressnet.plan.layers import PlannedLayer
from compressnet.plan.ratios import ratios
from compressnet.recipe import Rule
from compressnet.recipe.rules import BudgetRule
from compressnet.structured import MethodConfig, StructuredWeight

WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a parameter in an exported file."""


def config_for(rule: Rule, layer: PlannedLayer, dtype: str) -> MethodConfig:
    """The method's keys for one layer; a budget becomes the ratio that stores most without exceeding it.

    What a ratio stores is known by building the weight on the ``meta`` device, so this holds for any method whose
    stored numbers do not grow with its ratio.

    Args:
        rule: that takes the layer.
        layer: still dense.
        dtype: of the exported file, which bytes are counted in.

    Returns:
        them; where the budget of the whole file is still to choose the ratio, with the least that it may choose.

    Raises:
        PlanError: the method cannot meet the budget.
    """
    if isinstance(rule, BudgetRule) and not rule.given:
        return rule.config_at(ratios(rule, layer)[0])
    if not isinstance(rule, BudgetRule) or (rule.numel is None and rule.nbytes is None):
        return rule.config
    method, width = BY_NAME[rule.method], None if rule.nbytes is None else WIDTHS[dtype]
    budget = (rule.numel or 0) if width is None else (rule.nbytes or 0)
    whole = math.prod(layer.shape)
    highest, dense = float(whole), whole * (width or 1)

    def stored(ratio: float) -> int:
        weight = method(layer.shape, rule.config_at(ratio), 0, device="meta")
        return weight.numel if width is None else _nbytes(weight, width)

    def refused(ratio: float) -> bool:
        return stored(ratio) > 0 and method.rejects(layer.shape, rule.config_at(ratio)) is not None

    ratio = max(1.0, dense / (budget + 0.5 * (width or 1)))
    if stored(ratio) != budget or refused(ratio):
        ratio = _first(lambda ratio: stored(ratio) <= budget and not refused(ratio), highest)
    if 0 < stored(ratio) <= budget <= dense and not refused(ratio):
        return rule.config_at(_short(ratio, stored))
    most = stored(_first(lambda ratio: not refused(ratio), highest))
    if not most:
        raise PlanError("no ratio would store fewer numbers than the dense weight")
    least = stored(highest) or stored(_first(lambda ratio: stored(ratio) == 0, highest) * (1 - 1 / highest))
    key = "numel" if width is None else f"as {dtype}, nbytes"
    raise PlanError(f"{key} {budget:,} is not within the {least:,} to {most:,} that it can have there")


def _nbytes(weight: StructuredWeight, width: int) -> int:
    """Export casts parameters; buffers, such as bitmaps, keep their width."""
    parameters = sum(parameter.numel() for parameter in weight.parameters())
    buffers = [buffer for name, buffer in weight.named_buffers() if name in weight.state_dict()]
    return width * parameters + sum(buffer.numel() * buffer.element_size() for buffer in buffers)


def _first(holds: Callable[[float], bool], highest: float) -> float:
    """The least ratio at which something holds that holds from some ratio on.

    Args:
        holds: asked for ratios.
        highest: the numbers of the dense weight; what is stored changes at ratios highest / k for whole k.
    """
    low, high = 1.0, highest
    if holds(low):
        return low
    while high > low * (1 + 0.1 / highest):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _short(ratio: float, stored: Callable[[float], int]) -> float:
    """The ratio with the fewest decimals that stores the same."""
    rounded = (math.ceil(ratio * 10**decimals) / 10**decimals for decimals in range(12))
    return next((short for short in rounded if stored(short) == stored(ratio)), ratio)
