"""Cascades of cosine filters, forward and backward: see :mod:`compressnet.maths.cascade`.

Sixteen vectors go side by side: each of their numbers is a row of sixteen, so that an operation is one of vectors of a
processor, and a reordering moves lines of the cache. A vector alone has rows of its own numbers, and is reordered, and
filtered between its transforms, number by number.
"""

import numpy as np

from compressnet.maths.compiled import LANES, arrays, inlined, loop
from compressnet.maths.compiled.filters import filtered
from compressnet.maths.compiled.lanes import load, store, total
from compressnet.maths.compiled.straight import Memory, Value, straight, transpose

array = arrays()


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
def _through(y, kept, x, first, spatial, spectral, routes, tables, alone):  # type: ignore[no-untyped-def]
    """Vectors from ``first`` on through all filters: what each gives is kept where there are as many rows."""
    slots, order, between = routes
    none, columns, width = np.empty(0, x.dtype), x.shape[1], slots.size
    for f in range(len(spectral)):
        own, factors = y[f % len(y)], _factors(spatial, columns, width, f)
        if f == 0:
            _enter(own, x, first, factors, slots, alone)
        else:
            _move(own, y[(f - 1) % len(y)], between[f - 1], factors, order, alone)
        filtered(own, tables, spectral[f], kept[f % len(kept)], none, alone)


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
        _through(work, kept, x, first, spatial, spectral, (slots, order, between), tables, alone)
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
        _through(y, kept, x, first, spatial, spectral, routes, tables, alone)
        _enter(above, upstream, first, ones, slots, alone)
        for f in range(depth - 1, -1, -1):
            filtered(above, tables, spectral[f], kept[f], to_spectral[f], alone)
            if f:
                factors, sums = _factors(spatial, columns, width, f), _factors(to_spatial, columns, width, f)
                _move_back(below, sums, above, y[f - 1], between[f - 1], factors, order, alone)
                above, below = below, above
        _leave(to_x, first, above, zeros, slots, alone)
        for s in range(first, first + unit):
            for c in range(columns):
                to_spatial[c] += to_x[s, c] * x[s, c]
                to_x[s, c] *= spatial[c]
