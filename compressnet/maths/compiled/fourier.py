"""Fourier transforms of sixteen vectors side by side, or of one.

Of each complex number sixteen real parts stand in a row, and sixteen imaginary parts behind them. A transform works in
place, by passes over eights of numbers, and leaves frequencies in an order of its own, where the way back begins.
"""

from collections.abc import Callable
from math import sqrt
from typing import Any, NamedTuple

from compressnet.maths.compiled import LANES, loop
from compressnet.maths.compiled.straight import Memory, Value, steps, straight, transposed

BOTH = 2 * LANES
CACHED = 256
"""Complex numbers of sixteen vectors that the first-level cache holds."""


class Complex(NamedTuple):
    """While code is written."""

    real: Value
    imaginary: Value

    def __add__(self, other: Any) -> "Complex":
        return Complex(self.real + other.real, self.imaginary + other.imaginary)

    def __sub__(self, other: Any) -> "Complex":
        return Complex(self.real - other.real, self.imaginary - other.imaginary)

    def __mul__(self, other: Any) -> "Complex":
        """With a complex number."""
        real = self.real * other.real - self.imaginary * other.imaginary
        return Complex(real, self.real * other.imaginary + self.imaginary * other.real)

    def turned(self) -> "Complex":
        """Times −√−1."""
        return Complex(self.imaginary, -self.real)

    def conjugate(self) -> "Complex":
        """With the imaginary part's other sign."""
        return Complex(self.real, -self.imaginary)

    def swapped(self) -> "Complex":
        """Parts exchanged: what goes forth with these goes back with those."""
        return Complex(self.imaginary, self.real)


Numbers = list[Complex]


def transform(x: Numbers) -> Numbers:
    """The discrete Fourier transform of a power of two up to eight numbers."""
    if len(x) == 1:
        return x
    pairs = list(zip(x[: len(x) // 2], x[len(x) // 2 :], strict=True))
    even = transform([a + b for a, b in pairs])
    odd = transform([_turn(a - b, 8 * k // len(x)) for k, (a, b) in enumerate(pairs)])
    return [each for pair in zip(even, odd, strict=True) for each in pair]


def _turn(x: Complex, eighths: int) -> Complex:
    """Clockwise by so many eighths of a whole turn, at most three."""
    if eighths % 2:
        x = x + x.turned()
        x = Complex(x.real * sqrt(0.5), x.imaginary * sqrt(0.5))
    return x.turned() if eighths >= 2 else x


def _read(x: Memory, place: Value) -> Complex:
    return Complex(x.lanes(place), x.lanes(place + LANES))


def _write(x: Memory, places: list[Value], values: Numbers) -> None:
    for place, value in zip(places, values, strict=True):
        x[place], x[place + LANES] = value


def _turned(values: Numbers, table: Memory, row: Value) -> Numbers:
    """All but the first times a row's twiddles."""
    places = steps(row * (2 * len(values) - 2), 2, len(values) - 1)
    twiddles = [Complex(table[place], table[place + 1]) for place in places]
    return [values[0], *(value * twiddle for value, twiddle in zip(values[1:], twiddles, strict=True))]


@straight
def _eight_forth(x: Memory, place: Value, distance: Value, twiddles: Memory, row: Value) -> None:
    places = steps(place, distance, 8)
    _write(x, places, _turned(transform([_read(x, each) for each in places]), twiddles, row))


@straight
def _eight_back(x: Memory, place: Value, distance: Value, twiddles: Memory, row: Value) -> None:
    places = steps(place, distance, 8)
    given = [_read(x, each).swapped() for each in places]
    _write(x, places, [each.swapped() for each in transform(_turned(given, twiddles, row))])


def _few(count: int, back: bool) -> Callable[[Any, Any], None]:
    """The last pass forth, the first back: over two numbers or four."""

    def few(x: Memory, place: Value) -> None:
        places = steps(place, BOTH, count)
        given = [_read(x, each) for each in places]
        made = [each.swapped() for each in transform([each.swapped() for each in given])] if back else transform(given)
        _write(x, places, made)

    return straight(few)


_two, _four, _two_back, _four_back = _few(2, False), _few(4, False), _few(2, True), _few(4, True)


@loop
def _pass_forth(x, start, count, size, n, twiddles):  # type: ignore[no-untyped-def]
    """From a place on, over ``count`` complex numbers in blocks of ``size``, of n that are transformed."""
    row = (n - size) // 7
    for place in range(start, start + count * BOTH, size * BOTH):
        if size >= 8:
            for j in range(size // 8):
                _eight_forth(x, place + j * BOTH, size // 8 * BOTH, twiddles, row + j)
        elif size == 4:
            _four(x, place)
        else:
            _two(x, place)


@loop
def _pass_back(x, start, count, size, n, twiddles):  # type: ignore[no-untyped-def]
    row = (n - size) // 7
    for place in range(start, start + count * BOTH, size * BOTH):
        if size >= 8:
            for j in range(size // 8):
                _eight_back(x, place + j * BOTH, size // 8 * BOTH, twiddles, row + j)
        elif size == 4:
            _four_back(x, place)
        else:
            _two_back(x, place)


@loop
def forth(x, n, twiddles):  # type: ignore[no-untyped-def]
    """The transforms of n complex numbers.

    A block that the first-level cache holds goes through all of its passes before the next.

    Args:
        x: shape (n, 2, 16), flat; more may stand behind.
        n: a power of two from 2 on.
        twiddles: of :func:`compressnet.maths.fourier.twiddles`.
    """
    block = n
    while block > CACHED:
        for first in range(0, n, block):
            _pass_forth(x, first * BOTH, block, block, n, twiddles)
        block //= 8
    for first in range(0, n, block):
        size = block
        while size > 1:
            _pass_forth(x, first * BOTH, block, size, n, twiddles)
            size //= 8


@loop
def back(x, n, twiddles):  # type: ignore[no-untyped-def]
    """The way back from :func:`forth`, times n."""
    block, least = n, n
    while block > CACHED:
        block //= 8
    while least > 8:
        least //= 8
    for first in range(0, n, block):
        size = 8 if least == 1 else least
        while size <= block:
            _pass_back(x, first * BOTH, block, size, n, twiddles)
            size *= 8
    while block < n:
        block *= 8
        for first in range(0, n, block):
            _pass_back(x, first * BOTH, block, block, n, twiddles)


@straight
def _across(x: Memory, place: Value, phases: Memory, row: Value) -> None:
    """Sixteen rows times their phases, and transposed."""
    places, rows = steps(place, BOTH, LANES), steps(row * BOTH, BOTH, LANES)
    given = [_read(x, each) * _read(phases, own) for each, own in zip(places, rows, strict=True)]
    real, imaginary = transposed([each.real for each in given]), transposed([each.imaginary for each in given])
    _write(x, places, [Complex(*both) for both in zip(real, imaginary, strict=True)])


@straight
def _across_back(x: Memory, place: Value, phases: Memory, row: Value) -> None:
    places, rows = steps(place, BOTH, LANES), steps(row * BOTH, BOTH, LANES)
    given = [_read(x, each) for each in places]
    real, imaginary = transposed([each.real for each in given]), transposed([each.imaginary for each in given])
    both = [Complex(*each) for each in zip(real, imaginary, strict=True)]
    _write(x, places, [each * _read(phases, own).conjugate() for each, own in zip(both, rows, strict=True)])


@loop
def forth_alone(x, n, twiddles, phases):  # type: ignore[no-untyped-def]
    """The transform of one vector of n complex numbers, of which every sixteenth stands in a column.

    Args:
        x: shape (n / 16, 2, 16), flat.
        n: a power of two from 256 on.
        twiddles: for n / 16 numbers, and for 16.
        phases: by which a column's frequencies turn, shape (n / 16, 2, 16), flat.
    """
    columns, rows = twiddles
    lanes = min(n, LANES)  # a variable, as what is called with a constant is compiled anew
    forth(x, n // LANES, columns)
    for first in range(0, n // LANES, LANES):
        _across(x, first * BOTH, phases, first)
        forth(x[first * BOTH :], lanes, rows)


@loop
def back_alone(x, n, twiddles, phases):  # type: ignore[no-untyped-def]
    """The way back from :func:`forth_alone`, times n."""
    (columns, rows), lanes = twiddles, min(n, LANES)
    for first in range(0, n // LANES, LANES):
        back(x[first * BOTH :], lanes, rows)
        _across_back(x, first * BOTH, phases, first)
    back(x, n // LANES, columns)
