"""Walsh–Hadamard transforms, and Fastfood between them: see :mod:`compressnet.maths.hadamard` and its ``fastfood``.

Both are in one file, as machine code that is kept on disk is made anew when its own file changes, and for no other.
A vector stays in the first-level cache while it is transformed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressnet.maths.compiled import arrays, inlined, loop

Reals = NDArray[Any]
Ints = NDArray[np.int64]
array = arrays()

LEAST = 64
"""The smallest transform: two passes of three steps."""


@inlined
def _three_steps(a, b, c, d, e, f, g, h):  # type: ignore[no-untyped-def]
    """Of the butterfly: the sums and differences of eight numbers."""
    a, b, c, d, e, f, g, h = a + b, a - b, c + d, c - d, e + f, e - f, g + h, g - h
    a, b, c, d, e, f, g, h = a + c, b + d, a - c, b - d, e + g, f + h, e - g, f - h
    return a + e, b + f, c + g, d + h, a - e, b - f, c - g, d - h


@loop
def _transform(x: Reals, used: int) -> None:
    """A vector by the matrix of entries ±1, in place.

    Passes of three steps each, whose inner loops run over neighbours; distances of 1 and 8 are constants, so that
    vectors of those are made without looking whether they overlap.

    Args:
        x: as many numbers as a power of two, at least ``LEAST``.
        used: behind so many there are zeros.
    """
    for i in range((used + 63) // 64):
        y = x[64 * i : 64 * i + 64]
        for j in range(8):
            k = 8 * j
            y[k], y[k + 1], y[k + 2], y[k + 3], y[k + 4], y[k + 5], y[k + 6], y[k + 7] = _three_steps(
                y[k], y[k + 1], y[k + 2], y[k + 3], y[k + 4], y[k + 5], y[k + 6], y[k + 7]
            )
        for k in range(8):
            y[k], y[k + 8], y[k + 16], y[k + 24], y[k + 32], y[k + 40], y[k + 48], y[k + 56] = _three_steps(
                y[k], y[k + 8], y[k + 16], y[k + 24], y[k + 32], y[k + 40], y[k + 48], y[k + 56]
            )
    n = 64
    while 8 * n <= x.size:
        for i in range(0, used, 8 * n):
            a, b, c, d = x[i : i + n], x[i + n : i + 2 * n], x[i + 2 * n : i + 3 * n], x[i + 3 * n : i + 4 * n]
            i += 4 * n
            e, f, g, h = x[i : i + n], x[i + n : i + 2 * n], x[i + 2 * n : i + 3 * n], x[i + 3 * n : i + 4 * n]
            for k in range(n):
                a[k], b[k], c[k], d[k], e[k], f[k], g[k], h[k] = _three_steps(
                    a[k], b[k], c[k], d[k], e[k], f[k], g[k], h[k]
                )
        n *= 8
    while n < x.size:  # one or two steps are left
        for i in range(0, used, 2 * n):
            a, b = x[i : i + n], x[i + n : i + 2 * n]
            for k in range(n):
                a[k], b[k] = a[k] + b[k], a[k] - b[k]
        n *= 2


@inlined
def _size(rows):  # type: ignore[no-untyped-def]
    """Of the smallest transform that gives so many."""
    size = LEAST
    while size < rows:
        size *= 2
    return size


@loop
def transform(out: Reals, x: Reals, factor: float) -> None:
    """The transforms of vectors, times a number.

    Args:
        out: shape (batch, rows), overwritten: the leading outputs.
        x: shape (batch, m), of any m: as if padded by zeros.
        factor: 1/√n for an orthonormal transform of size n.
    """
    rows, columns, size = out.shape[1], x.shape[1], _size(out.shape[1])
    buffer = np.empty(size, x.dtype)
    for i in range(len(x)):
        _fold(buffer, x[i])
        _transform(buffer, min(size, columns))
        for k in range(rows):
            out[i, k] = buffer[k] * out.dtype.type(factor)


@inlined
def _fold(out, x):  # type: ignore[no-untyped-def]
    """The sum of x's parts of the size of ``out``: the leading rows of a larger matrix repeat those of a smaller."""
    first = min(out.size, x.size)
    out[:first] = x[:first]
    out[first:] = 0
    for begin in range(out.size, x.size, out.size):
        part = x[begin : begin + out.size]
        for k in range(part.size):
            out[k] += part[k]


@loop
def fastfood(
    addresses: tuple[int, ...], first: int, last: int, shape: tuple[int, int, int, int, int], factor: np.floating[Any]
) -> None:
    """``bias + factor · S H G Π H B x``, the sum over copies, for some vectors, with H of entries ±1.

    Args:
        addresses: of the result, x, S, G, B, Π and the bias, contiguous, Π as positions among all blocks in 64 bits.
        first: of the vectors, which have ``ins`` numbers each, and results ``rows``.
        last: behind those.
        shape: rows, ins, copies, copies · blocks, d.
        factor: of the type of all numbers; 1/d for orthonormal H.
    """
    rows, ins, copies, count, d = shape
    out, x = array(addresses[0], (last, rows), factor), array(addresses[1], (last, ins), factor)
    scale, bias = array(addresses[2], (copies, rows), factor), array(addresses[6], (rows,), factor)
    gauss, signs = array(addresses[3], (count, d), factor), array(addresses[4], (count, ins), factor)
    order = array(addresses[5], (count * d,), 0)
    mixed, made, places = np.empty(d, x.dtype), np.empty(_size(min(d, rows)), x.dtype), np.empty(d, np.int32)
    for i in range(first, last):
        out[i] = bias
    for block in range(count):
        start = block % (count // copies) * d
        S, G, B = scale[block // (count // copies), start : start + d], gauss[block], signs[block]
        _places(places, order, block)
        for i in range(first, last):
            _multiply(mixed, x[i], B)
            _transform(mixed, ins)
            made[:] = 0
            for begin in range(0, d, made.size):  # the leading rows of H repeat those of a smaller one
                for k in range(made.size):
                    made[k] += mixed[places[begin + k]] * G[begin + k]
            _transform(made, made.size)
            y = out[i, start : start + d]
            for k in range(S.size):
                y[k] += made[k] * S[k] * factor


@loop
def fastfood_backward(
    gradients: tuple[Reals, ...], upstream: Reals, given: tuple[NDArray[Any], ...], factor: float
) -> None:
    """Gradients of :func:`fastfood`, which computes anew what is between its diagonals.

    Args:
        gradients: of x, overwritten; and of S, G and B, to which is added.
        upstream: of the result, shape (batch, rows).
        given: x of shape (batch, ins), S, G, B and Π.
        factor: as there.
    """
    to_x, to_scale, to_gauss, to_signs = gradients
    x, scale, gauss, signs, order = given
    (count, d), (copies, rows), real = gauss.shape, scale.shape, x.dtype.type
    mixed, moved, places = np.empty(d, x.dtype), np.empty(d, x.dtype), np.empty(d, np.int32)
    made = np.empty(_size(min(d, rows)), x.dtype)
    to_x[:] = 0
    for block in range(count):
        copy, first = block // (count // copies), block % (count // copies) * d
        S, G, B = scale[copy, first : first + d], gauss[block], signs[block]
        to_S, to_G, to_B = to_scale[copy, first : first + d], to_gauss[block], to_signs[block]
        _places(places, order, block)
        for i in range(len(x)):
            _multiply(mixed, x[i], B)
            _transform(mixed, B.size)
            made[:] = 0
            for begin in range(0, d, made.size):
                for k in range(made.size):
                    moved[begin + k] = mixed[places[begin + k]]
                    made[k] += moved[begin + k] * G[begin + k]
            _transform(made, made.size)
            above = upstream[i, first : first + d]
            for k in range(S.size):
                to_S[k] += made[k] * above[k] * real(factor)
                made[k] = above[k] * S[k] * real(factor)
            made[S.size :] = 0
            _transform(made, S.size)
            for begin in range(0, d, made.size):
                for k in range(made.size):
                    to_G[begin + k] += made[k] * moved[begin + k]
                    mixed[places[begin + k]] = made[k] * G[begin + k]
            _transform(mixed, d)
            for k in range(B.size):
                to_B[k] += mixed[k] * x[i, k]
                to_x[i, k] += mixed[k] * B[k]


@inlined
def _places(out, order, block):  # type: ignore[no-untyped-def]
    """Π of a block, in half of its bytes."""
    for k in range(out.size):
        out[k] = order[block * out.size + k] - block * out.size


@inlined
def _multiply(out, x, diagonal):  # type: ignore[no-untyped-def]
    for k in range(x.size):
        out[k] = x[k] * diagonal[k]
    out[x.size :] = 0
