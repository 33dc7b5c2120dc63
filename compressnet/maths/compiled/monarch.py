"""Vectors through Monarch's two factors: see :mod:`compressnet.maths.monarch`.

    out[s, o, j] = Σ_k left[o, j, k] · Σ_i right[j, k, i] · x[s, k, i] + bias[o, j]

Neighbouring j are the lanes of registers, so that vectors of a batch are read and written as they stand, and only the
factors change places, once a call. Lanes are taken in groups of sixteen j, g for short; the last group ends with the
last j, and has some in common with the one before where sixteen does not divide b.

| array | shape | is |
|---|---|---|
| ``rights`` | (k, i, g, lane) | right |
| ``lefts`` | (g, o, k, lane) | left |
| ``middle`` | (g, s, k, lane) | Σ_i, of some vectors s and some k, or its gradient |
| ``above`` | (s, o, lane) | the gradient of the result, of one g and some vectors s |

From vector to vector of the last two there are ``pitch`` and ``high`` numbers, some more than are used: rows that are
powers of two apart fall into few sets of a cache.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressnet.maths.compiled import LANES, arrays, inlined, loop
from compressnet.maths.compiled.lanes import load, store
from compressnet.maths.compiled.straight import transpose
from compressnet.maths.compiled.tiles import add_lanes, add_scaled, four, get, moved, none, put, row_of

Reals = NDArray[Any]
Sizes = tuple[int, int, int, int, int]
"""b, how many i, how many o, ``pitch`` and ``high``."""

array = arrays()

FEW = 4
"""How many k of ``rights`` are made at a time, and stay in a cache while a batch goes through."""

NEAR = 32
"""Vectors whose numbers of one g stay in the second-level cache."""


@loop
def turn(addresses: tuple[int, ...], first: int, last: int, back: bool, sizes: Sizes, like: np.floating[Any]) -> None:
    """Factors into the order in which the other loops read them, for some k and o.

    Args:
        addresses: of ``rights``, ``lefts``, right and left; 0 for both of a factor that is to be left out.
        first: of k and, behind the last of them, o.
        last: behind those.
        back: the other way round.
        sizes: see above.
        like: of the type of all numbers.
    """
    b, _, outs, _, _ = sizes
    groups, rights, lefts, right, left = _arrays(addresses, sizes, like)
    for g in range(groups):
        if addresses[0]:
            _turn_right(rights, right, g, first, min(last, b), 0, back, sizes)
        if addresses[1]:
            _turn_left(lefts, left, g, max(first - b, 0), last - b, g * outs, back, sizes)


@inlined
def _turn_right(rights, right, g, first, last, before, back, sizes):  # type: ignore[no-untyped-def]
    """Of one g and some k, where ``rights`` begins with k = ``before``: sixteen streams are read."""
    b, ins, _, _, _ = sizes
    j, groups = min(g * LANES, b - LANES), (b + LANES - 1) // LANES
    for k in range(first, last):
        for i in range(0, ins, LANES):
            i = min(i, ins - LANES)
            at = (((k - before) * ins + i) * groups + g) * LANES
            _turn(rights, at, groups * LANES, right, (j * b + k) * ins + i, b * ins, back)


@inlined
def _turn_left(lefts, left, g, first, last, row, back, sizes):  # type: ignore[no-untyped-def]
    """Of one g and some o, into rows of ``lefts`` from a given one on."""
    b, _, _, _, _ = sizes
    j = min(g * LANES, b - LANES)
    for o in range(first, last):
        for k in range(0, b, LANES):
            k = min(k, b - LANES)
            _turn(lefts, ((row + o) * b + k) * LANES, LANES, left, (o * b + j) * b + k, b, back)


@inlined
def _turn(table, at, rise, factor, start, step, back):  # type: ignore[no-untyped-def]
    if back:
        transpose(factor, start, step, table, at, rise)
    else:
        transpose(table, at, rise, factor, start, step)


@inlined
def _arrays(addresses, sizes, like):  # type: ignore[no-untyped-def]
    """How many g there are, and what the first four addresses are of, of as many numbers as factors have or more."""
    b, ins, outs, _, _ = sizes
    groups = (b + LANES - 1) // LANES
    rights, lefts = b * ins * groups * LANES, outs * b * groups * LANES
    one, two = array(addresses[0], (rights,), like), array(addresses[1], (lefts,), like)
    return groups, one, two, array(addresses[2], (rights,), like), array(addresses[3], (lefts,), like)


@loop
def through(
    addresses: tuple[int, ...], first: int, last: int, chunk: int, sizes: Sizes, like: np.floating[Any]
) -> None:
    """Some vectors through both factors.

    Args:
        addresses: of right, left, x, the result, the bias, and room for ``middle``, for ``rights`` of a few k and for
            ``lefts`` of one g.
        first: of the vectors s.
        last: behind those.
        chunk: how many vectors there is room for.
        sizes: see above.
        like: of the type of all numbers.
    """
    b, ins, outs, pitch, _ = sizes
    groups, right, left, x, out = _arrays(addresses, sizes, like)
    bias, middle = array(addresses[4], (outs * b,), like), array(addresses[5], (groups * chunk * pitch,), like)
    rights = array(addresses[6], (FEW * ins * groups * LANES,), like)
    lefts = array(addresses[7], (outs * b * LANES,), like)
    for start in range(first, last, chunk):
        count = min(chunk, last - start)
        for k in range(0, b, FEW):
            end = min(k + FEW, b)
            for g in range(groups):
                _turn_right(rights, right, g, k, end, k, False, sizes)
            _to_middle(middle, x, rights, start, count, k, end, k, 0, sizes)
        for g in range(groups):
            j = min(g * LANES, b - LANES)
            _turn_left(lefts, left, g, 0, outs, 0, False, sizes)
            for near in range(0, count, NEAR):
                for o in range(0, outs, 4):
                    columns, places = four(o, outs, b * LANES), moved(four(o, outs, b), j)
                    added = row_of(bias, places, 0)
                    for s in range(near, min(near + NEAR, count), 4):
                        rows = moved(four(s, count, pitch), g * count * pitch)
                        tile = added, added, added, added
                        tile = add_lanes(tile, middle, rows, LANES, lefts, columns, LANES, b)
                        put(out, moved(four(s, count, outs * b), start * outs * b), places, tile)


@loop
def backward(
    addresses: tuple[int, ...],
    first: int,
    last: int,
    batch: int,
    chunk: int,
    sizes: Sizes,
    like: np.floating[Any],
) -> None:
    """Gradients of :func:`through` that belong to some k: they share nothing with those of others.

    Args:
        addresses: of ``rights``, ``lefts``, x, the gradient of the result, right, room for ``middle`` and ``above``,
            and of gradients: of x, overwritten, of ``rights`` and of ``lefts``, added to; 0 for one that is not wanted.
        first: of k.
        last: behind those.
        batch: how many vectors there are.
        chunk: how many there is room for.
        sizes: see above.
        like: of the type of all numbers.
    """
    b, ins, _, pitch, high = sizes
    groups, rights, lefts, x, upstream = _arrays(addresses, sizes, like)
    right, middle = array(addresses[4], (b * b * ins,), like), array(addresses[5], (groups * chunk * pitch,), like)
    above, to_x = array(addresses[6], (NEAR * high,), like), array(addresses[7], (batch * b * ins,), like)
    to_rights, to_lefts = array(addresses[8], (rights.size,), like), array(addresses[9], (lefts.size,), like)
    for start in range(0, batch, chunk):
        count = min(chunk, batch - start)
        if addresses[9]:
            _to_middle(middle, x, rights, start, count, first, last, 0, first, sizes)
        for g in range(groups):
            for near in range(0, count, NEAR):
                some, own = min(NEAR, count - near), (g * count + near) * pitch
                _to_above(above, upstream, start + near, some, min(g * LANES, b - LANES), sizes)
                for k in range(first, last, 4):
                    ks, columns = four(k, last, LANES), moved(four(k - first, last - first, LANES), own)
                    if addresses[9]:
                        _to_lefts(to_lefts, above, middle, g, some, ks, columns, sizes)
                    _to_between(middle, above, lefts, g, some, ks, columns, sizes)
        for k in range(first, last):
            if addresses[8]:
                _to_rights(to_rights, x, middle, start, count, k, first, sizes)
            if addresses[7]:
                _to_x(to_x, middle, right, start, count, k, first, sizes)


@inlined
def _to_middle(middle, x, rights, start, count, first, last, before, front, sizes):  # type: ignore[no-untyped-def]
    """For some k, where ``rights`` begins with k = ``before`` and ``middle`` with ``front``."""
    b, ins, _, pitch, _ = sizes
    groups = (b + LANES - 1) // LANES
    for k in range(first, last):
        for g in range(0, groups, 4):
            columns = moved(four(g, groups, LANES), (k - before) * ins * groups * LANES)
            places = moved(four(g, groups, count * pitch), (k - front) * LANES)
            for s in range(0, count, 4):
                rows = moved(four(s, count, b * ins), (start * b + k) * ins)
                tile = add_scaled(none(middle), x, rows, 1, rights, columns, groups * LANES, ins)
                put(middle, four(s, count, pitch), places, tile)


@inlined
def _to_above(above, upstream, start, count, j, sizes):  # type: ignore[no-untyped-def]
    b, _, outs, _, high = sizes
    for s in range(count):
        for o in range(outs):
            store(above, s * high + o * LANES, load(upstream, ((start + s) * outs + o) * b + j))


@inlined
def _to_lefts(to_lefts, above, middle, g, count, ks, columns, sizes):  # type: ignore[no-untyped-def]
    b, _, outs, pitch, high = sizes
    for o in range(0, outs, 4):
        places = moved(four(o, outs, b * LANES), g * outs * b * LANES)
        tile = get(to_lefts, places, ks)
        tile = add_lanes(tile, above, four(o, outs, LANES), high, middle, columns, pitch, count)
        put(to_lefts, places, ks, tile)


@inlined
def _to_between(middle, above, lefts, g, count, ks, columns, sizes):  # type: ignore[no-untyped-def]
    """The gradient of ``middle`` in its place."""
    b, _, outs, pitch, high = sizes
    own = moved(ks, g * outs * b * LANES)
    for s in range(0, count, 4):
        tile = add_lanes(none(above), above, four(s, count, high), LANES, lefts, own, b * LANES, outs)
        put(middle, four(s, count, pitch), columns, tile)


@inlined
def _to_rights(to_rights, x, middle, start, count, k, first, sizes):  # type: ignore[no-untyped-def]
    b, ins, _, pitch, _ = sizes
    groups = (b + LANES - 1) // LANES
    for near in range(0, count, NEAR):
        some, own = min(NEAR, count - near), near * pitch + (k - first) * LANES
        for g in range(0, groups, 4):
            lanes, columns = four(g, groups, LANES), moved(four(g, groups, count * pitch), own)
            for i in range(0, ins, 4):
                places = moved(four(i, ins, groups * LANES), k * ins * groups * LANES)
                rows = moved(four(i, ins, 1), ((start + near) * b + k) * ins)
                tile = get(to_rights, places, lanes)
                tile = add_scaled(tile, x, rows, b * ins, middle, columns, pitch, some)
                put(to_rights, places, lanes, tile)


@inlined
def _to_x(to_x, middle, right, start, count, k, first, sizes):  # type: ignore[no-untyped-def]
    """Here neighbouring i are lanes."""
    b, ins, _, pitch, _ = sizes
    for i in range(0, ins, 4 * LANES):
        end = ins - LANES
        places = min(i, end), min(i + LANES, end), min(i + 2 * LANES, end), min(i + 3 * LANES, end)
        for s in range(0, count, 4):
            tile = none(middle)
            for g in range((b + LANES - 1) // LANES):
                j = min(g * LANES, b - LANES)
                known = g * LANES - j  # lanes that the last group has in common with the one before
                rows = moved(four(s, count, pitch), g * count * pitch + (k - first) * LANES + known)
                columns = moved(places, ((j + known) * b + k) * ins)
                tile = add_scaled(tile, middle, rows, 1, right, columns, b * ins, LANES - known)
            put(to_x, moved(four(s, count, b * ins), (start * b + k) * ins), places, tile)
