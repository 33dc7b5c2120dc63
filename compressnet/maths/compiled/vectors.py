"""One vector through two factors: see :mod:`compressnet.maths.vectors`."""

from typing import Any

import numpy as np

from compressnet.maths.compiled import arrays, inlined, summing

array = arrays()


@summing
def through(
    addresses: tuple[int, ...], first: tuple[int, int], second: tuple[int, int], parts: int, like: np.floating[Any]
) -> None:
    """``bias + second · (first · x)``.

    Args:
        addresses: of both matrices, x, the result and the bias, contiguous.
        first: the matrix's shape.
        second: the matrix's shape.
        parts: of x, and of the numbers between.
        like: of the type of all numbers.
    """
    x, out = array(addresses[2], (first[1],), like), array(addresses[3], (second[0],), like)
    between = np.zeros(first[0] * parts, x.dtype)
    _multiply(between, array(addresses[0], (first[0], parts, first[1] // parts), like), x)
    out[:] = array(addresses[4], (second[0],), like)
    _multiply(out, array(addresses[1], (second[0] // parts, parts, second[1]), like), between)


@summing
def backward(
    addresses: tuple[int, ...], first: tuple[int, int], second: tuple[int, int], parts: int, like: np.floating[Any]
) -> None:
    """Gradients of :func:`through`, which computes anew what is between the factors.

    Args:
        addresses: of both matrices, x, the gradient of the result, and the gradients of x, of the first and of the
            second, overwritten; 0 for one that is not wanted.
        first: as there.
        second: as there.
        parts: as there.
        like: as there.
    """
    before, behind = (first[0], parts, first[1] // parts), (second[0] // parts, parts, second[1])
    one, two = array(addresses[0], before, like), array(addresses[1], behind, like)
    x, upstream = array(addresses[2], (first[1],), like), array(addresses[3], (second[0],), like)
    between, to_between = np.zeros(first[0] * parts, x.dtype), np.zeros(first[0] * parts, x.dtype)
    if addresses[6]:
        _multiply(between, one, x)
        _outer(array(addresses[6], behind, like), upstream, between)
    if addresses[4] or addresses[5]:
        _add(to_between, two, upstream)
    if addresses[5]:
        _outer(array(addresses[5], before, like), to_between, x)
    if addresses[4]:
        to_x = array(addresses[4], (first[1],), like)
        to_x[:] = 0
        _add(to_x, one, to_between)


@inlined
def _multiply(out, matrix, x):  # type: ignore[no-untyped-def]
    """``out[r, s] += Σ_t matrix[r, s, t] x[s, t]``."""
    rows, parts, count = matrix.shape
    for r in range(rows):
        for s in range(parts):
            row, vector, total = matrix[r, s], x[s * count : (s + 1) * count], out.dtype.type(0)
            for t in range(count):
                total += row[t] * vector[t]
            out[r * parts + s] += total


@inlined
def _add(out, matrix, y):  # type: ignore[no-untyped-def]
    """``out[s, t] += Σ_r matrix[r, s, t] y[r, s]``."""
    rows, parts, count = matrix.shape
    for r in range(rows):
        for s in range(parts):
            row, vector, factor = matrix[r, s], out[s * count : (s + 1) * count], y[r * parts + s]
            for t in range(count):
                vector[t] += row[t] * factor


@inlined
def _outer(matrix, y, x):  # type: ignore[no-untyped-def]
    """``matrix[r, s, t] = y[r, s] x[s, t]``."""
    rows, parts, count = matrix.shape
    for r in range(rows):
        for s in range(parts):
            row, vector, factor = matrix[r, s], x[s * count : (s + 1) * count], y[r * parts + s]
            for t in range(count):
                row[t] = vector[t] * factor
