"""A plan whose budget is still to be shared, resolved: exact ratios and bits for every layer."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from compressnet.allocation.sensitivity import divergence
from compressnet.errors import PlanError
from compressnet.fitting.linear import RIDGE
from compressnet.maths.allocation import allocate
from compressnet.methods import BY_NAME
from compressnet.plan import Plan, PlannedLayer, in_order
from compressnet.plan.ratios import ratios, rule_of, with_config
from compressnet.progress import SILENT, Progress
from compressnet.recipe.rules import BudgetRule
from compressnet.sizing.forms import forms
from compressnet.sizing.options import Option, options
from compressnet.sizing.overhead import Overhead, overhead
from compressnet.sizing.views import View, views
from compressnet.structured import MethodConfig

JUDGES = 32  # images on which it is measured what an error of a layer does to answers
_USUAL_BITS = 8  # of numbers that are not measured, where nothing says theirs


@dataclass(frozen=True)
class Estimate:
    """What a layer of a resolved plan is thought to take and to lose.

    Args:
        nbytes: in the exported file.
        bits: of each of its numbers.
        share: of the loss of all layers.
    """

    nbytes: float
    bits: int
    share: float


@dataclass(frozen=True)
class Sized:
    """A resolved plan.

    Args:
        plan: with exact ratios and bits.
        estimates: by layer.
        overhead: beside them.
    """

    plan: Plan
    estimates: Mapping[str, Estimate]
    overhead: Overhead

    @property
    def nbytes(self) -> int:
        """What the exported file is thought to take."""
        return round(self.overhead.nbytes + sum(each.nbytes for each in self.estimates.values()))


@torch.no_grad()
def resolve(plan: Plan, model: nn.Module, images: Tensor | None, progress: Progress = SILENT) -> Sized:
    """Choose the ratios and bits that a plan leaves open, such that what fits its budget loses least.

    With images an error of a layer's weight costs what it does to the model's answers when it is the only one, in nats;
    without, its share of the weight's energy. Errors of different layers are taken to add up.

    Args:
        plan: of a recipe with a budget.
        model: dense, on the CPU, its blocks placed; in evaluation mode. It is left as it was.
        images: unlabelled, of shape (N, C, H, W).
        progress: is told each layer.

    Raises:
        PlanError: what is not left open takes more than the budget.
        DataError: the model cannot take the images.
    """
    budget = plan.recipe.budget
    if budget is None:
        raise ValueError("the recipe has no budget")
    measured = [layer for layer in plan.layers if _is_measured(layer)]
    seen = {} if images is None else views(model, measured, images)
    judge = None if images is None else _Judge(model, images[:JUDGES])
    curves: dict[str, list[Option]] = {}
    with progress.task("measuring layers", len(measured)) as advance:
        for layer in measured:
            curves[layer.name] = _curve(plan, layer, model, seen.get(layer.name), judge)
            advance(1, layer=layer.name)
    beside = overhead(plan)
    rest = [each for each in in_order(plan.blocks, plan.layers) if each.name not in curves]
    rest = [each for each in rest if not (isinstance(each, PlannedLayer) and each.auxiliary)]
    fixed = {each.name: each.numel() * (each.bits or _USUAL_BITS) / 8 for each in rest}
    room = budget - beside.nbytes - sum(fixed.values())
    places = allocate([[(each.nbytes, each.loss) for each in curve] for curve in curves.values()], room)
    if places is None:
        least = round(budget - room + sum(min(each.nbytes for each in curve) for curve in curves.values()))
        raise PlanError(f"the layers take at least {least:,} bytes", f"budget {budget:,}", "raise it, or a max_ratio")
    chosen = {name: curve[place] for (name, curve), place in zip(curves.items(), places, strict=True)}
    lost = sum(each.loss for each in chosen.values()) or 1.0
    estimates = {name: Estimate(each.nbytes, each.bits, each.loss / lost) for name, each in chosen.items()}
    estimates |= {name: Estimate(nbytes, _USUAL_BITS, 0.0) for name, nbytes in fixed.items()}
    layers = tuple(_resolved(layer, chosen.get(layer.name)) for layer in plan.layers)
    return Sized(dataclasses.replace(plan, layers=layers), estimates, beside)


def _is_measured(layer: PlannedLayer) -> bool:
    """Whether a layer can be built in a moment; what is fitted in many steps is not built to be weighed."""
    return not layer.auxiliary and (
        layer.method is None or BY_NAME[layer.method].linear or "ratio" in BY_NAME[layer.method].Config.sizes
    )


def _curve(
    plan: Plan, layer: PlannedLayer, model: nn.Module, view: View | None, judge: "_Judge | None"
) -> list[Option]:
    dense = model.get_parameter(layer.parameter).detach().float()
    calibration = plan.recipe.calibration
    moved = None if view is None or judge is None else partial(judge.moved, layer, view)
    ridge = RIDGE if calibration is None else calibration.ridge
    made = forms(layer, _configs(plan, layer), dense, view, moved, ridge)
    given = plan.recipe.export.bits if layer.bits is None else layer.bits
    return options(made, given if isinstance(given, int) else None)


def _configs(plan: Plan, layer: PlannedLayer) -> list[MethodConfig | None]:
    """The ratios that a layer may have; at 1 it is dense, as nothing is gained by another form of as many numbers."""
    rule = rule_of(plan.recipe, layer)
    if isinstance(rule, BudgetRule) and not rule.given:
        tried = ratios(rule, layer)
        dense: list[MethodConfig | None] = [None] if rule.min_ratio == 1 else []
        return dense + [rule.config_at(ratio) for ratio in tried if ratio > 1]
    return [BY_NAME[layer.method].read_config(layer.config) if layer.method else None]


def _resolved(layer: PlannedLayer, option: Option | None) -> PlannedLayer:
    if option is None:
        return layer
    return dataclasses.replace(with_config(layer, option.config), bits=option.bits)


class _Judge:
    """What an error of one layer does to the answers of a model."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self._model, self._images = model, images
        self._answer = model(images)

    def moved(self, layer: PlannedLayer, view: View, error: Tensor, corrected: bool) -> float:
        """How far answers are moved by an error of one layer.

        Args:
            layer: dense.
            view: what it sees.
            error: of its weight, shape (groups, out, in).
            corrected: whether its bias makes up for the mean of what comes of the error.
        """
        with self._changed(layer, error, view if corrected and view.centred else None):
            return max(0.0, divergence(self._answer, self._model(self._images)))

    @contextmanager
    def _changed(self, layer: PlannedLayer, error: Tensor, corrected: View | None) -> Iterator[None]:
        errors = {layer.parameter: error}
        if corrected is not None:
            errors[layer.bias] = -(error @ corrected.pairs.inputs.mean.to(error)[:, :, None])
        before = {name: self._model.get_parameter(name).clone() for name in errors}
        for name, each in errors.items():
            self._model.get_parameter(name).add_(each.reshape(before[name].shape))
        yield
        for name, each in before.items():
            self._model.get_parameter(name).copy_(each)
