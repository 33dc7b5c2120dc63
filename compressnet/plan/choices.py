"""What can hold each layer of a model, at which numbers and multiply–accumulates: what a user chooses from."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from compressnet.methods import METHODS
from compressnet.plan.layers import FITTED, UNMATCHED, PlannedLayer
from compressnet.structured import MethodConfig, StructuredWeight


@dataclass(frozen=True)
class Choice:
    """One method for layers of one shape.

    Args:
        method: by name.
        setting: its keys that set the size, with their values.
        numel: how many numbers it stores for one of the layers; None where it cannot hold them.
        macs: multiply–accumulates of one of them as executed, where they are known.
        reason: why it cannot hold them.
    """

    method: str
    setting: dict[str, float]
    numel: int | None = None
    macs: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class LayerChoices:
    """Layers of one shape that run on inputs of one size, and what can hold them.

    Args:
        names: of the layers.
        shape: of the dense weight.
        groups: of a convolution.
        dense_numel: numbers of one dense weight.
        dense_macs: multiply–accumulates of one with the dense weight, where they are known.
        reason: why they stay dense whatever a recipe says, or None.
        choices: one for each method; none where they stay dense.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    groups: int
    dense_numel: int
    dense_macs: int | None
    reason: str | None
    choices: tuple[Choice, ...]

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return dataclasses.asdict(self)


def layer_choices(layers: Iterable[PlannedLayer], ratio: float) -> tuple[LayerChoices, ...]:
    """What can hold the layers of a plan, whatever the plan itself decides.

    Args:
        layers: of the plan; heads that never run in evaluation are left out.
        ratio: dense numbers per stored number; a method without ratio takes the setting nearest to it, bitmaps aside.
    """
    alike: dict[Any, list[PlannedLayer]] = {}
    for layer in layers:
        if not layer.auxiliary:
            alike.setdefault((layer.shape, layer.groups, layer.dense_macs, _stays_dense(layer)), []).append(layer)
    found = []
    for (shape, groups, macs, reason), members in alike.items():
        choices = () if reason else tuple(_choice(method, members[0], ratio) for method in METHODS)
        names = tuple(layer.name for layer in members)
        found.append(LayerChoices(names, shape, groups, members[0].dense_numel, macs, reason, choices))
    return tuple(found)


def _stays_dense(layer: PlannedLayer) -> str | None:
    """Why no rule could take the layer; that none does, or that one must ask for groups, is no such reason."""
    free = layer.method or layer.groups > 1 or layer.remark in (UNMATCHED, FITTED)
    return None if free else layer.remark


def _choice(method: type[StructuredWeight], layer: PlannedLayer, ratio: float) -> Choice:
    config = method.config_near(layer.shape, ratio)
    setting = _setting(config)
    if reason := method.rejects(layer.shape, config):
        return Choice(method.name, setting, reason=reason)
    stored = method(layer.shape, config, 0, device="meta").numel
    return Choice(method.name, setting, stored, layer.macs_with(method, config))


def _setting(config: MethodConfig) -> dict[str, float]:
    return {key: getattr(config, key) for key in config.sizes if getattr(config, key) is not None}
