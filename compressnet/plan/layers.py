"""Every weight a plan decides about, and what it decides."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from compressnet.accounting import AUXILIARY
from compressnet.attention import INPUTS
from compressnet.errors import FileError, did_you_mean
from compressnet.methods import BY_NAME
from compressnet.recipe import Draft
from compressnet.structured import MethodConfig, StructuredWeight

UNMATCHED = "no rule matches it"
LayerKind = Literal["conv2d", "linear", "attention"]
REWRITTEN = (nn.Conv2d, nn.Linear, nn.MultiheadAttention)
"""What is rewritten: exactly these, and an attention's output projection."""
REPLACED = "a block stands for it"
CHOSEN = "the budget chooses its ratio; this is the least"
KEPT = "the budget keeps it dense"
FITTED = "made to fit the features of the block before it"


@dataclass(frozen=True)
class PlannedLayer:
    """One weight and its fate.

    Args:
        name: full module name; ``….in_proj`` for an attention's joint input projection, ``….q_proj``, ``….k_proj`` and
            ``….v_proj`` for separate ones.
        kind: conv2d, linear, or attention for an attention's input projection.
        shape: of the dense weight.
        groups: of a convolution.
        method: by name, or None where the layer stays dense.
        config: the method's recipe keys.
        seed: of the layer's hashes.
        remark: why it stays dense, or what a user should know.
        dense_macs: multiply–accumulates of one image with the dense weight, where they are known.
        macs: the same as executed.
        lr_scale: times the learning rate of its stored tensors; or a number for each that differs, by name.
        weight_decay: of its stored tensors; None is that of the training section.
        dense_shape: of the dense model's weight, where a block has the layer made to fit its features.
        bits: of each number of the weight in an exported file; None is those of the export section.
    """

    name: str
    kind: LayerKind
    shape: tuple[int, ...]
    groups: int = 1
    method: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    remark: str | None = None
    dense_macs: int | None = None
    macs: int | None = None
    lr_scale: float | Mapping[str, float] = 1.0
    weight_decay: float | None = None
    dense_shape: tuple[int, ...] | None = None
    bits: int | None = None

    @property
    def dense_numel(self) -> int:
        """How many numbers the weight has in the dense model."""
        return math.prod(self.dense_shape or self.shape)

    @property
    def parameter(self) -> str:
        """The name of the dense weight in a state_dict."""
        return f"{self.name}_weight" if self.kind == "attention" else f"{self.name}.weight"

    @property
    def bias(self) -> str:
        """The name of the bias in a state_dict, where it has one of its own."""
        return f"{self.name}_bias" if self.kind == "attention" else f"{self.name}.bias"

    @property
    def prefix(self) -> str:
        """What the names of its stored tensors begin with."""
        return f"{self.name}.structured." if self.method else self.parameter

    @property
    def auxiliary(self) -> bool:
        """Whether it belongs to a head that never runs in evaluation."""
        return self.remark == AUXILIARY

    def build(self, device: str = "cpu") -> StructuredWeight:
        """The structured weight, with its initial values; on ``meta`` only its shapes."""
        if self.method is None or self.seed is None:
            raise ValueError(f"{self.name} stays dense")
        method = BY_NAME[self.method]
        return method(self.shape, method.read_config(self.config), self.seed, device=device)

    def macs_with(self, method: type[StructuredWeight], config: MethodConfig) -> int | None:
        """Multiply–accumulates of one image as executed when a method holds it; grouped products are run dense."""
        if self.dense_macs is None:
            return None
        product = method.runs_product(self.shape, self.groups)
        each = method.macs_per_input(self.shape, config) if product else math.prod(self.shape)
        return self.dense_macs // self.dense_numel * each

    def numel(self) -> int:
        """How many numbers are stored for it."""
        return self.build("meta").numel if self.method else math.prod(self.shape)

    def to_json(self) -> dict[str, Any]:
        """As it travels in a file: what is None, empty or usual is left out."""
        usual = PlannedLayer(self.name, self.kind, self.shape)
        items = {key: getattr(self, key) for key in self.__dataclass_fields__}
        kept = {k: v for k, v in items.items() if k in ("name", "kind", "shape") or v != getattr(usual, k)}
        shapes = {key: list(kept[key]) for key in ("shape", "dense_shape") if key in kept}
        return kept | shapes | ({"config": dict(self.config)} if self.config else {})

    @classmethod
    def from_json(cls, item: Mapping[str, Any], where: str) -> "PlannedLayer":
        """As read from a file.

        Raises:
            FileError: it is not what this version writes.
        """
        try:
            shapes = {key: tuple(map(int, item[key])) for key in ("shape", "dense_shape") if key in item}
            layer = cls(**{**item, "shape": (), **shapes})
            sides = (*layer.shape, *(layer.dense_shape or ()))
            known = layer.kind in ("conv2d", "linear", "attention") and layer.shape and all(side > 0 for side in sides)
            counts = (layer.seed, layer.groups, layer.macs, layer.dense_macs, layer.bits)
            whole = all(count is None or (type(count) is int and count >= 0) for count in counts)
            if not (known and whole and isinstance(layer.name, str)):
                raise ValueError
            check_pace(layer)
            if layer.method is not None:
                if layer.method not in BY_NAME:
                    raise FileError(f"unknown method '{layer.method}'; {did_you_mean(layer.method, BY_NAME)}", where)
                config = BY_NAME[layer.method].read_config(layer.config)
                if layer.seed is None or BY_NAME[layer.method].rejects(layer.shape, config):
                    raise ValueError
        except (TypeError, KeyError, ValueError, AttributeError):
            name = item.get("name", "a layer") if isinstance(item, Mapping) else "a layer"
            raise FileError(f"its plan of {name} is damaged", where, "fetch it again") from None
        return layer


class Paced(Protocol):
    """What is read of the plan of a layer or block."""

    @property
    def lr_scale(self) -> float | Mapping[str, float]:
        """Times the learning rate."""

    @property
    def weight_decay(self) -> float | None:
        """Of its stored tensors."""


def check_pace(planned: Paced) -> None:
    """Refuse learning rates and weight decays that are none.

    Raises:
        ValueError: one is negative or not finite.
    """
    scales = planned.lr_scale.values() if isinstance(planned.lr_scale, Mapping) else (planned.lr_scale,)
    if not all(0 <= float(number) < math.inf for number in (*scales, planned.weight_decay or 0)):
        raise ValueError


def check_scales(draft: Draft, index: int, lr_scale: float | Mapping[str, float], name: str, held: nn.Module) -> None:
    """Note, for a rule, learning rates of tensors that its method or block does not train."""
    tensors = [tensor for tensor, _ in held.named_parameters()]
    for tensor in lr_scale if isinstance(lr_scale, Mapping) else ():
        key = ("layers", index, "lr_scale", tensor)
        if tensor not in tensors and not any(mistake.key == key for mistake in draft.mistakes):
            draft.mistake(key, f"{name} trains no tensor '{tensor}'; {did_you_mean(tensor, tensors)}")


def candidates(model: nn.Module, macs: Mapping[str, int] | None = None) -> list[PlannedLayer]:
    """Every convolution, fully connected layer and attention projection, dense, with the reason where it must stay so.

    Args:
        model: on any device.
        macs: of each parameter that runs in evaluation; see :func:`compressnet.trace.parameter_macs`.
    """
    uses = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    outputs = {
        id(module.out_proj) for name, module in model.named_modules() if name and type(module) is nn.MultiheadAttention
    }
    found = []
    for name, module in model.named_modules():
        if not name or not isinstance(module, nn.Conv2d | nn.Linear | nn.MultiheadAttention):
            continue
        usual = type(module) in REWRITTEN or (type(module) is NonDynamicallyQuantizableLinear and id(module) in outputs)
        reason = None if usual else f"of its own type, {type(module).__name__}"
        if usual and uses[id(module)] > 1:
            reason = "shared by several places"
        if isinstance(module, nn.MultiheadAttention):
            dense = dict(module.named_parameters(recurse=False))
            for projection in INPUTS:
                if (weight := dense.get(f"{projection}_weight")) is not None:
                    found.append(_planned(f"{name}.{projection}", "attention", weight.shape, reason, macs))
        else:
            kind: LayerKind = "conv2d" if isinstance(module, nn.Conv2d) else "linear"
            found.append(_planned(name, kind, module.weight.shape, reason, macs, getattr(module, "groups", 1)))
    return found


def _planned(
    name: str,
    kind: LayerKind,
    shape: tuple[int, ...],
    reason: str | None,
    macs: Mapping[str, int] | None,
    groups: int = 1,
) -> PlannedLayer:
    layer = PlannedLayer(name, kind, tuple(shape), groups, remark=reason)
    if macs is None:
        return layer
    if layer.parameter not in macs:
        return PlannedLayer(name, kind, tuple(shape), groups, remark=AUXILIARY)
    count = macs[layer.parameter]
    return PlannedLayer(name, kind, tuple(shape), groups, remark=reason, dense_macs=count, macs=count)
