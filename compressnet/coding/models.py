"""How often each symbol is expected: weights that sum to 2²⁴, from few bytes and by whole-number arithmetic alone.

A model is over the symbols lowest … lowest + count − 1. It is one of four shapes, whichever makes record and symbols
fewest bytes.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compressnet.coding.records import DamagedError, Reader, Writer, folded, golomb_nbits, unfolded

TOTAL = 1 << 24
MOST = 1 << 16
"""Of symbols that a model may have."""
_ONE = 1 << 16
_ORDERS = range(8)


@dataclass(frozen=True)
class Model:
    """A shape and what it needs.

    Args:
        lowest: symbol.
        count: of symbols.
    """

    lowest: int
    count: int
    shape: ClassVar[int]

    def masses(self) -> np.ndarray:
        """Relative weights, int64 of shape (count,), of which one at least is above 0."""
        raise NotImplementedError

    def write(self, record: Writer) -> None:
        """What the shape needs."""

    def weights(self) -> np.ndarray:
        """The masses scaled to sum to 2²⁴, each at least 1: int64 of shape (count,).

        1 + ⌊mass · (2²⁴ − count) / Σ masses⌋; what is left goes to the heaviest, of equal ones the first.
        """
        masses, free = self.masses(), TOTAL - self.count
        whole = int(masses.sum())
        scaled = np.array([mass * free // whole for mass in masses.tolist()], dtype=np.int64)
        scaled[int(masses.argmax())] += free - int(scaled.sum())
        return scaled + 1

    def nbits(self, counts: np.ndarray) -> float:
        """What symbols cost that occur so often."""
        return float(-(counts * np.log2(self.weights() / TOTAL)).sum())


@dataclass(frozen=True)
class Flat(Model):
    """All symbols alike."""

    shape = 0

    def masses(self) -> np.ndarray:
        """Ones."""
        return np.ones(self.count, dtype=np.int64)


@dataclass(frozen=True)
class Peaked(Model):
    """Falling from symbol 0, or from the nearest to it, on both sides.

    Args:
        ratio: of the first step down, in units of 2⁻¹⁶.
    """

    ratio: int

    @classmethod
    def read(cls, lowest: int, count: int, record: Reader) -> "Peaked":
        """From a record."""
        ratio = int.from_bytes(record.take(2), "little")
        if ratio == 0:
            raise DamagedError
        return cls(lowest, count, ratio)

    def write(self, record: Writer) -> None:
        """The ratio, two bytes, little-endian."""
        record.data += self.ratio.to_bytes(2, "little")

    def masses(self) -> np.ndarray:
        """2³⁰ at the peak, less at each step by a ratio; at least 1."""
        peak = min(max(0, self.lowest), self.lowest + self.count - 1)
        reach = max(peak - self.lowest, self.lowest + self.count - 1 - peak)
        side, mass, ratio = [1 << 30], 1 << 30, self.ratio
        for _ in range(reach):
            mass = mass * ratio >> 16
            ratio = self.next(ratio)
            side.append(max(1, mass))
        places = np.abs(np.arange(self.lowest, self.lowest + self.count) - peak)
        return np.array(side, dtype=np.int64)[places]

    def next(self, ratio: int) -> int:
        """The ratio of the next step."""
        raise NotImplementedError


@dataclass(frozen=True)
class Laplace(Peaked):
    """A two-sided geometric distribution: each step has the same ratio."""

    shape = 1

    def next(self, ratio: int) -> int:
        """The same."""
        return ratio

    @classmethod
    def of(cls, lowest: int, counts: np.ndarray) -> "Laplace":
        """Of the mean distance m from 0: the ratio is m / (1 + m) on one side, (√(1 + m²) − 1) / m on two."""
        mean = float((np.abs(np.arange(lowest, lowest + len(counts))) * counts).sum() / counts.sum())
        ratio = mean / (1 + mean) if lowest >= 0 else (math.sqrt(1 + mean * mean) - 1) / max(mean, 1e-9)
        return cls(lowest, len(counts), _ratio(ratio))


@dataclass(frozen=True)
class Gauss(Peaked):
    """A normal distribution at whole numbers: the ratio itself falls by its square at each step."""

    shape = 2

    def next(self, ratio: int) -> int:
        """Times the square of the first."""
        return ratio * (self.ratio * self.ratio >> 16) >> 16

    @classmethod
    def of(cls, lowest: int, counts: np.ndarray) -> "Gauss":
        """Of the mean square of the symbols."""
        square = float((np.arange(lowest, lowest + len(counts)) ** 2.0 * counts).sum() / counts.sum())
        return cls(lowest, len(counts), _ratio(math.exp(-1 / (2 * max(square, 0.05)))))


@dataclass(frozen=True)
class Counted(Model):
    """Each symbol by itself: level 0 is weight 0, level l the weight (4 + (l − 1) mod 4) · 2^⌊(l − 1) / 4⌋.

    Args:
        levels: of each symbol, 0 … 128.
    """

    levels: tuple[int, ...]

    shape = 3

    @classmethod
    def of(cls, lowest: int, counts: np.ndarray) -> "Counted":
        """The nearest levels to four times the counts."""
        return cls(lowest, len(counts), tuple(map(_level, counts.tolist())))

    @classmethod
    def read(cls, lowest: int, count: int, record: Reader) -> "Counted":
        """From a record."""
        form = record.byte()
        differences, order = form >> 4, form & 15
        if differences > 2 or order not in _ORDERS:
            raise DamagedError
        values = [unfolded(value) for value in record.golomb(count, order)]
        for _ in range(differences):
            values = np.cumsum(values).tolist()
        if not all(0 <= value <= 128 for value in values) or not any(values):
            raise DamagedError
        return cls(lowest, count, tuple(values))

    def write(self, record: Writer) -> None:
        """Levels, their differences, or the differences of these: a byte for which and the order, then Golomb codes."""
        coded = {times: [folded(int(d)) for d in _differences(self.levels, times)] for times in range(3)}
        _, times, order = min(
            (sum(golomb_nbits(value, order) for value in values), times, order)
            for times, values in coded.items()
            for order in _ORDERS
        )
        record.byte(times << 4 | order)
        record.golomb(coded[times], order)

    def masses(self) -> np.ndarray:
        """The levels' weights."""
        return np.array([mass_of(level) for level in self.levels], dtype=np.int64)


def mass_of(level: int) -> int:
    """The weight of a level.

    >>> [mass_of(level) for level in range(10)]
    [0, 4, 5, 6, 7, 8, 10, 12, 14, 16]
    """
    return (4 + (level - 1) % 4) << (level - 1) // 4 if level else 0


def _level(count: int) -> int:
    if count == 0:
        return 0
    octave = count.bit_length() - 1
    level = 1 + 4 * octave
    return min((level + part for part in range(5)), key=lambda each: abs(mass_of(each) - 4 * count))


def _differences(levels: tuple[int, ...], times: int) -> np.ndarray:
    values = np.array(levels)
    for _ in range(times):
        values = np.diff(values, prepend=0)
    return values


def _ratio(value: float) -> int:
    return min(_ONE - 1, max(1, round(value * _ONE)))


def fitting(lowest: int, counts: np.ndarray) -> Model:
    """The model whose record and symbols are fewest bits.

    Args:
        lowest: symbol that occurs.
        counts: of it and those above, int64, the last one above 0.
    """
    if len(counts) == 1:
        return Flat(lowest, 1)
    models: list[Model] = [Flat(lowest, len(counts)), Laplace.of(lowest, counts), Gauss.of(lowest, counts)]
    if len(counts) <= 4 * counts.sum():
        models.append(Counted.of(lowest, counts))
    return min(models, key=lambda model: model.nbits(counts) + 8 * len(_record(model)))


def _record(model: Model) -> bytes:
    record = Writer()
    model.write(record)
    return bytes(record.data)
