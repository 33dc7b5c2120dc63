"""What a layer could be: each ratio at each step, with what it takes and what it loses."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compressnet.coding.quantisers import Uniform, fit_uniform
from compressnet.structured import MethodConfig

STEPS = [2.0 ** (-exponent / 2) for exponent in range(13)]
"""In standard deviations of the numbers, from 1 to 1/64: a normal number has two bits at least."""
COARSE = [2.0 ** (exponent / 2) for exponent in (3, 2, 1)]
"""Of dense layers, too, whose rounding makes up for its errors: half a bit."""
RECORD = 16
"""Bytes of a tensor's record in a coded file, about."""
_TINY = 1e-12
_SAMPLE = 1 << 15  # numbers whose entropy is taken


@dataclass(frozen=True)
class Rounded:
    """What a dense weight takes and loses where errors of its rounding make up for each other, at some steps.

    Args:
        steps: in standard deviations, falling.
        bits: of a number, the entropy.
        losses: as of a form.
    """

    steps: tuple[float, ...]
    bits: tuple[float, ...]
    losses: tuple[float, ...]

    def at(self, step: float) -> tuple[float, float]:
        """Bits and loss at a step: on lines through their logarithms; below the finest, as errors shrink with it.

        >>> Rounded((2.0, 0.5), (1.0, 3.0), (0.4, 0.1)).at(1.0)
        (2.0, 0.2)
        >>> Rounded((2.0, 0.5), (1.0, 3.0), (0.4, 0.1)).at(0.25)
        (4.0, 0.025)
        """
        finer = max(0.0, math.log2(self.steps[-1] / step))
        known = np.log2(self.steps[::-1])
        bits = np.interp(math.log2(step), known, self.bits[::-1]) + finer
        loss = np.interp(math.log2(step), known, np.log2(np.maximum(self.losses[::-1], _TINY))) - 2 * finer
        return round(float(bits), 9), round(2 ** float(loss), 9)


@dataclass(frozen=True)
class Form:
    """A layer's weight in one of its ratios, before it is quantised.

    Args:
        config: the method's keys; None where the layer stays dense.
        numbers: what is stored, in standard deviations of its tensor, of any shape.
        positions_nbytes: of what is stored beside, such as a bitmap.
        lost: the error of the outputs that numbers of any precision leave.
        noise: what errors of the numbers add to it, for each of their variance in units of the numbers' own.
        tensors: how many there are.
        rounded: what was measured of a dense weight, in place of ``noise``.
    """

    config: MethodConfig | None
    numbers: Tensor
    positions_nbytes: int
    lost: float
    noise: float
    tensors: int = 1
    rounded: Rounded | None = None


@dataclass(frozen=True)
class Option:
    """A layer in one ratio at one step.

    Args:
        config: the method's keys; None where the layer stays dense.
        bits: of each number.
        nbytes: that the layer takes in the file.
        loss: as its form has it, quantised.
    """

    config: MethodConfig | None
    bits: int
    nbytes: float
    loss: float


def options(forms: Sequence[Form], bits: int | None) -> list[Option]:
    """Every form at every step.

    Args:
        forms: of a layer.
        bits: where they are given; else every step is tried, and the bits are those that its symbols need.
    """
    return [option for form in forms for option in _options(form, bits)]


def _options(form: Form, bits: int | None) -> Iterator[Option]:
    numbers = form.numbers.flatten()
    largest = numbers.abs().max().item()
    sample = numbers[:: max(1, len(numbers) // _SAMPLE)]
    steps = STEPS if form.config else COARSE + STEPS
    tried = [Uniform(step) for step in steps] if bits is None else [fit_uniform(sample, bits)]
    for quantiser in tried:
        if form.rounded is None:
            symbols = quantiser.symbols(sample)
            error = (quantiser.numbers(symbols) - sample).square().mean().item()
            each, loss = entropy(symbols), form.lost + form.noise * error
        else:
            each, loss = form.rounded.at(quantiser.step)
        nbytes = len(numbers) * each / 8 + form.positions_nbytes + RECORD * form.tensors
        needed = bits or min(16, max(2, (2 * round(largest / quantiser.step)).bit_length()))
        yield Option(form.config, needed, nbytes, loss)


def entropy(symbols: Tensor) -> float:
    """The zero-order entropy of symbols, in bits each.

    >>> entropy(torch.tensor([3, 3, -1, -1]))
    1.0
    """
    counts = torch.bincount((symbols - symbols.min()).flatten().long()).double()
    chances = counts[counts > 0] / counts.sum()
    return -(chances * chances.log2()).sum().item() + 0.0
