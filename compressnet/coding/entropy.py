"""Symbols as bits: a range coder for files, Huffman codes for comparison.

The range coder is constriction's (Bamler 2022, https://bamler-lab.github.io/constriction/), with words of 32 bits, a
state of 64 and weights that sum to 2²⁴. Weights are given to it such that its own scaling is exact, so they are the
same whole numbers everywhere.
"""

import constriction
import numpy as np

from compressnet.coding.records import DamagedError

_SHORT = 1 << 14  # bytes; of longer streams the end is not worth looking at


def encode_range(symbols: np.ndarray, weights: np.ndarray) -> bytes:
    """The stream of symbols.

    Args:
        symbols: int32 of shape (n,), each an index of weights.
        weights: int64, each at least 1, of sum 2²⁴.
    """
    if len(weights) == 1 or not len(symbols):
        return b""
    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(symbols, _model(weights))
    data = encoder.get_compressed().astype(">u4").tobytes()
    return _shortened(data, symbols, weights) if len(data) <= _SHORT else data


def _shortened(data: bytes, symbols: np.ndarray, weights: np.ndarray) -> bytes:
    """The fewest bytes that decode to the same: what is missing at the end is read as zeros."""
    for length in range(max(0, len(data) - 8), len(data)):
        for each in (data[:length], _above(data[:length])):
            if _decodes(each, symbols, weights):
                return each
    return data


def _decodes(data: bytes, symbols: np.ndarray, weights: np.ndarray) -> bool:
    try:
        return np.array_equal(decode_range(data, weights, len(symbols)), symbols)
    except DamagedError:
        return False


def _above(data: bytes) -> bytes:
    """The next number of as many bytes; after the last comes 0."""
    return ((int.from_bytes(data) + 1) % (1 << 8 * len(data))).to_bytes(len(data)) if data else data


def decode_range(data: bytes, weights: np.ndarray, count: int) -> np.ndarray:
    """The symbols of a stream: int32 of shape (count,).

    Raises:
        DamagedError: it is none of such weights.
    """
    if len(weights) == 1 or not count:
        return np.zeros(count, dtype=np.int32)
    padded = data + bytes(-len(data) % 4 + 8)
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, dtype=">u4").astype(np.uint32))
    try:
        return np.asarray(decoder.decode(_model(weights), count), dtype=np.int32)
    except AssertionError:
        raise DamagedError from None


def _model(weights: np.ndarray) -> constriction.stream.model.Categorical:
    """With probabilities (w − 1) / (2²⁴ − n), which it scales by 2²⁴ − n and adds 1 to."""
    return constriction.stream.model.Categorical((weights - 1).astype(np.float64), perfect=False)
