"""From a draft of a recipe to a plan; every mistake that can be known without weights or data is raised here."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from compressnet.errors import CompressnetError, PlanError, did_you_mean, listing
from compressnet.maths.seeds import layer_seed
from compressnet.methods import BY_NAME
from compressnet.plan.blocks import PlannedBlock, in_order, plan_blocks
from compressnet.plan.budget import config_for
from compressnet.plan.layers import CHOSEN, FITTED, REPLACED, UNMATCHED, PlannedLayer, candidates, check_scales
from compressnet.plan.resolve import resolve_model
from compressnet.plan.taught import check_taught
from compressnet.recipe import Draft, MatchSpec, Recipe, Rule
from compressnet.recipe.rules import RULES, BudgetRule
from compressnet.recipe.schema import ROOTLESS
from compressnet.trace import parameter_macs
from compressnet.zoo import models
from compressnet.zoo.models import ModelSpec
from compressnet.zoo.preprocessing import Preprocessing


@dataclass(frozen=True)
class Plan:
    """What will be done to which model.

    Args:
        recipe: it was made from.
        layers: every weight that no block stands for, in module order.
        spec: the dense model; None for a module of the caller's own.
        preprocessing: of its images; None for a module of the caller's own.
        dense_numel: numbers in the dense model's state, without heads that never run in evaluation.
        auxiliary_numel: numbers of those heads.
        classes: the names of the classes, where the weights know them.
        blocks: each stands for a run of layers.
    """

    recipe: Recipe
    layers: tuple[PlannedLayer, ...]
    spec: ModelSpec | None = None
    preprocessing: Preprocessing | None = None
    dense_numel: int = 0
    auxiliary_numel: int = 0
    classes: tuple[str, ...] | None = None
    blocks: tuple[PlannedBlock, ...] = ()

    @property
    def numel(self) -> int:
        """How many numbers the planned model stores, without heads that never run in evaluation."""
        saved = sum(each.dense_numel - each.numel() for each in in_order(self.blocks, self.layers))
        return self.dense_numel - saved


def make_plan(draft: Draft) -> Plan:
    """Resolve a recipe against the model it names.

    Raises:
        RecipeError: every mistake of the recipe, with its line.
    """
    _check_images(draft)
    resolved = resolve_model(draft)
    if resolved is None:
        raise _failed(draft)
    spec, shape, classes = resolved
    model = models.skeleton(spec)
    try:
        macs = parameter_macs(model, (1, shape.channels, shape.crop, shape.crop))
    except (RuntimeError, AssertionError, ValueError):
        data = draft.recipe.data if draft.recipe else None
        key = next((key for key in ("crop", "image_size", "resize") if getattr(data, key, None)), "image_size")
        draft.mistake(("data", key), f"{spec.name} cannot take images of {shape.crop}×{shape.crop}")
        raise _failed(draft) from None
    blocks, found = plan_blocks(draft, model, candidates(model, macs))
    check_taught(draft, model)
    layers = plan_layers(draft, found)
    run, idle = _count(model, macs, layers)
    return Plan(draft.checked(), layers, spec, shape, run, idle, classes, blocks)


def _check_images(draft: Draft) -> None:
    """Note a calibration that has no images."""
    if draft.raw.get("calibration") is not None and draft.raw.get("data") is None:
        draft.mistake(("calibration",), "it takes images: name them in data, or leave calibration out")
    recipe = draft.recipe
    if recipe is None or recipe.data is None or recipe.data.root is not None or recipe.data.dataset in ROOTLESS:
        return
    trained = recipe.pretrain or (recipe.model and recipe.model.weights)
    if trained and recipe.layers and recipe.calibration:
        draft.mistake(("data", "root"), f"the key is missing: {recipe.data.dataset} is read from a folder")


def _failed(draft: Draft) -> CompressnetError:
    try:
        draft.checked()
    except CompressnetError as error:
        return error
    raise AssertionError("a plan fails only for a mistake")


def _count(model: nn.Module, macs: dict[str, int], layers: Sequence[PlannedLayer]) -> tuple[int, int]:
    idle = {layer.name.rpartition(".")[0] or layer.name for layer in layers if layer.auxiliary}
    heads = tuple(f"{name.split('.')[0]}." for name in idle)
    state = model.state_dict()
    auxiliary = sum(t.numel() for name, t in state.items() if name.startswith(heads)) if heads else 0
    return sum(t.numel() for t in state.values()) - auxiliary, auxiliary


def plan_layers(draft: Draft, layers: Sequence[PlannedLayer]) -> tuple[PlannedLayer, ...]:
    """Give each layer the first rule that matches it; note every mistake in the draft, then raise them all.

    Args:
        draft: of the recipe; rules that are wrong in themselves are checked for their patterns only.
        layers: the candidates of the model.

    Raises:
        RecipeError: every mistake, with its line.
    """
    fates = {layer.name: layer for layer in layers}
    taken: set[str] = set()
    for index, (match, rule) in enumerate(_rules(draft)):
        matched = _matched(draft, index, match, layers)
        if matched is None:
            continue
        eligible = [layer for layer in matched if _why_dense(layer, match, rule) is None]
        for layer in matched:
            reason = _why_dense(layer, match, rule)
            if reason and layer.name not in taken:
                fates[layer.name] = dataclasses.replace(layer, remark=reason)
        if not eligible:
            reasons = {_why_dense(layer, match, rule) for layer in matched}
            if reasons == {REPLACED}:
                draft.mistake(("layers", index, "match"), "a block stands for every layer it matches")
            else:
                what = f"matches only what stays dense: {'; '.join(map(str, reasons))}"
                draft.mistake(("layers", index, "match"), what)
            continue
        free = [layer for layer in eligible if layer.name not in taken]
        if not free:
            draft.mistake(("layers", index, "match"), "every layer it matches is taken by an earlier rule")
        taken |= {layer.name for layer in free}
        if rule is not None:
            _assign(draft, index, rule, free, fates)
    draft.checked()
    return tuple(_with_reason(fates[layer.name]) for layer in layers if layer.remark != REPLACED)


def _rules(draft: Draft) -> Iterator[tuple[Any, Rule | None]]:
    if draft.recipe is not None:
        yield from ((rule.match, rule) if isinstance(rule, Rule) else (None, None) for rule in draft.recipe.rules)
        return
    raw = draft.raw.get("layers")
    for item in raw if isinstance(raw, list) else ():
        match = item.get("match") if isinstance(item, dict) else None
        try:
            rule = RULES[item["method"]].model_validate(item, context=draft.context)
            yield rule.match, rule
        except (ValueError, KeyError, TypeError):
            globs = match if isinstance(match, list) else [match]
            valid = all(isinstance(glob, str) for glob in globs) and "block" not in item
            yield (tuple(globs) if valid else None), None


def _matched(draft: Draft, index: int, match: Any, layers: Sequence[PlannedLayer]) -> list[PlannedLayer] | None:
    if match is None:
        return None
    section = draft.raw.get("model")
    model = section.get("name", "the model") if isinstance(section, dict) else "the model"
    names = [layer.name for layer in layers]
    key = ("layers", index, "match")
    if isinstance(match, MatchSpec):
        found = [layer for layer in layers if match.fits(layer.name, layer.kind, layer.shape)]
        if not found:
            draft.mistake(key, f"matches no layer of {model}")
        return found or None
    globs = (match,) if isinstance(match, str) else match
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            near = did_you_mean(glob, names).replace("there are", "it has")
            draft.mistake(key, f"'{glob}' matches no layer of {model}; {near}")
    found = [layer for layer in layers if any(fnmatchcase(layer.name, glob) for glob in globs)]
    return found or None


def _why_dense(layer: PlannedLayer, match: Any, rule: Rule | None) -> str | None:
    if layer.remark is not None:
        return layer.remark
    exact = layer.name in ((match,) if isinstance(match, str) else match if isinstance(match, tuple) else ())
    if layer.groups > 1 and not exact and not (rule is not None and rule.grouped):
        return f"{layer.groups} groups; `grouped: true` in the rule takes it"
    return None


def _assign(
    draft: Draft, index: int, rule: Rule, layers: Sequence[PlannedLayer], fates: dict[str, PlannedLayer]
) -> None:
    method = BY_NAME[rule.method]
    dtype = (draft.recipe or Recipe()).export.dtype
    refused = []
    for layer in layers:
        try:
            config = config_for(rule, layer, dtype)
            reason = method.rejects(layer.shape, config)
        except PlanError as error:
            reason = str(error)
        if reason:
            refused.append(f"{layer.name} {layer.shape}: {reason}")
            continue
        fates[layer.name] = dataclasses.replace(
            layer,
            method=rule.method,
            config=config.model_dump(),
            seed=layer_seed(draft.recipe.seed if draft.recipe else 0, layer.name),
            remark=CHOSEN if isinstance(rule, BudgetRule) and not rule.given else method.remark(layer.shape, config),
            macs=layer.macs_with(method, config),
            lr_scale=rule.lr_scale,
            weight_decay=method.weight_decay if rule.weight_decay is None else rule.weight_decay,
            bits=rule.bits,
        )
        check_scales(draft, index, rule.lr_scale, rule.method, fates[layer.name].build("meta"))
    if refused:
        draft.mistake(("layers", index, "method"), f"{rule.method} cannot hold {listing(refused, 4)}")


def _with_reason(layer: PlannedLayer) -> PlannedLayer:
    if layer.dense_shape and layer.remark is None:
        return dataclasses.replace(layer, remark=FITTED)
    if layer.method is None and layer.remark is None:
        return dataclasses.replace(layer, remark=UNMATCHED)
    return layer
