"""Rounding to a multiple of a step that is near and has a short code."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from compressnet.coding.quantisers import Uniform

PRICE = math.log(2) / 24
"""Of a bit, in squares of the step. A larger step saves one for ln 2 / 6, the slope of Δ²/12 over log₂ Δ; but errors
toward 0 have the signs of their weights, and add up in the outputs where others cancel: a quarter of that is better."""
ROUNDS = 3  # of code lengths and symbols, which depend on each other
WIDEST = 1 << 12  # a largest symbol above which a code is long in any case, and a bit of it not worth a thought


@dataclass(frozen=True)
class Thrift:
    """Of the nearest symbol and its neighbour toward 0, the one whose squared error and code cost less together.

    Args:
        quantiser: with one step for all.
        bits: code lengths of the symbols from −most to most, or None: the nearest symbols are taken.

    Source: P. Chou, T. Lookabaugh, R. Gray: Entropy-Constrained Vector Quantization, IEEE Transactions on Acoustics,
    Speech and Signal Processing 1989; here of single numbers, to the levels of a uniform quantiser.
    """

    quantiser: Uniform
    bits: Tensor | None

    @classmethod
    def of(cls, numbers: Tensor, quantiser: Uniform) -> "Thrift":
        """With code lengths by the frequencies of the symbols that are chosen for some numbers."""
        symbols = quantiser.symbols(numbers)
        most = int(symbols.abs().max())
        thrift = cls(quantiser, None)
        for _ in range(ROUNDS if most <= WIDEST else 0):
            counts = torch.bincount((symbols.flatten() + most).long(), minlength=2 * most + 1).float() + 0.5
            thrift = cls(quantiser, (counts.sum() / counts).log2())
            symbols = thrift.symbols(numbers)
        return thrift

    def symbols(self, numbers: Tensor, costs: Tensor | float = 1.0) -> Tensor:
        """The symbols chosen for numbers.

        Args:
            numbers: float32 of any shape.
            costs: of their squared errors, relative to those at which a bit has its price; of a shape that broadcasts.

        Returns:
            int32 of that shape.
        """
        nearest = self.quantiser.symbols(numbers)
        if self.bits is None:
            return nearest
        most = len(self.bits) // 2
        nearest = nearest.clamp(-most, most)
        lower = nearest - nearest.sign()
        scaled = numbers / self.quantiser.step
        near, low = (
            costs * (scaled - symbols).square() + PRICE * self.bits[(symbols + most).long()]
            for symbols in (nearest, lower)
        )
        return torch.where(low < near, lower, nearest)

    def __call__(self, numbers: Tensor, costs: Tensor | float = 1.0) -> Tensor:
        """The numbers of those symbols."""
        return self.quantiser.numbers(self.symbols(numbers, costs))
