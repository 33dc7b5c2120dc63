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
def _round(value, keys, r, mask, shift):  # type: ignore[no-untyped-def]
    value = uint32(value * keys[2 * r] + keys[2 * r + 1]) & mask
    return uint32(value ^ (value >> shift))


@inlined
def _walk(value, keys, mask, shift):  # type: ignore[no-untyped-def]
    """One step along the cycles of the eight rounds; a loop over them would not be vectorised."""
    value = _round(value, keys, 0, mask, shift)
    value = _round(value, keys, 1, mask, shift)
    value = _round(value, keys, 2, mask, shift)
    value = _round(value, keys, 3, mask, shift)
    value = _round(value, keys, 4, mask, shift)
    value = _round(value, keys, 5, mask, shift)
    value = _round(value, keys, 6, mask, shift)
    return _round(value, keys, 7, mask, shift)


@inlined
def _signed(bucket, position, key):  # type: ignore[no-untyped-def]
    return uint32((bucket << uint32(1)) | (_mix(position, key) >> uint32(31)))


@loop
def balanced(
    out: UInts, start: int, positions: int, keys: Keys, first: int, owned: int, before: int, signs: Keys
) -> None:
    """See :func:`compressnet.maths.indices.balanced`."""
    bits = 1
    while 1 << bits < positions:
        bits += 1
    mask, shift, divisor = uint32((1 << bits) - 1), uint32((bits + 2) // 3), uint32(owned)
    reciprocal = (uint64(1) << _SHIFT) // uint64(owned) + uint64(1)
    walking = np.empty(_CHUNK, np.uint32)
    for begin in range(0, out.size, _CHUNK):
        part, place = out[begin : begin + _CHUNK], uint32(start + begin)
        if owned == 1:
            part[:] = uint32(0)
        else:
            for i in range(part.size):
                part[i] = _walk(uint32(place + uint32(i)), keys, mask, shift)
            count = 0
            for i in range(part.size):
                walking[count] = i
                count += part[i] >= positions
            while count:
                left = 0
                for j in range(count):
                    i = walking[j]
                    part[i] = _walk(part[i], keys, mask, shift)
                    walking[left] = i
                    left += part[i] >= positions
                count = left
        for i in range(part.size):
            quotient = uint32((uint64(part[i]) * reciprocal) >> _SHIFT)
            bucket = uint32(part[i] - quotient * divisor + uint32(first))
            part[i] = _signed(bucket, uint32(uint32(before) + place + uint32(i)), signs)


@loop
def independent(out: UInts, start: int, buckets: int, keys: Keys, signs: Keys) -> None:
    """See :func:`compressnet.maths.indices.independent`."""
    for i in range(out.size):
        position = uint32(uint32(start) + uint32(i))
        bucket = uint32((uint64(_mix(position, keys)) * uint64(buckets)) >> uint64(32))
        out[i] = _signed(bucket, position, signs)
