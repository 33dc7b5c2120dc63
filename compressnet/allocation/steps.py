"""The step of each tensor at a distortion."""

import math
from dataclasses import dataclass

from torch import Tensor

from compressnet.coding.quantisers import LARGEST, Uniform

_TINY = 1e-30


@dataclass(frozen=True)
class Cost:
    """What the numbers of a tensor cost.

    Args:
        numel: how many they are.
        spread: their standard deviation.
        largest: of their absolute values.
        sensitivity: s, the mean cost of a number's squared error, in nats.
    """

    numel: int
    spread: float
    largest: float
    sensitivity: float

    @classmethod
    def of(cls, tensor: Tensor, sensitivity: float) -> "Cost":
        """From a tensor that is not constant."""
        spread = tensor.double().std(correction=0).item()
        return cls(tensor.numel(), spread, tensor.abs().max().item(), sensitivity)

    def quantiser(self, distortion: float) -> Uniform:
        """The step √(12 D / s), of which the error of a number costs D on average; within what the numbers allow."""
        coarsest = 2 * self.largest
        step = math.sqrt(12 * distortion / self.sensitivity) if self.sensitivity > 0 else coarsest
        return Uniform(min(max(step, self.largest / LARGEST), coarsest))

    @property
    def bounds(self) -> tuple[float, float]:
        """log₂ of the distortions at which the step is the finest and the coarsest there is."""
        coarsest = math.log2(max(self.sensitivity, _TINY) * (2 * self.largest) ** 2 / 12)
        return coarsest - 2 * math.log2(2 * LARGEST), coarsest

    @property
    def bits(self) -> float:
        """Of all numbers at D = 1, as if they were normal: each is log₂(σ √(2πe) / Δ)."""
        sensitivity = max(self.sensitivity, _TINY)
        return self.numel * math.log2(self.spread * math.sqrt(2 * math.pi * math.e * sensitivity / 12))


def is_constant(tensor: Tensor) -> bool:
    """Whether all numbers are one, or there are none: an entropy coder needs next to nothing for them."""
    return not tensor.numel() or bool((tensor == tensor.flatten()[0]).all())
