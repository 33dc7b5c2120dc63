"""Quantisers: numbers to symbols, which are whole numbers, and back.

A quantised number is a function of its symbol alone, in one rounded operation at most, so that it is the same bits on
every machine.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

LARGEST = (1 << 15) - 1
"""No symbol is farther from 0: each has its place in an entropy coder's table."""
SAMPLE = 1 << 16
"""Numbers that a step is searched on, about."""
FLOATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Quantiser(ABC):
    """Numbers of a tensor to symbols and back."""

    kind: ClassVar[str]
    """What a file calls it."""

    @abstractmethod
    def symbols(self, numbers: Tensor) -> Tensor:
        """The symbol whose number is nearest to each.

        Args:
            numbers: float32 of any shape, finite.

        Returns:
            int32 of that shape.
        """

    @abstractmethod
    def numbers(self, symbols: Tensor) -> Tensor:
        """The numbers of symbols: float32 of their shape."""

    def __call__(self, numbers: Tensor) -> Tensor:
        """The nearest numbers that it has."""
        return self.numbers(self.symbols(numbers))

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """As a file's metadata have it."""


@dataclass(frozen=True)
class Uniform(Quantiser):
    """Multiples of a step: number = step · symbol, |symbol| ≤ most.

    Where rows, the slices of a tensor's first dimension, have steps of their own, that of a row with k is
    step · (1 + (k mod 4) / 4) · 2^⌊k / 4⌋, in float32.

    Args:
        step: above 0; made the nearest float32.
        most: largest absolute symbol.
        rows: k of each row, or None.
    """

    kind = "uniform"

    step: float
    most: int = LARGEST
    rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", torch.tensor(self.step, dtype=torch.float32).item())
        if not (0 < self.step < math.inf and 1 <= self.most <= LARGEST):
            raise ValueError(f"no steps of {self.step} up to {self.most}")
        if not all(abs(k) <= 400 for k in self.rows or ()):
            raise ValueError("the steps of rows are too far apart")

    @classmethod
    def of_bits(cls, bits: int, step: float, rows: tuple[int, ...] | None = None) -> "Uniform":
        """The 2^bits − 1 multiples of a step that are nearest to 0."""
        return cls(step, 2 ** (bits - 1) - 1, rows)

    def steps(self, numbers: Tensor) -> Tensor:
        """The step of each row, of a shape that broadcasts with the tensor; a scalar where all are one."""
        step = torch.tensor(self.step, device=numbers.device)
        if self.rows is None:
            return step
        factors = torch.tensor([math.ldexp(1 + k % 4 / 4, k // 4) for k in self.rows], device=numbers.device)
        return (step * factors).view(-1, *[1] * (numbers.dim() - 1))

    def symbols(self, numbers: Tensor) -> Tensor:
        """The nearest multiples, of halves the even one."""
        return (numbers / self.steps(numbers)).round().clamp(-self.most, self.most).int()

    def numbers(self, symbols: Tensor) -> Tensor:
        """step · symbol, rounded to float32 once."""
        return symbols.float() * self.steps(symbols)

    def to_json(self) -> dict[str, Any]:
        """Its keys; rows only where there are any."""
        rows = {} if self.rows is None else {"rows": list(self.rows)}
        return {"kind": self.kind, "step": self.step, "most": self.most} | rows


@dataclass(frozen=True)
class Codebook(Quantiser):
    """Numbers of a table: number = levels[symbol].

    Args:
        levels: rising, finite; made the nearest float32.
    """

    kind = "codebook"

    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        levels = torch.tensor(self.levels, dtype=torch.float32)
        object.__setattr__(self, "levels", tuple(levels.tolist()))
        if not 1 <= len(levels) <= LARGEST or not levels.isfinite().all() or (levels.diff() <= 0).any():
            raise ValueError("the levels of a codebook are finite and rise")

    def symbols(self, numbers: Tensor) -> Tensor:
        """The index of the nearest level, of two the lower."""
        levels = torch.tensor(self.levels, device=numbers.device)
        return torch.bucketize(numbers.contiguous(), (levels[:-1] + levels[1:]) / 2).int()

    def numbers(self, symbols: Tensor) -> Tensor:
        """The levels."""
        return torch.tensor(self.levels, device=symbols.device)[symbols.long()]

    def to_json(self) -> dict[str, Any]:
        """Its levels."""
        return {"kind": self.kind, "levels": list(self.levels)}


@dataclass(frozen=True)
class Float(Quantiser):
    """Floating-point numbers of a type, of which a symbol is the bits.

    Args:
        dtype: float32, float16 or bfloat16.
    """

    kind = "float"

    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in FLOATS:
            raise ValueError(f"unknown dtype '{self.dtype}'")

    def symbols(self, numbers: Tensor) -> Tensor:
        """The bits of the nearest number of the type."""
        cast = numbers.to(FLOATS[self.dtype])
        return cast.view(torch.int32) if cast.dtype is torch.float32 else cast.view(torch.int16).int()

    def numbers(self, symbols: Tensor) -> Tensor:
        """The number of the bits, in float32, which holds them all."""
        dtype = FLOATS[self.dtype]
        bits = symbols.int() if dtype is torch.float32 else symbols.to(torch.int16)
        return bits.view(dtype).float()

    def to_json(self) -> dict[str, Any]:
        """Its type."""
        return {"kind": self.kind, "dtype": self.dtype}


_KINDS: Mapping[str, type[Quantiser]] = {each.kind: each for each in (Uniform, Codebook, Float)}


def from_json(keys: Mapping[str, Any]) -> Quantiser:
    """The quantiser of a file's metadata.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in keys.items() if key != "kind"}
    return _KINDS[keys["kind"]](**given)


@torch.no_grad()
def fit_uniform(numbers: Tensor, bits: int, weights: Tensor | None = None) -> Uniform:
    """The step of b bits whose squared error is least, of those at which 0.10, 0.11, … 1.00 of the range is reached.

    Of large tensors a part is looked at, spread evenly.

    Args:
        numbers: float32 of any shape.
        bits: b; symbols are at most 2^(b − 1) − 1 from 0.
        weights: of the squared errors, of that shape.
    """
    largest = numbers.abs().max().item() if numbers.numel() else 0.0
    whole = Uniform.of_bits(bits, largest / (2 ** (bits - 1) - 1) or 1.0)
    stride = max(1, numbers.numel() // SAMPLE)
    sample = numbers.flatten()[::stride]
    heavy = None if weights is None else weights.flatten()[::stride]
    tried = [dataclasses.replace(whole, step=whole.step * part / 100) for part in range(10, 101)] if largest else []
    return min(tried, key=lambda each: _error(each, sample, heavy), default=whole)


@torch.no_grad()
def fit_codebook(numbers: Tensor, count: int, rounds: int = 30, weights: Tensor | None = None) -> Codebook:
    """A codebook by k-means, from levels that divide the range evenly.

    Args:
        numbers: float32 of any shape.
        count: of levels, at most; those that nothing is nearest to are dropped.
        rounds: of Lloyd's algorithm, at most.
        weights: of the squared errors, of that shape.

    Source: Han, Mao, Dally: Deep Compression, ICLR 2016, section 3.1 (linear initialisation).
    """
    flat = numbers.detach().flatten().double()
    heavy = torch.ones_like(flat) if weights is None else weights.flatten().double().clamp(min=1e-30)
    levels = torch.linspace(flat.min(), flat.max(), count, dtype=torch.float64).unique()
    for _ in range(rounds):
        nearest = torch.bucketize(flat, (levels[:-1] + levels[1:]) / 2)
        total = torch.zeros_like(levels).index_add_(0, nearest, heavy)
        means = torch.zeros_like(levels).index_add_(0, nearest, heavy * flat)[total > 0] / total[total > 0]
        if means.shape == levels.shape and torch.equal(means, levels):
            break
        levels = means
    return Codebook(tuple(levels.float().unique().tolist()))


def _error(quantiser: Quantiser, numbers: Tensor, weights: Tensor | None) -> float:
    squares = (quantiser(numbers) - numbers).square()
    return (squares if weights is None else squares * weights).sum().item()
