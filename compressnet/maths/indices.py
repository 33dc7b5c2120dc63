"""Which bucket each position of a weight reads, and with which sign, by the specified hash.

| letter | word |
|---|---|
| N | ``numel``, the number of positions |
| K | ``buckets``, the number of stored values |
"""

import sys
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain

import numpy as np
import torch

from compressnet.maths import compiled
from compressnet.maths.hashing import (
    CHUNK,
    Hashing,
    Purpose,
    UInts,
    count_,
    derive,
    hash_,
    modulo_,
    permute_,
    round_keys,
    tiles,
    word_keys,
)
from compressnet.maths.parallel import in_parts, parts

Keys = tuple[np.uint32, ...]

ALL = slice(None)
_COMPILED_FROM = 1 << 19  # positions, where numba is not imported yet


def bucket_indices(numel: int, buckets: int, seed: int, stream: int = 0, hashing: Hashing = "balanced") -> UInts:
    """The bucket of every position.

    Args:
        numel: positions N ≥ buckets.
        buckets: K ≥ 1.
        seed: of the layer.
        stream: a further key, such as a frequency band.
        hashing: ``balanced`` (a keyed permutation in tiles, modulo K: every bucket is read ⌊N/K⌋ or ⌈N/K⌉ times) or
            ``independent`` (the papers': each position hashed by itself, e^(−N/K) of the buckets unread).

    Returns:
        uint32 of shape (numel,), each below ``buckets``.
    """
    return _signed(numel, buckets, seed, stream, hashing) >> np.uint32(1)


def signed_indices(
    numel: int, buckets: int, seed: int, stream: int = 0, hashing: Hashing = "balanced", part: slice = ALL
) -> torch.Tensor:
    """The bucket and the sign of every position in one int32: ``2 · bucket + (1 if the sign is − else 0)``.

    Args:
        numel: as of :func:`bucket_indices`, with those that follow.
        buckets: K.
        seed: of the layer.
        stream: a further key.
        hashing: ``balanced`` or ``independent``.
        part: positions that are wanted; all by default.

    Returns:
        int32 of shape (numel,), or as many as are wanted.
    """
    return torch.from_numpy(_signed(numel, buckets, seed, stream, hashing, part).view(np.int32))


def _signed(numel: int, buckets: int, seed: int, stream: int, hashing: Hashing, wanted: slice = ALL) -> UInts:
    offset, end, _ = wanted.indices(numel)
    made, signs = np.empty(end - offset, np.uint32), _words(word_keys(seed, Purpose.SIGN, stream))
    in_balance, alone = balanced, independent
    if compiled.installed() and (len(made) >= _COMPILED_FROM or "numba" in sys.modules):
        from compressnet.maths.compiled.hashing import balanced as in_balance
        from compressnet.maths.compiled.hashing import independent as alone

    def work(_: int, part: slice) -> None:
        if hashing == "independent":
            keys = _words(word_keys(seed, Purpose.BUCKET, stream))
            alone(made[part], offset + part.start, buckets, keys, signs)
            return
        for tile, (before, positions, first, owned) in enumerate(tiles(numel, buckets)):
            start, stop = max(before, offset + part.start), min(before + positions, offset + part.stop)
            if start < stop:
                keys = _rounds(seed, stream, tile)
                out = made[start - offset : stop - offset]
                in_balance(out, start - before, positions, keys, first, owned, before, signs)

    in_parts(work, len(made), parts(len(made), torch.device("cpu")))
    return made


def _words(keys: Iterable[int]) -> Keys:
    return tuple(np.uint32(key) for key in keys)


@lru_cache(maxsize=1024)
def _rounds(seed: int, stream: int, tile: int) -> Keys:
    """Keys of a tile: where few positions are made at a time, they would take as long."""
    return _words(chain(*round_keys(derive(seed, stream, tile), Purpose.BUCKET, 0)))


def balanced(
    out: UInts, start: int, positions: int, keys: Keys, first: int, owned: int, before: int, signs: Keys
) -> None:
    """The signed indices of some positions of a tile: the reference of :mod:`compressnet.maths.compiled.hashing`.

    Args:
        out: one for each position; overwritten.
        start: the first one's place in the tile.
        positions: of the tile, up to 2²⁰ where it owns more than one bucket.
        keys: of the rounds, each to multiply by and to add.
        first: bucket of the tile.
        owned: buckets of the tile.
        before: positions before the tile.
        signs: the two keys of signs.
    """
    scratch, rounds = np.empty(min(CHUNK, out.size), np.uint32), list(zip(keys[::2], keys[1::2], strict=True))
    for place in range(0, out.size, CHUNK):
        part = out[place : place + CHUNK]
        permute_(part, start + place, positions, rounds, scratch)
        modulo_(part, owned, scratch)
        part += np.uint32(first)
    _sign_(out, before + start, signs)


def independent(out: UInts, start: int, buckets: int, keys: Keys, signs: Keys) -> None:
    """The signed indices of some positions, each hashed by itself: likewise a reference.

    Args:
        out: one for each position; overwritten.
        start: the first position.
        buckets: how many there are.
        keys: the two of buckets.
        signs: the two of signs.
    """
    scratch = np.empty(min(CHUNK, out.size), np.uint32)
    for place in range(0, out.size, CHUNK):
        part = out[place : place + CHUNK]
        count_(part, start + place)
        hash_(part, keys, scratch)
        part[:] = part.astype(np.uint64) * np.uint64(buckets) >> np.uint64(32)
    _sign_(out, start, signs)


def _sign_(buckets: UInts, start: int, keys: Keys) -> None:
    """From buckets to signed indices, in place."""
    signs, scratch = np.empty((2, min(CHUNK, buckets.size)), np.uint32)
    for place in range(0, buckets.size, CHUNK):
        part = buckets[place : place + CHUNK]
        sign = signs[: part.size]
        count_(sign, start + place)
        hash_(sign, keys, scratch)
        part <<= np.uint32(1)
        part |= np.right_shift(sign, np.uint32(31), out=sign)
