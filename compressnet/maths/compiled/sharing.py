"""Signed values by index, and their sums: see :mod:`compressnet.maths.sharing`.

Kernels of 3×3 are made of the coefficients that they read, and the other way round, in the same loops: products of nine
columns take several times as long.
"""

from functools import partial
from typing import Any

import numpy as np
from numpy import int32
from numpy.typing import NDArray

from compressnet.maths.compiled import LANES, inlined, loop
from compressnet.maths.compiled.straight import Memory, Value, steps, straight, transposed

Reals = NDArray[Any]
Ints = NDArray[np.int32]
TOGETHER = 9 * LANES
"""Numbers of kernels that go side by side."""


@inlined
def _read(values, index):  # type: ignore[no-untyped-def]
    return values[index >> int32(1)] * values.dtype.type(int32(1) - int32(2) * (index & int32(1)))


@inlined
def _add(sums, index, number):  # type: ignore[no-untyped-def]
    sums[index >> int32(1)] += number * sums.dtype.type(int32(1) - int32(2) * (index & int32(1)))


@partial(straight, rounded=True)
def _gather_lanes(out: Memory, place: Value, values: Memory, indices: Memory) -> None:
    out[place] = _signed(values.gathered(indices.lanes(place) >> 1), values, indices.lanes(place))


def _signed(numbers: Value, like: Memory, indices: Value) -> Value:
    return numbers * like.real((indices & 1) * -2 + 1)


@loop
def gather(out: Reals, values: Reals, indices: Ints) -> None:
    """``out[i] = ± values[k]`` with ``indices[i] = 2 k + (1 if the sign is −)``."""
    whole = out.size - out.size % LANES
    for i in range(0, whole, LANES):
        _gather_lanes(out, i, values, indices)
    for i in range(whole, out.size):
        out[i] = _read(values, indices[i])


@loop
def add(sums: Reals, numbers: Reals, indices: Ints) -> None:
    """``sums[k] += ± numbers[i]``."""
    for i in range(numbers.size):
        _add(sums, indices[i], numbers[i])


@loop
def count(counts: Ints, indices: Ints) -> None:
    """``counts[k]`` more by how many positions read value k."""
    for i in range(indices.size):
        counts[indices[i] >> int32(1)] += int32(1)


@loop
def interleave(out: Ints, made: Ints, cells: Ints, first: int) -> None:
    """``out[kernel, cells[rank]] = made[kernel, rank] + 2 · first``."""
    for kernel in range(made.shape[0]):
        for rank in range(made.shape[1]):
            out[kernel, cells[rank]] = made[kernel, rank] + int32(2 * first)


def _cosine(a: Any, b: Any, c: Any) -> tuple[Any, Any, Any]:
    """The orthonormal DCT-II of three numbers."""
    outer = a + c
    return (outer + b) * 3.0**-0.5, (a - c) * 2.0**-0.5, (outer - b - b) * 6.0**-0.5


def _back(a: Any, b: Any, c: Any) -> tuple[Any, Any, Any]:
    """Its inverse."""
    a, b, c = a * 3.0**-0.5, b * 2.0**-0.5, c * 6.0**-0.5
    outer = a + c
    return outer + b, a - c - c, outer - b


def _both_ways(transform: Any, kernels: list[Any]) -> list[Any]:
    """Of 3×3 kernels: along rows, and along columns."""
    rows = [each for first in (0, 3, 6) for each in transform(*kernels[first : first + 3])]
    columns = [transform(*rows[first::3]) for first in range(3)]
    return [column[row] for row in range(3) for column in columns]


def _transformed(buffer: Memory, transform: Any, zero: Value) -> None:
    """Sixteen kernels in place; seven numbers behind them are spoilt."""
    starts = steps(zero, 9, LANES)
    kernels = _both_ways(transform, transposed([buffer.lanes(at) for at in starts])[:9])
    for at, kernel in zip(starts, transposed(kernels + kernels[:7]), strict=True):
        buffer[at] = kernel


@partial(straight, rounded=True)
def _kernels(out: Memory, values: Memory, indices: Memory, place: Value, buffer: Memory, zero: Value) -> None:
    """Sixteen kernels, by what their positions read."""
    rows = list(zip(steps(zero, LANES, 9), steps(place, LANES, 9), strict=True))
    for at, given in rows:
        buffer[at] = _signed(values.gathered(indices.lanes(given) >> 1), values, indices.lanes(given))
    _transformed(buffer, _back, zero)
    for at, given in rows:
        out[given] = buffer.lanes(at)


@partial(straight, rounded=True)
def _coefficients(buffer: Memory, values: Memory, kernels: Memory, indices: Memory, place: Value, zero: Value) -> None:
    """The signed coefficients of sixteen kernels, and which values they are of."""
    rows = list(zip(steps(zero, LANES, 9), steps(place, LANES, 9), strict=True))
    for at, given in rows:
        buffer[at] = kernels.lanes(given)
    _transformed(buffer, _cosine, zero)
    for at, given in rows:
        buffer[at] = _signed(buffer.lanes(at), buffer, indices.lanes(given))
        values[at] = indices.lanes(given) >> 1


@loop
def gather_kernels(out: Reals, values: Reals, indices: Ints) -> None:
    """3×3 kernels, one behind the other, by the inverse DCT of what their positions read."""
    buffer, whole = np.zeros(TOGETHER + LANES, values.dtype), out.size - out.size % TOGETHER
    for i in range(0, whole, TOGETHER):
        _kernels(out, values, indices, i, buffer, 0)
    last, read = np.zeros(TOGETHER, values.dtype), np.zeros(TOGETHER, np.int32)
    read[: out.size - whole] = indices[whole:]
    _kernels(last, values, read, 0, buffer, 0)
    out[whole:] = last[: out.size - whole]


@loop
def add_kernels(sums: Reals, numbers: Reals, indices: Ints) -> None:
    """The sums of the DCT's coefficients of 3×3 kernels."""
    buffer, values = np.zeros(TOGETHER + LANES, sums.dtype), np.zeros(TOGETHER, np.int32)
    whole = numbers.size - numbers.size % TOGETHER
    for i in range(0, whole, TOGETHER):
        _coefficients(buffer, values, numbers, indices, i, 0)
        for j in range(TOGETHER):
            sums[values[j]] += buffer[j]
    last, read = np.zeros(TOGETHER, sums.dtype), np.zeros(TOGETHER, np.int32)
    last[: numbers.size - whole], read[: numbers.size - whole] = numbers[whole:], indices[whole:]
    _coefficients(buffer, values, last, read, 0, 0)
    for j in range(numbers.size - whole):
        sums[values[j]] += buffer[j]
