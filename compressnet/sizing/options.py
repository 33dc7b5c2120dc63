"""What a layer could be: each ratio at each step, with what it takes and what it loses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
_SAMPLE = 1 << 15  # numbers whose entropy is taken


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
    """

    config: MethodConfig | None
    numbers: Tensor
    positions_nbytes: int
    lost: float
    noise: float
    tensors: int = 1


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
        symbols = quantiser.symbols(sample)
        error = (quantiser.numbers(symbols) - sample).square().mean().item()
        nbytes = len(numbers) * entropy(symbols) / 8 + form.positions_nbytes + RECORD * form.tensors
        needed = bits or min(16, max(2, (2 * round(largest / quantiser.step)).bit_length()))
        yield Option(form.config, needed, nbytes, form.lost + form.noise * error)


def entropy(symbols: Tensor) -> float:
    """The zero-order entropy of symbols, in bits each.

    >>> entropy(torch.tensor([3, 3, -1, -1]))
    1.0
    """
    counts = torch.bincount((symbols - symbols.min()).flatten().long()).double()
    chances = counts[counts > 0] / counts.sum()
    return -(chances * chances.log2()).sum().item() + 0.0
