"""A filter between two cosine transforms, of sixteen vectors side by side or of one: ``C⁻¹ D C``.

A transform of 2 n real numbers is one of n complex numbers, whose frequencies k and n − k give four coefficients. Those
of a vector alone are computed sixteen at a time where its rows allow it.
"""

from collections.abc import Callable

import numpy as np

from compressnet.maths.compiled import LANES, loop
from compressnet.maths.compiled.fourier import Complex, back, back_alone, forth, forth_alone
from compressnet.maths.compiled.straight import Memory, Value, straight

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
def filtered(x, tables, gains, kept, sums, alone):  # type: ignore[no-untyped-def]
    """``C⁻¹ D C`` in place, which is its own adjoint.

    Args:
        gains: D.
        kept: for the coefficients that D multiplies, where it has room for them.
        sums: where it has room, products of such coefficients with those that were kept are added to it.
    """
    noting = SUMMING if sums.size else KEEPING if kept.size else PLAIN
    addresses, turns, twiddles, phases, by_rows = tables
    n, (own, columns, rows) = addresses.size, twiddles
    if alone:
        forth_alone(x, n, (columns, rows), phases)
    else:
        forth(x, n, own)
    if alone and noting == PLAIN:
        _middle_alone(x, (addresses, turns), by_rows, gains)
    else:
        _middle(x, (addresses, turns), gains, kept, sums, noting, alone)
    if alone:
        back_alone(x, n, (columns, rows), phases)
    else:
        back(x, n, own)
