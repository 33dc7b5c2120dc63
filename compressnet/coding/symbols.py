"""A run of symbols as a record, which says how, and a stream, which has them."""

from typing import Literal

import numpy as np

from compressnet.coding import huffman
from compressnet.coding.entropy import decode_range, encode_range
from compressnet.coding.models import MOST, Counted, Flat, Gauss, Laplace, Model, fitting
from compressnet.coding.records import DamagedError, Reader, Writer

Coder = Literal["range", "huffman"]
HUFFMAN, RAW = 4, 5
"""Beside the shapes of models: what the first byte of a record may say."""


def encode(symbols: np.ndarray, record: Writer, coder: Coder = "range") -> bytes:
    """The stream of symbols; how to read it is added to a record.

    Args:
        symbols: whole numbers of shape (n,), at most 2¹⁶ − 1 apart.
        record: takes the shape of the model, its lowest symbol, its count less 1, and what the shape needs.
        coder: range, or huffman.
    """
    lowest = int(symbols.min()) if len(symbols) else 0
    places = (symbols - lowest).astype(np.int32)
    counts = np.bincount(places, minlength=1)
    if len(counts) > MOST:
        raise ValueError(f"{len(counts):,} symbols are more than {MOST:,}")
    if coder == "huffman" and len(counts) > 1:
        lengths = huffman.code_lengths(counts)
        _write_head(record, HUFFMAN, lowest, len(counts))
        Counted(0, len(lengths), tuple(lengths)).write(record)
        return huffman.encode(places, lengths)
    model = fitting(lowest, counts)
    if len(counts) > 128 and lowest >= 0 and lowest + len(counts) <= 256 and _is_raw(model, counts):
        record.byte(RAW)
        return symbols.astype(np.uint8).tobytes()
    _write_head(record, model.shape, lowest, model.count)
    model.write(record)
    return encode_range(places, model.weights())


def _write_head(record: Writer, shape: int, lowest: int, count: int) -> None:
    record.byte(shape)
    record.whole(lowest)
    record.count(count - 1)


def _is_raw(model: Model, counts: np.ndarray) -> bool:
    """Whether a byte a symbol is as good, to a thousandth: it is much faster."""
    return model.nbits(counts) > 0.999 * 8 * counts.sum()


def decode(record: Reader, stream: bytes, count: int) -> np.ndarray:
    """The symbols of a stream: int32 of shape (count,).

    Raises:
        DamagedError: record or stream are not what :func:`encode` makes.
    """
    shape = record.byte()
    if shape == RAW:
        if len(stream) != count:
            raise DamagedError
        return np.frombuffer(stream, dtype=np.uint8).astype(np.int32)
    lowest, kinds = record.whole(), record.count() + 1
    if kinds > MOST or abs(lowest) > MOST:
        raise DamagedError
    if shape == HUFFMAN:
        return huffman.decode(stream, Counted.read(lowest, kinds, record).levels, count) + np.int32(lowest)
    model = _read_model(shape, lowest, kinds, record)
    return decode_range(stream, model.weights(), count) + np.int32(lowest)


def _read_model(shape: int, lowest: int, kinds: int, record: Reader) -> Model:
    if shape == Flat.shape:
        return Flat(lowest, kinds)
    if shape == Laplace.shape:
        return Laplace.read(lowest, kinds, record)
    if shape == Gauss.shape:
        return Gauss.read(lowest, kinds, record)
    if shape == Counted.shape:
        return Counted.read(lowest, kinds, record)
    raise DamagedError
