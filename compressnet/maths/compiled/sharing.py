"""Signed values by index, and their sums: see :mod:`compressnet.maths.sharing`.

Kernels of 3×3 are made of the coefficients that they read, and the other way round, in the same loops: products of nine
columns take several times as long.
"""

from typing import Any

import numpy as np
from numpy import int32
from numpy.typing import NDArray

from compressnet.maths.compiled import inlined, loop

Reals = NDArray[Any]
Ints = NDArray[np.int32]


@inlined
def _read(values, index):  # type: ignore[no-untyped-def]
    return values[index >> int32(1)] * values.dtype.type(int32(1) - int32(2) * (index & int32(1)))


@inlined
def _add(sums, index, number):  # type: ignore[no-untyped-def]
    sums[index >> int32(1)] += number * sums.dtype.type(int32(1) - int32(2) * (index & int32(1)))


@loop
def gather(out: Reals, values: Reals, indices: Ints) -> None:
    """``out[i] = ± values[k]`` with ``indices[i] = 2 k + (1 if the sign is −)``."""
    for i in range(out.size):
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


@inlined
def _cosine(a, b, c, scale):  # type: ignore[no-untyped-def]
    """The orthonormal DCT-II of three numbers."""
    outer = a + c
    return (outer + b) * scale[0], (a - c) * scale[1], (outer - b - b) * scale[2]


@inlined
def _back(a, b, c, scale):  # type: ignore[no-untyped-def]
    """Its inverse."""
    a, b, c = a * scale[0], b * scale[1], c * scale[2]
    outer = a + c
    return outer + b, a - c - c, outer - b


@inlined
def _scale(like):  # type: ignore[no-untyped-def]
    of = like.dtype.type
    return of(3.0**-0.5), of(2.0**-0.5), of(6.0**-0.5)


@loop
def gather_kernels(out: Reals, values: Reals, indices: Ints) -> None:
    """3×3 kernels, one behind the other, by the inverse DCT of what their positions read."""
    scale = _scale(values)
    for i in range(0, out.size, 9):
        p, q, r = _read(values, indices[i]), _read(values, indices[i + 1]), _read(values, indices[i + 2])
        a0, a1, a2 = _back(p, q, r, scale)
        p, q, r = _read(values, indices[i + 3]), _read(values, indices[i + 4]), _read(values, indices[i + 5])
        b0, b1, b2 = _back(p, q, r, scale)
        p, q, r = _read(values, indices[i + 6]), _read(values, indices[i + 7]), _read(values, indices[i + 8])
        c0, c1, c2 = _back(p, q, r, scale)
        out[i], out[i + 3], out[i + 6] = _back(a0, b0, c0, scale)
        out[i + 1], out[i + 4], out[i + 7] = _back(a1, b1, c1, scale)
        out[i + 2], out[i + 5], out[i + 8] = _back(a2, b2, c2, scale)


@loop
def add_kernels(sums: Reals, numbers: Reals, indices: Ints) -> None:
    """The sums of the DCT's coefficients of 3×3 kernels."""
    scale = _scale(sums)
    for i in range(0, numbers.size, 9):
        a0, a1, a2 = _cosine(numbers[i], numbers[i + 1], numbers[i + 2], scale)
        b0, b1, b2 = _cosine(numbers[i + 3], numbers[i + 4], numbers[i + 5], scale)
        c0, c1, c2 = _cosine(numbers[i + 6], numbers[i + 7], numbers[i + 8], scale)
        p, q, r = _cosine(a0, b0, c0, scale)
        _add(sums, indices[i], p)
        _add(sums, indices[i + 3], q)
        _add(sums, indices[i + 6], r)
        p, q, r = _cosine(a1, b1, c1, scale)
        _add(sums, indices[i + 1], p)
        _add(sums, indices[i + 4], q)
        _add(sums, indices[i + 7], r)
        p, q, r = _cosine(a2, b2, c2, scale)
        _add(sums, indices[i + 2], p)
        _add(sums, indices[i + 5], q)
        _add(sums, indices[i + 8], r)
