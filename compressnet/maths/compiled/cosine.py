"""Cascades of cosine filters, forward and backward: see :mod:`compressnet.maths.cascade`.

Sixteen vectors go side by side: each of their numbers is a row of sixteen, so that an operation is one of vectors of a
processor, and a reordering moves lines of the cache. A vector alone has rows of its own numbers, and is reordered, and
filtered between its transforms, number by number.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressnet.maths.compiled import arrays, inlined, loop
from compressnet.maths.compiled.fourier import Complex, back, back_alone, forth, forth_alone
from compressnet.maths.compiled.lanes import LANES, load, store, total, transpose
from compressnet.maths.compiled.straight import Memory, Value, straight

Reals = NDArray[Any]
Ints = NDArray[np.int64]
Four = tuple[Value, Value, Value, Value]
array = arrays()
PLAIN, KEEPING, SUMMING = 0, 1, 2
"""What becomes of coefficients on their way: nothing, or they are kept, or multiply those that were kept."""


def _analysed(near: Complex, far: Complex, turns: tuple[Complex, Complex]) -> list[Value]:
    """Coefficients from what a transform left of frequencies k and n − k: of k, 2 n − k, n − k and n + k."""
    far = far.conjugate()
    even, odd = (near + far) * turns[0], (near - far).turned() * turns[1]
    a, b = even + odd, even - odd
    return [a.real, a.imaginary, b.real - b.imaginary, b.real + b.imaginary]


def _synthesised(coefficients: list[Value], turns: tuple[Complex, Complex]) -> tuple[Complex, Complex]:
    """What the way back begins with."""
    a, b, c, d = coefficients
    first, second = Complex(a, b), Complex(c + d, d - c)
    even, odd = (first + second) * turns[0].conjugate(), ((first - second) * turns[1].conjugate()).turned()
    return even - odd, (even + odd).conjugate()


WEIGHTS = (1.0, 1.0, 0.5, 0.5)
"""What makes up for what coefficients lack."""


def _pair(alone: bool, noting: int) -> Callable[..., None]:
    """Gains for four coefficients, those of frequencies k and n − k of n complex numbers: of one vector or sixteen."""

    def read(x: Memory, place: Value) -> Value:
        return x[place] if alone else x.lanes(place)

    def both(x: Memory, place: Value) -> Complex:
        return Complex(read(x, place), read(x, place + LANES))

    def pair(
        x: Memory,
        near: Value,
        far: Value,
        turns: Memory,
        gains: Memory,
        k: Value,
        n: Value,
        last: Value,
        factor: Value,
        share: Value,
        kept: Memory,
        sums: Memory,
    ) -> None:
        row = k * 4
        own = Complex(turns[row], turns[row + 1]), Complex(turns[row + 2], turns[row + 3])
        made = []
        frequencies = [k, last, n - k, n + k]
        for number, value in enumerate(_analysed(both(x, near), both(x, far), own)):
            frequency, weight = frequencies[number], WEIGHTS[number]
            place = row + number if alone else (row + number) * LANES
            if noting == KEEPING:
                kept[place] = value
            if noting == SUMMING:
                sums[frequency] = sums[frequency] + (value * read(kept, place)).total() * (share * weight)
            made.append(value * (gains[frequency] * (factor * weight)))
        a, b = _synthesised(made, own)
        x[near], x[near + LANES] = a
        x[far], x[far + LANES] = b

    return straight(pair)


_pairs = [_pair(alone, noting) for alone in (False, True) for noting in (PLAIN, KEEPING, SUMMING)]
_many, _many_keeping, _many_summing, _one, _one_keeping, _one_summing = _pairs


@straight
def _row(
    x: Memory,
    row: Value,
    other: Value,
    turns: Memory,
    frequencies: Memory,
    gains: Memory,
    n: Value,
    factor: Value,
) -> None:
    """Sixteen pairs of a vector alone: those of a row of frequencies, which another has from its end."""
    near, far, place, k = row * (2 * LANES), other * (2 * LANES), row * (4 * LANES), frequencies.lanes(row * LANES)
    own = (
        Complex(turns.lanes(place), turns.lanes(place + LANES)),
        Complex(turns.lanes(place + 2 * LANES), turns.lanes(place + 3 * LANES)),
    )
    a, b = Complex(x.lanes(near), x.lanes(near + LANES)), Complex(x.lanes(far), x.lanes(far + LANES))
    read = [k, k * -1 + (n + n), k * -1 + n, k + n]
    coefficients = _analysed(a, Complex(b.real.backwards(), b.imaginary.backwards()), own)
    made = [
        value * (gains.gathered(at) * (factor * weight))
        for value, at, weight in zip(coefficients, read, WEIGHTS, strict=True)
    ]
    a, b = _synthesised(made, own)
    x[near], x[near + LANES] = a
    x[far], x[far + LANES] = b.real.backwards(), b.imaginary.backwards()


@loop
def _middle_alone(x, tables, rows, gains):  # type: ignore[no-untyped-def]
    """Of a vector alone: row by row, and pair by pair where rows have no partners."""
    (addresses, turns), (others, frequencies, own, first) = tables, rows
    n, none = addresses.size, np.empty(0, x.dtype)
    factor = x.dtype.type(1 / (4 * n))
    for row in range(others.size):
        if row < others[row]:
            _row(x, row, others[row], own, frequencies, gains, np.int32(n), factor)
    for k in first:
        last = (2 * n - k) % (2 * n)
        _one(x, addresses[k], addresses[(n - k) % n], turns, gains, k, n, last, factor, factor, none, none)


@loop
def _middle(x, tables, gains, kept, sums, noting, alone):  # type: ignore[no-untyped-def]
    """Between the transforms. Frequencies 0 and n / 2 are pairs of themselves: half of their sums counts."""
    addresses, turns = tables
    n = addresses.size
    factor = x.dtype.type(1 / (4 * n))
    for k in range(n // 2 + 1):
        near, far, last = addresses[k], addresses[(n - k) % n], (2 * n - k) % (2 * n)
        share = factor if k % (n // 2) else factor * x.dtype.type(0.5)
        if alone:
            if noting == KEEPING:
                _one_keeping(x, near, far, turns, gains, k, n, last, factor, share, kept, sums)
            else:
                _one_summing(x, near, far, turns, gains, k, n, last, factor, share, kept, sums)
        elif noting == PLAIN:
            _many(x, near, far, turns, gains, k, n, last, factor, share, kept, sums)
        elif noting == KEEPING:
            _many_keeping(x, near, far, turns, gains, k, n, last, factor, share, kept, sums)
        else:
            _many_summing(x, near, far, turns, gains, k, n, last, factor, share, kept, sums)


@loop
def _filter(x, tables, gains, kept, sums, noting, alone):  # type: ignore[no-untyped-def]
    """``C⁻¹ D C`` in place, for the gains of D; it is its own adjoint."""
    addresses, turns, twiddles, phases, by_rows = tables
    n, (own, columns, rows) = addresses.size, twiddles
    if alone:
        forth_alone(x, n, (columns, rows), phases)
    else:
        forth(x, 0, n, own)
    if alone and noting == PLAIN:
        _middle_alone(x, (addresses, turns), by_rows, gains)
    else:
        _middle(x, (addresses, turns), gains, kept, sums, noting, alone)
    if alone:
        back_alone(x, n, (columns, rows), phases)
    else:
        back(x, 0, n, own)


@inlined
def _seat(slot):  # type: ignore[no-untyped-def]
    """Where a slot of a vector alone is, among rows of sixteen complex numbers."""
    return (slot & -2 * LANES) + (slot & 1) * LANES + (slot // 2 & LANES - 1)


@loop
def _enter(out, x, first, factors, slots, alone):  # type: ignore[no-untyped-def]
    """Vectors of x from ``first`` on, times factors, number c at slot ``slots[c]``; zeros are at slots of no number."""
    columns = x.shape[1]
    for c in range(columns, slots.size):
        if alone:
            out[_seat(slots[c])] = 0
        else:
            out[slots[c] * LANES : slots[c] * LANES + LANES] = 0
    if alone:
        for c in range(columns):
            out[_seat(slots[c])] = x[first, c] * factors[c]
        return
    tile = np.empty(LANES * LANES, x.dtype)
    for begin in range(0, columns, LANES):
        count = min(LANES, columns - begin)
        if count == LANES:
            transpose(tile, 0, LANES, x, first * columns + begin, columns)
        else:
            for c in range(count):
                for s in range(LANES):
                    tile[c * LANES + s] = x[first + s, begin + c]
        for c in range(count):
            store(out, slots[begin + c] * LANES, load(tile, c * LANES) * factors[begin + c])


@loop
def _leave(out, first, x, bias, slots, alone):  # type: ignore[no-untyped-def]
    """What stands at the slots of as many numbers as vectors of the result have, and a bias."""
    rows = out.shape[1]
    if alone:
        for o in range(rows):
            out[first, o] = x[_seat(slots[o])] + bias[o]
        return
    tile = np.empty(LANES * LANES, x.dtype)
    for begin in range(0, rows, LANES):
        count = min(LANES, rows - begin)
        for o in range(count):
            store(tile, o * LANES, load(x, slots[begin + o] * LANES) + bias[begin + o])
        if count == LANES:
            transpose(out, first * rows + begin, rows, tile, 0, LANES)
        else:
            for s in range(LANES):
                for o in range(count):
                    out[first + s, begin + o] = tile[o * LANES + s]


@straight
def _move_row(out: Memory, p: Value, x: Memory, route: Memory, factors: Memory, order: Memory) -> None:
    """A row of sixteen complex numbers of a vector alone."""
    sources = route.lanes(p).every_other(route.lanes(p + LANES))
    numbers = order.lanes(p).every_other(order.lanes(p + LANES))
    for at, source, number in zip((p, p + LANES), sources, numbers, strict=True):
        out[at] = x.gathered(_seat_of(source)) * factors.gathered(number)


def _seat_of(slots: Value) -> Value:
    return (slots & -2 * LANES) + (slots & 1) * LANES + (slots >> 1 & LANES - 1)


@loop
def _move(out, x, route, factors, order, alone):  # type: ignore[no-untyped-def]
    """Slot p is to have what stands at slot ``route[p]``, times the factor of its number."""
    if alone:
        for p in range(0, route.size, 2 * LANES):
            _move_row(out, p, x, route, factors, order)
    else:
        for p in range(route.size):
            store(out, p * LANES, load(x, route[p] * LANES) * factors[order[p]])


@loop
def _move_back(to_x, to_factors, upstream, x, route, factors, order, alone):  # type: ignore[no-untyped-def]
    """Gradients of it: of x, overwritten, and of factors, to which is added."""
    for p in range(route.size):
        own = order[p]
        if alone:
            above, source = upstream[_seat(p)], _seat(route[p])
            to_factors[own] += above * x[source]
            to_x[source] = above * factors[own]
        else:
            given, source = load(upstream, p * LANES), route[p] * LANES
            to_factors[own] += total(given * load(x, source))
            store(to_x, source, given * factors[own])


@inlined
def _factors(spatial, columns, width, f):  # type: ignore[no-untyped-def]
    """Those before a filter: before the first of the inputs alone."""
    return spatial[:columns] if f == 0 else spatial[columns + (f - 1) * width : columns + f * width]


@loop
def _through(y, kept, x, first, spatial, spectral, routes, tables, noting, alone):  # type: ignore[no-untyped-def]
    """Vectors from ``first`` on through all filters: what each gives is kept where there are as many rows."""
    slots, order, between = routes
    none, columns, width = np.empty(0, x.dtype), x.shape[1], slots.size
    for f in range(len(spectral)):
        own, factors = y[f % len(y)], _factors(spatial, columns, width, f)
        if f == 0:
            _enter(own, x, first, factors, slots, alone)
        else:
            _move(own, y[(f - 1) % len(y)], between[f - 1], factors, order, alone)
        _filter(own, tables, spectral[f], kept[f % len(kept)], none, noting, alone)


@loop
def cascade(addresses, shape, like, tables, work, part, alone):  # type: ignore[no-untyped-def]
    """Vectors through a cascade of width 2 n.

    Args:
        addresses: of contiguous arrays: the result, x, the bias, ``spatial`` of shape (columns + (depth − 1) · 2 n,),
            ``spectral`` of shape (depth, 2 n), and, int32, the slot of each number, its inverse, and the slot that each
            slot reads before each filter but the first, shape (depth − 1, 2 n).
        shape: rows of the result, columns of x, and depth.
        like: of the type of all numbers.
        tables: of :func:`compressnet.maths.cascade.tables`.
        work: shape (2, 2 n) where vectors are alone, else 16 times as many numbers.
        part: of the vectors, first and end; where they are not alone, a multiple of 16.
        alone: whether they go one by one.
    """
    (rows, columns, depth), width, kept = shape, 2 * tables[0].size, np.empty((1, 0), work.dtype)
    out, x = array(addresses[0], (part[1], rows), like), array(addresses[1], (part[1], columns), like)
    bias, spatial = array(addresses[2], (rows,), like), array(addresses[3], (columns + (depth - 1) * width,), like)
    spectral, slots = array(addresses[4], (depth, width), like), array(addresses[5], (width,), np.int32(0))
    order, between = array(addresses[6], (width,), np.int32(0)), array(addresses[7], (depth - 1, width), np.int32(0))
    for first in range(part[0], part[1], 1 if alone else LANES):
        _through(work, kept, x, first, spatial, spectral, (slots, order, between), tables, PLAIN, alone)
        _leave(out, first, work[(depth - 1) % 2], bias, slots, alone)


@loop
def cascade_back(gradients, upstream, x, spatial, spectral, routes, tables, part, alone):  # type: ignore[no-untyped-def]
    """Gradients of :func:`cascade`, which goes through it anew.

    Args:
        gradients: of x, overwritten, and of both diagonals, to which is added.
        upstream: of the result, shape (batch, rows).
    """
    to_x, to_spatial, to_spectral = gradients
    slots, order, between = routes
    columns, width, depth, unit = x.shape[1], slots.size, len(spectral), 1 if alone else LANES
    y, kept = np.empty((depth, width * unit), x.dtype), np.empty((depth, (width + 4) * unit), x.dtype)
    above, below = np.empty(width * unit, x.dtype), np.empty(width * unit, x.dtype)
    ones, zeros = np.ones(upstream.shape[1], x.dtype), np.zeros(columns, x.dtype)
    for first in range(part[0], part[1], unit):
        _through(y, kept, x, first, spatial, spectral, routes, tables, KEEPING, alone)
        _enter(above, upstream, first, ones, slots, alone)
        for f in range(depth - 1, -1, -1):
            _filter(above, tables, spectral[f], kept[f], to_spectral[f], SUMMING, alone)
            if f:
                factors, sums = _factors(spatial, columns, width, f), _factors(to_spatial, columns, width, f)
                _move_back(below, sums, above, y[f - 1], between[f - 1], factors, order, alone)
                above, below = below, above
        _leave(to_x, first, above, zeros, slots, alone)
        for s in range(first, first + unit):
            for c in range(columns):
                to_spatial[c] += to_x[s, c] * x[s, c]
                to_x[s, c] *= spatial[c]
