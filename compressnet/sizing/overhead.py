"""What a file takes that is no weight of a layer, and the budgets that a plan can have."""

import dataclasses
from dataclasses import dataclass

from compressnet.coding.choose import STATISTICS, holds_weight
from compressnet.description import Description
from compressnet.index import deflated
from compressnet.plan import Plan, PlannedLayer, in_order
from compressnet.plan.ratios import ratios, rule_of
from compressnet.recipe import Draft
from compressnet.recipe.rules import BudgetRule
from compressnet.rewrite import rewrite_
from compressnet.sizing.options import RECORD
from compressnet.zoo import models

HEADER = 208
"""Bytes of a coded file before its index, about."""
LEAST_BITS = 2
"""Of a number, that a budget must have room for."""


@dataclass(frozen=True)
class Overhead:
    """Bytes beside the weights of layers, as a coded file is going to have them.

    Args:
        index: what the file says of itself, with its header.
        vectors: biases, norm layers and other numbers that hold no weight, with their records.
        numel: how many such numbers there are.
    """

    index: int
    vectors: int
    numel: int

    @property
    def nbytes(self) -> int:
        """All of them."""
        return self.index + self.vectors


def overhead(plan: Plan) -> Overhead:
    """Of a plan, whatever its ratios are."""
    assert plan.spec is not None
    model = models.skeleton(plan.spec)
    spec = models.drop_auxiliary_(model, plan.spec)
    layers = tuple(layer for layer in plan.layers if not layer.auxiliary)
    state = rewrite_(model, layers, plan.blocks).state_dict()
    described = dataclasses.replace(Description.of(plan, "exported"), layers=layers, spec=spec, recipe={})
    listed = [[name, list(tensor.shape), [tensor.numel() // 2]] for name, tensor in state.items()]
    meta = described.to_json() | {"seed": plan.recipe.seed, "tensors": listed, "records": RECORD * len(listed)}
    index = deflated(meta)
    each = list(in_order(plan.blocks, layers))
    others = {name: t for name, t in state.items() if not any(holds_weight(layer, name) for layer in each)}
    widths = {name: 2 if name.endswith(STATISTICS) else plan.recipe.export.vector_bits / 8 for name in others}
    vectors = sum(RECORD + widths[name] * t.numel() for name, t in others.items() if t.is_floating_point())
    return Overhead(HEADER + 4 + len(index), round(vectors), sum(t.numel() for t in others.values()))


def check_budget(draft: Draft, plan: Plan) -> None:
    """Refuse a budget that no ratios and bits can meet, and one that the dense model meets.

    Raises:
        RecipeError: with the bytes that would do.
    """
    budget = plan.recipe.budget
    if budget is None:
        return
    if plan.recipe.export.coder == "none" or plan.recipe.export.quantiser == "codebook":
        draft.mistake(("budget",), "it is met by the size of steps: set export.quantiser to uniform, and a coder")
        draft.checked()
    beside = overhead(plan)
    numbers = sum(_least(plan, each) for each in plan.layers if not each.auxiliary)
    numbers += sum(block.numel() for block in plan.blocks)
    least = round(beside.nbytes + numbers * LEAST_BITS / 8)
    if budget < least:
        what = f"{numbers:,} numbers of {LEAST_BITS} bits and {beside.nbytes:,} bytes beside them"
        draft.mistake(("budget",), f"{budget:,} bytes are too few: the rules take at least {least:,}, {what}")
    most = beside.index + 2 * plan.dense_numel
    if budget > most:
        draft.mistake(("budget",), f"{budget:,} bytes hold the dense model at 16 bits a number, which takes {most:,}")
    draft.checked()


def _least(plan: Plan, layer: PlannedLayer) -> int:
    rule = rule_of(plan.recipe, layer)
    if not isinstance(rule, BudgetRule) or rule.given:
        return layer.numel()
    config = rule.config_at(ratios(rule, layer)[-1])
    return dataclasses.replace(layer, config=config.model_dump()).numel()
