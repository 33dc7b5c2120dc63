"""The specified integer hash, and the permutations and tiles that assignments of buckets rest on.

Everything here is a pure function of integers: the same on every machine, device and library version, because files
store no index tables and re-make them from a seed. ``docs/format.md`` is the specification, with golden vectors.

The mixing function is Chris Wellons' ``triple32`` (https://nullprogram.com/blog/2018/07/31/, public domain) with a
second key word added between its rounds; of his ``lowbias32``, nearby positions share a bucket too often. The balanced
assignment is a keyed permutation of the positions of a tile, taken modulo the tile's number of buckets: every bucket is
read by ⌊N/K⌋ or ⌈N/K⌉ positions.

| letter | word |
|---|---|
| N | ``numel``, the number of positions |
| K | ``buckets``, the number of stored values |
| h(i, j) | bucket of a position |
| ξ(i, j) | sign of a position |
"""

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

Hashing = Literal["balanced", "independent"]
UInts = NDArray[np.uint32]
Word = int | np.uint32

TILE = 1 << 20
ROUNDS = 8  # with fewer, pairs of positions of small tiles are measurably dependent
_WORD = 0xFFFFFFFF
CHUNK = 1 << 16
"""Positions hashed at a time: the working set stays in the second-level cache."""
_STEPS = np.arange(CHUNK, dtype=np.uint32)


class Purpose(IntEnum):
    """What a hash is for; one seed gives unrelated numbers for each."""

    BUCKET = 1
    SIGN = 2
    PERMUTATION = 3
    INITIAL = 4
    ORDER = 5


def mix(word: int, key: tuple[int, int] = (0, 0)) -> int:
    """The 32-bit hash of one integer: the readable reference of :func:`hash_words`.

    >>> hex(mix(1))
    '0x42741d6'
    """
    word = (word ^ key[0]) & _WORD
    word ^= word >> 17
    word = (word * 0xED5AD4BB + key[1]) & _WORD
    word ^= word >> 11
    word = (word * 0xAC4C1B51) & _WORD
    word ^= word >> 15
    word = (word * 0x31848BAB) & _WORD
    return word ^ (word >> 14)


def derive(seed: int, *words: int) -> int:
    """Fold words into a seed, one :func:`mix` each; the order of the words matters."""
    state = mix(seed)
    for word in words:
        state = mix(word, (state, mix(state ^ 0x9E3779B9)))
    return state


def hash_words(words: UInts, seed: int, purpose: Purpose, stream: int = 0) -> UInts:
    """Hash every word, in place and in cache-sized chunks.

    Args:
        words: uint32 of any length; overwritten.
        seed: of the layer.
        purpose: what for.
        stream: a further key, such as a frequency band.

    Returns:
        ``words``.
    """
    keys = word_keys(seed, purpose, stream)
    scratch = np.empty(min(CHUNK, words.size), np.uint32)
    for start in range(0, words.size, CHUNK):
        hash_(words[start : start + CHUNK], keys, scratch)
    return words


def word_keys(seed: int, purpose: Purpose, stream: int) -> tuple[int, int]:
    """Of a hash of words."""
    return derive(seed, purpose, stream, 0), derive(seed, purpose, stream, 1)


def hash_(part: UInts, keys: Sequence[Word], scratch: UInts) -> None:
    """Hash words in place; the scratch is at least as long."""
    shifted = scratch[: part.size]
    part ^= np.uint32(keys[0])
    _xorshift(part, 17, shifted)
    part *= np.uint32(0xED5AD4BB)
    part += np.uint32(keys[1])
    _xorshift(part, 11, shifted)
    part *= np.uint32(0xAC4C1B51)
    _xorshift(part, 15, shifted)
    part *= np.uint32(0x31848BAB)
    _xorshift(part, 14, shifted)


def modulo_(part: UInts, divisor: int, scratch: UInts) -> None:
    """What is left of a division, in place."""
    whole = np.floor_divide(part, np.uint32(divisor), out=scratch[: part.size])
    whole *= np.uint32(divisor)
    part -= whole


def count_(part: UInts, start: int) -> None:
    """Fill with start, start + 1, …"""
    np.add(_STEPS[: part.size], np.uint32(start), out=part)


def _xorshift(part: UInts, bits: int, scratch: UInts) -> None:
    np.right_shift(part, np.uint32(bits), out=scratch)
    part ^= scratch


def permutation(numel: int, seed: int, purpose: Purpose = Purpose.PERMUTATION, stream: int = 0) -> UInts:
    """A keyed permutation of ``0 … numel − 1``, each entry computable on its own.

    Rounds of odd multiplication, addition and xorshift are bijections modulo 2^bits; a value outside the range walks
    on along its cycle until it is inside (cycle walking), which keeps the map a bijection.

    >>> sorted(permutation(5, seed=1).tolist())
    [0, 1, 2, 3, 4]
    """
    values, scratch = np.empty(numel, np.uint32), np.empty(min(CHUNK, numel), np.uint32)
    keys = round_keys(seed, purpose, stream)
    for start in range(0, numel, CHUNK):
        permute_(values[start : start + CHUNK], start, numel, keys, scratch)
    return values


def round_keys(seed: int, purpose: Purpose, stream: int) -> list[tuple[int, int]]:
    """Of a permutation: what each round multiplies by, and adds."""
    return [(derive(seed, purpose, stream, r, 0) | 1, derive(seed, purpose, stream, r, 1)) for r in range(ROUNDS)]


def permute_(part: UInts, start: int, numel: int, keys: Sequence[tuple[Word, Word]], scratch: UInts) -> None:
    """Fill with the permuted positions start, start + 1, … of ``numel``."""
    bits = max(1, (numel - 1).bit_length())
    count_(part, start)
    _walk(part, bits, keys, scratch)
    outside = np.flatnonzero(part >= numel)
    while outside.size:
        walking = part[outside]
        _walk(walking, bits, keys, scratch)
        part[outside] = walking
        outside = outside[walking >= numel]


def _walk(part: UInts, bits: int, keys: Sequence[tuple[Word, Word]], scratch: UInts) -> None:
    """One step along the cycles of the rounds' bijection modulo 2^bits, in place."""
    mask, shifted = np.uint32((1 << bits) - 1), scratch[: part.size]
    for multiply, add in keys:
        part *= np.uint32(multiply)
        part += np.uint32(add)
        part &= mask
        _xorshift(part, -(-bits // 3), shifted)


def tiles(numel: int, buckets: int) -> list[tuple[int, int, int, int]]:
    """How positions and buckets are cut into tiles: (first position, positions, first bucket, buckets) of each.

    Tile t of T owns the buckets ⌊K t / T⌋ up to ⌊K (t + 1) / T⌋, and bucket k the positions ⌊N k / K⌋ up to
    ⌊N (k + 1) / K⌋ (before they are permuted). T = ⌈K / max(1, ⌊2²⁰ K / N⌋)⌉, so that a tile has at most 2²⁰ positions,
    or one bucket if that alone has more.
    """
    most = max(1, TILE * buckets // numel)
    count = -(-buckets // most)
    edges = [buckets * t // count for t in range(count + 1)]
    starts = [numel * edge // buckets for edge in edges]
    return [(starts[t], starts[t + 1] - starts[t], edges[t], edges[t + 1] - edges[t]) for t in range(count)]


def uniform(numel: int, seed: int, purpose: Purpose = Purpose.INITIAL, stream: int = 0) -> torch.Tensor:
    """Specified uniform numbers in the open interval (0, 1), as float64 of shape (numel,)."""
    words = hash_words(np.arange(numel, dtype=np.uint32), seed, purpose, stream)
    return torch.from_numpy((words.astype(np.float64) + 0.5) * 2.0**-32)


def normal(numel: int, seed: int, purpose: Purpose = Purpose.INITIAL, stream: int = 0) -> torch.Tensor:
    """Specified standard normal numbers, by the inverse distribution function, as float64 of shape (numel,)."""
    return math.sqrt(2.0) * torch.erfinv(2.0 * uniform(numel, seed, purpose, stream) - 1.0)
