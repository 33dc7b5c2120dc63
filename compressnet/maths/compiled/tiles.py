"""Four rows of four vectors of :mod:`compressnet.maths.compiled.lanes` at a time: sums that stay in registers.

Each of sixteen sums is of products; a term takes eight reads for sixteen products. Where four places would reach beyond
an end, the last stands for them: what is written there several times is the same.
"""

from compressnet.maths.compiled import inlined
from compressnet.maths.compiled.lanes import load, store, zeros


@inlined
def four(first, end, step):  # type: ignore[no-untyped-def]
    """Places of four neighbours."""
    last = end - 1
    return first * step, min(first + 1, last) * step, min(first + 2, last) * step, min(first + 3, last) * step


@inlined
def moved(places, by):  # type: ignore[no-untyped-def]
    """Four places, each by so much further on."""
    a, b, c, d = places
    return a + by, b + by, c + by, d + by


@inlined
def none(x):  # type: ignore[no-untyped-def]
    """Sixteen sums of nothing, of the type of an array's numbers."""
    row = zeros(x), zeros(x), zeros(x), zeros(x)
    return row, row, row, row


@inlined
def row_of(x, columns, by):  # type: ignore[no-untyped-def]
    """Four vectors: those at places of x, each by so much further on."""
    a, b, c, d = columns
    return load(x, a + by), load(x, b + by), load(x, c + by), load(x, d + by)


@inlined
def get(x, rows, columns):  # type: ignore[no-untyped-def]
    """Sixteen vectors of x: at the sums of each row's place and each column's."""
    a, b, c, d = rows
    return row_of(x, columns, a), row_of(x, columns, b), row_of(x, columns, c), row_of(x, columns, d)


@inlined
def put(x, rows, columns, tile):  # type: ignore[no-untyped-def]
    """Sixteen vectors into x."""
    (a, b, c, d), (p, q, r, s) = rows, tile
    _put_row(x, columns, a, p)
    _put_row(x, columns, b, q)
    _put_row(x, columns, c, r)
    _put_row(x, columns, d, s)


@inlined
def _put_row(x, columns, by, row):  # type: ignore[no-untyped-def]
    (a, b, c, d), (p, q, r, s) = columns, row
    store(x, a + by, p)
    store(x, b + by, q)
    store(x, c + by, r)
    store(x, d + by, s)


@inlined
def _added(sums, row, factor):  # type: ignore[no-untyped-def]
    (a, b, c, d), (p, q, r, s) = sums, row
    return a + p * factor, b + q * factor, c + r * factor, d + s * factor


@inlined
def add_lanes(tile, y, rows, down, x, columns, along, count):  # type: ignore[no-untyped-def]
    """``tile[r][c] += Σ_n y[rows[r] + down · n] x[columns[c] + along · n]``, of sixteen lanes each."""
    (p, q, r, s), (a, b, c, d), here, there = tile, rows, 0, 0
    for _ in range(count):
        row = row_of(x, columns, there)
        p, q = _added(p, row, load(y, here + a)), _added(q, row, load(y, here + b))
        r, s = _added(r, row, load(y, here + c)), _added(s, row, load(y, here + d))
        here, there = here + down, there + along
    return p, q, r, s


@inlined
def add_scaled(tile, y, rows, down, x, columns, along, count):  # type: ignore[no-untyped-def]
    """The same, with single numbers of y."""
    (p, q, r, s), (a, b, c, d), here, there = tile, rows, 0, 0
    for _ in range(count):
        row = row_of(x, columns, there)
        p, q = _added(p, row, y[here + a]), _added(q, row, y[here + b])
        r, s = _added(r, row, y[here + c]), _added(s, row, y[here + d])
        here, there = here + down, there + along
    return p, q, r, s
