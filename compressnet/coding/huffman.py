"""Canonical Huffman codes, for files as Deep Compression's, and to compare with.

Huffman: A Method for the Construction of Minimum-Redundancy Codes, Proc. IRE 1952; Han, Mao, Dally: Deep Compression,
ICLR 2016, section 4.
"""

import heapq
from collections.abc import Sequence

import numpy as np

from compressnet.coding.records import DamagedError

LONGEST = 16
"""Bits of a code at most."""
_CHUNK = 1 << 20  # bits looked at together


def code_lengths(counts: np.ndarray) -> list[int]:
    """Bits of each symbol's code, 0 for one that does not occur, 1 where only one does.

    Where a code would be longer than 16 bits, counts are halved until none is.

    Args:
        counts: of the symbols, at most 2¹⁶ of them.
    """
    counts = counts.copy()
    while True:
        lengths = _lengths(counts)
        if max(lengths) <= LONGEST:
            return lengths
        counts = (counts + 1) // 2


def _lengths(counts: np.ndarray) -> list[int]:
    present: list[tuple[int, int, tuple[int, ...]]] = [
        (int(counts[symbol]), symbol, (symbol,)) for symbol in np.flatnonzero(counts).tolist()
    ]
    lengths = [0] * len(counts)
    if len(present) == 1:
        lengths[present[0][1]] = 1
    heapq.heapify(present)
    while len(present) > 1:
        (one, first, these), (other, _, those) = heapq.heappop(present), heapq.heappop(present)
        for symbol in these + those:
            lengths[symbol] += 1
        heapq.heappush(present, (one + other, first, (*these, *those)))
    return lengths


def codes(lengths: Sequence[int]) -> np.ndarray:
    """The code of each symbol: by rising length, then by symbol, each the one before plus 1, shifted as it grows.

    Args:
        lengths: of the codes, 0 for a symbol without one.

    Raises:
        DamagedError: there are no codes of such lengths.

    >>> codes([2, 1, 0, 2]).tolist()
    [2, 0, 0, 3]
    """
    made, code, before = np.zeros(len(lengths), dtype=np.int64), 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length):
        code <<= length - before
        if length > LONGEST or code >= 1 << length:
            raise DamagedError
        made[symbol], before, code = code, length, code + 1
    return made


def encode(symbols: np.ndarray, lengths: Sequence[int]) -> bytes:
    """The codes of symbols one after the other, the highest bit of each and of each byte first."""
    each, wide = codes(lengths)[symbols], np.array(lengths)[symbols]
    ends = wide.cumsum()
    bits = np.zeros(int(ends[-1]) if len(ends) else 0, dtype=np.uint8)
    for place in range(LONGEST):
        there = wide > place
        bits[ends[there] - 1 - place] = each[there] >> place & 1
    return np.packbits(bits).tobytes()


def decode(data: bytes, lengths: Sequence[int], count: int) -> np.ndarray:
    """The symbols of codes: int32 of shape (count,).

    Raises:
        DamagedError: there are not so many.
    """
    symbol_at, length_at = _windows(lengths)
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
    padded = np.concatenate([bits, np.zeros(LONGEST, dtype=np.uint8)]).astype(np.int64)
    found: list[np.ndarray] = []
    place, missing = 0, count
    while missing and place < len(bits):
        stop = min(place + _CHUNK, len(bits))
        windows = np.zeros(stop - place, dtype=np.int64)
        for bit in range(LONGEST):
            windows = windows << 1 | padded[place + bit : stop + bit]
        starts: list[int] = []
        at, steps = 0, length_at[windows].tolist()
        while at < len(steps) and len(starts) < missing:
            if not steps[at]:
                raise DamagedError
            starts.append(at)
            at += steps[at]
        found.append(symbol_at[windows[starts]])
        place, missing = place + at, missing - len(starts)
    if missing or place > len(bits):
        raise DamagedError
    return np.concatenate(found).astype(np.int32) if found else np.zeros(0, dtype=np.int32)


def _windows(lengths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """For the next 16 bits, whatever they are: the symbol whose code they begin with, and its length."""
    symbol_at, length_at = np.zeros(1 << LONGEST, dtype=np.int64), np.zeros(1 << LONGEST, dtype=np.int64)
    for symbol, (code, length) in enumerate(zip(codes(lengths).tolist(), lengths, strict=True)):
        if length:
            start, stop = code << (LONGEST - length), (code + 1) << (LONGEST - length)
            symbol_at[start:stop], length_at[start:stop] = symbol, length
    return symbol_at, length_at
