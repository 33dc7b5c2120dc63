"""Tables of the Fourier transforms in :mod:`compressnet.maths.compiled.fourier`, in double precision."""

import numpy as np
from numpy.typing import NDArray

from compressnet.maths.compiled import LANES

Reals = NDArray[np.float64]
Ints = NDArray[np.int64]


def twiddles(n: int) -> Reals:
    """By what each pass over eights turns seven of them: of each size n, n/8, …, rows of real and imaginary parts."""
    sizes = [n >> power for power in range(0, n.bit_length(), 3) if n >> power >= 8]
    made = [turns(np.outer(np.arange(size // 8), np.arange(1, 8)) / size).reshape(-1, 14) for size in sizes]
    return np.concatenate([*made, np.zeros((0, 14))])


def turns(parts: Reals) -> Reals:
    """``exp(−2π√−1 parts)``: real and imaginary parts as a last dimension."""
    angle = 2 * np.pi * parts
    return np.stack((np.cos(angle), -np.sin(angle)), -1)


def places(n: int) -> Ints:
    """Where a transform leaves each frequency."""
    k, place = np.arange(n), np.zeros(n, np.int64)
    while n > 1:
        radix = min(n, 8)
        n //= radix
        place, k = place + k % radix * n, k // radix
    return place


def addresses(n: int) -> Ints:
    """Where the real part of each frequency stands: that of the first of sixteen vectors."""
    return 2 * LANES * places(n)


def addresses_alone(n: int) -> Ints:
    """Of a vector alone: frequency k + n/16 · l stands in column k, row l of its block of sixteen columns."""
    column, row = places(n // LANES)[np.arange(n) % (n // LANES)], places(LANES)[np.arange(n) // (n // LANES)]
    return 2 * LANES * (column // LANES * LANES + row) + column % LANES


def phases(n: int) -> Reals:
    """By which frequency k of column c turns, kc/n of a whole turn: shape (n/16, 2, 16), in a transform's order."""
    frequency = np.argsort(places(n // LANES))
    return turns(np.outer(frequency, np.arange(LANES)) / n).transpose(0, 2, 1)
