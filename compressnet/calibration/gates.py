"""The ReLU after a layer: outputs that it does not let through need not be right, only below zero."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

RELUS = frozenset({F.relu, F.relu_, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})
NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
"""The arguments of ``F.batch_norm``, in order."""


@dataclass(frozen=True)
class Gate:
    """``relu(scale · y + shift)`` of a layer's outputs y; a batch norm between gives the scale and the shift.

    Args:
        scale: shape (groups, 1, out).
        shift: the same.
    """

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, scale: Tensor, shift: Tensor, groups: int) -> "Gate":
        """From a scale and a shift of shape (groups · out,)."""
        return cls(scale.view(groups, 1, -1), shift.view(groups, 1, -1))

    def through(self, outputs: Tensor) -> Tensor:
        """What is let through of outputs of shape (groups, samples, out)."""
        return torch.relu(outputs * self.scale + self.shift)

    def target(self, given: Tensor, wanted: Tensor) -> Tensor:
        """The outputs nearest to the given ones of which the gate lets through the same as of those that are wanted."""
        closed = wanted * self.scale + self.shift <= 0
        free = given * self.scale + self.shift <= 0
        return torch.where(closed, torch.where(free, given, -self.shift / self.scale), wanted)


def norm_scale(arguments: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The scale and the shift of ``F.batch_norm`` in evaluation, of shape (channels,) each."""
    scale = (arguments["running_var"] + arguments.get("eps", 1e-5)).rsqrt()
    if arguments.get("weight") is not None:
        scale = scale * arguments["weight"]
    shift = -arguments["running_mean"] * scale
    return scale, shift if arguments.get("bias") is None else shift + arguments["bias"]
