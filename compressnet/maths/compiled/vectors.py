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
        addresses: of the result, x, both matrices and the bias, contiguous.
        first: the matrix's shape.
        second: the matrix's shape.
        parts: of x, and of the numbers between.
        like: of the type of all numbers.
    """
    x, out = array(addresses[1], (first[1],), like), array(addresses[0], (second[0],), like)
    between = np.zeros(first[0] * parts, x.dtype)
    _add(between, array(addresses[2], (first[0], parts, first[1] // parts), like), x)
    out[:] = array(addresses[4], (second[0],), like)
    _add(out, array(addresses[3], (second[0] // parts, parts, second[1]), like), between)


@inlined
def _add(out, matrix, x):  # type: ignore[no-untyped-def]
    """``out[r, s] += Σ_t matrix[r, s, t] x[s, t]``."""
    rows, parts, count = matrix.shape
    for r in range(rows):
        for s in range(parts):
            row, vector, total = matrix[r, s], x[s * count : (s + 1) * count], out.dtype.type(0)
            for t in range(count):
                total += row[t] * vector[t]
            out[r * parts + s] += total
