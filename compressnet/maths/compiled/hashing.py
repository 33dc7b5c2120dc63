"""The specified hash, one position at a time: bit for bit what :mod:`compressnet.maths.hashing` says."""

import numpy as np
from numpy import uint32, uint64
from numpy.typing import NDArray

from compressnet.maths.compiled import inlined, loop

UInts = NDArray[np.uint32]
Keys = tuple[np.uint32, ...]

_CHUNK = 1 << 12  # positions between the loops over them
_SHIFT = uint64(44)  # of reciprocals: enough for values and divisors up to 2²⁰


@inlined
def _mix(word, key):  # type: ignore[no-untyped-def]
    word ^= key[0]
    word ^= word >> uint32(17)
    word = uint32(word * uint32(0xED5AD4BB) + key[1])
    word ^= word >> uint32(11)
    word = uint32(word * uint32(0xAC4C1B51))
    word ^= word >> uint32(15)
    word = uint32(word * uint32(0x31848BAB))
    return word ^ (word >> uint32(14))


@inlined
def _round(value, keys, r, mask, shift, up):  # type: ignore[no-untyped-def]
    """Of a value in the upper bits of a word, where what overflows is gone by itself."""
    value = uint32(value * keys[2 * r] + uint32(keys[2 * r + 1] << up))
    return uint32(value ^ (value >> shift & mask))


@inlined
def _walk(value, keys, mask, shift, up):  # type: ignore[no-untyped-def]
    """One step along the cycles of the eight rounds; a loop over them would not be vectorised."""
    up, shift = up & uint32(31), shift & uint32(31)  # masked, they stay shifts of 32 bits
    value = _round(uint32(value << up), keys, 0, mask, shift, up)
    value = _round(value, keys, 1, mask, shift, up)
    value = _round(value, keys, 2, mask, shift, up)
    value = _round(value, keys, 3, mask, shift, up)
    value = _round(value, keys, 4, mask, shift, up)
    value = _round(value, keys, 5, mask, shift, up)
    value = _round(value, keys, 6, mask, shift, up)
    return uint32(_round(value, keys, 7, mask, shift, up) >> up)


@inlined
def _signed(bucket, position, key):  # type: ignore[no-untyped-def]
    return uint32((bucket << uint32(1)) | (_mix(position, key) >> uint32(31)))


@loop
def _steps(values: UInts, first: np.uint32, keys: Keys, mask: np.uint32, shift: np.uint32, up: np.uint32) -> None:
    """From the first place and those behind it."""
    for i in range(values.size):
        values[i] = _walk(uint32(first + uint32(i)), keys, mask, shift, up)


@loop
def _step(values: UInts, keys: Keys, mask: np.uint32, shift: np.uint32, up: np.uint32) -> None:
    for i in range(values.size):
        values[i] = _walk(values[i], keys, mask, shift, up)


@loop
def _walk_on(
    part: UInts, positions: np.uint32, keys: Keys, mask: np.uint32, shift: np.uint32, up: np.uint32, outside: UInts
) -> None:
    """Those outside the tile, side by side, until none is."""
    places, values = outside[0], outside[1]
    count = 0
    for i in range(part.size):
        places[count], values[count] = i, part[i]
        count += part[i] >= positions
    while count:
        _step(values[:count], keys, mask, shift, up)
        left = 0
        for j in range(count):
            place, value = places[j], values[j]
            part[place] = value
            places[left], values[left] = place, value
            left += value >= positions
        count = left


@loop
def _finish(part: UInts, place: np.uint32, owned: np.uint32, first: np.uint32, signs: Keys) -> None:
    """From places in the tile to signed indices."""
    if owned & (owned - uint32(1)) == uint32(0):
        for i in range(part.size):
            part[i] = _signed(uint32((part[i] & (owned - uint32(1))) + first), uint32(place + uint32(i)), signs)
        return
    reciprocal = (uint64(1) << _SHIFT) // uint64(owned) + uint64(1)
    for i in range(part.size):
        quotient = uint32((uint64(part[i]) * reciprocal) >> _SHIFT)
        part[i] = _signed(uint32(part[i] - quotient * owned + first), uint32(place + uint32(i)), signs)


@loop
def balanced(
    out: UInts, start: int, positions: int, keys: Keys, first: int, owned: int, before: int, signs: Keys
) -> None:
    """See :func:`compressnet.maths.indices.balanced`. Each loop over a chunk is vectorised where it is by itself."""
    bits = 1
    while 1 << bits < positions:
        bits += 1
    up, shift = uint32(32 - bits), uint32((bits + 2) // 3)
    mask = uint32(((1 << bits) - 1) << (32 - bits))
    outside = np.empty((2, _CHUNK), np.uint32)
    for begin in range(0, out.size, _CHUNK):
        part = out[begin : begin + _CHUNK]
        if owned == 1:
            part[:] = uint32(0)
        else:
            _steps(part, uint32(start + begin), keys, mask, shift, up)
            if positions < 1 << bits:
                _walk_on(part, uint32(positions), keys, mask, shift, up, outside)
        _finish(part, uint32(before + start + begin), uint32(owned), uint32(first), signs)


@loop
def independent(out: UInts, start: int, buckets: int, keys: Keys, signs: Keys) -> None:
    """See :func:`compressnet.maths.indices.independent`."""
    for i in range(out.size):
        position = uint32(uint32(start) + uint32(i))
        bucket = uint32((uint64(_mix(position, keys)) * uint64(buckets)) >> uint64(32))
        out[i] = _signed(bucket, position, signs)
