"""Symbols come back from their bits, and these are as few as their entropy."""

import bisect
from typing import get_args

import numpy as np
import pytest
import scipy.stats

from compressnet.coding import huffman, symbols
from compressnet.coding.entropy import decode_range, encode_range
from compressnet.coding.models import TOTAL, Counted, Flat, Gauss, Laplace, fitting
from compressnet.coding.records import DamagedError, Reader, Writer
from compressnet.coding.symbols import Coder


def drawn(kind: str, count: int, spread: float, seed: int = 0) -> np.ndarray:
    """Rounded draws: int32 of shape (count,)."""
    generator = np.random.default_rng(seed)
    return np.round(getattr(generator, kind)(0, spread, count)).astype(np.int32)


CASES = {
    "none": np.zeros(0, dtype=np.int32),
    "one": np.array([7], dtype=np.int32),
    "equal ones": np.full(1000, -3, dtype=np.int32),
    "two kinds": np.array([0, 5] * 300, dtype=np.int32),
    "few of many": drawn("normal", 20, 1000),
    "a short normal run": drawn("normal", 500, 2),
    "a long normal run": drawn("normal", 100_000, 4),
    "a sharp peak": drawn("laplace", 5000, 0.2),
    "a wide peak": drawn("laplace", 30_000, 40),
    "gaps": np.random.default_rng(1).geometric(0.08, 9000).astype(np.int32) - 1,
    "bytes": np.random.default_rng(2).integers(0, 256, 3000).astype(np.int32),
    "far from 0": drawn("normal", 2000, 3) + 900,
    "the widest": np.array([-32767, 32767, 0, 0], dtype=np.int32),
}


def entropy_nbits(values: np.ndarray) -> float:
    """Zero-order entropy of all values together."""
    return len(values) * float(scipy.stats.entropy(np.unique(values, return_counts=True)[1], base=2))


def coded(values: np.ndarray, coder: Coder) -> tuple[bytes, bytes]:
    record = Writer()
    stream = symbols.encode(values, record, coder)
    return bytes(record.data), stream


@pytest.mark.parametrize("coder", get_args(Coder))
@pytest.mark.parametrize("name", CASES)
def test_symbols_come_back(name: str, coder: Coder) -> None:
    record, stream = coded(CASES[name], coder)
    reader = Reader(record)
    assert np.array_equal(symbols.decode(reader, stream, len(CASES[name])), CASES[name])
    assert reader.place == len(record)


@pytest.mark.parametrize("name", CASES)
def test_records_and_streams_are_near_the_entropy(name: str) -> None:
    record, stream = coded(CASES[name], "range")
    assert len(record) + len(stream) <= 1.01 * entropy_nbits(CASES[name]) / 8 + 25


def decode_by_hand(data: bytes, weights: np.ndarray, count: int) -> list[int]:
    """The range decoder of ``docs/format.md``, in whole numbers of Python."""
    words = iter(int.from_bytes((data + bytes(16))[place : place + 4], "big") for place in range(0, len(data) + 8, 4))
    starts = [0, *np.cumsum(weights).tolist()]
    low, width, point = 0, 2**64 - 1, next(words) << 32 | next(words, 0)
    found = []
    for _ in range(count):
        unit = width >> 24
        symbol = bisect.bisect_right(starts, (point - low) % 2**64 // unit) - 1
        found.append(symbol)
        low, width = (low + unit * starts[symbol]) % 2**64, unit * int(weights[symbol])
        if width < 2**32:
            low, width, point = low << 32 & 2**64 - 1, width << 32, (point << 32 & 2**64 - 1) | next(words, 0)
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kinds", [2, 15, 300])
def test_a_stream_is_read_by_the_specification_alone(kinds: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    masses = generator.geometric(0.001, kinds)
    weights = Counted.of(0, masses).weights()
    values = generator.choice(kinds, 3000, p=masses / masses.sum()).astype(np.int32)
    stream = encode_range(values, weights)
    assert decode_by_hand(stream, weights, 3000) == values.tolist()


@pytest.mark.parametrize("model", [Flat(0, 3), Laplace(-2, 5, 30000), Gauss(0, 4, 50000), Counted(0, 3, (9, 0, 1))])
def test_weights_are_at_least_one_and_sum_to_a_power_of_two(model: Flat) -> None:
    assert model.weights().min() >= 1
    assert model.weights().sum() == TOTAL


def test_a_normal_model_is_the_normal_distribution() -> None:
    places = np.arange(-12, 13)
    expected = scipy.stats.norm.pdf(places, scale=3)
    model = Gauss.of(-12, np.round(expected * 1e9).astype(np.int64))
    np.testing.assert_allclose(model.weights() / TOTAL, expected / expected.sum(), rtol=0.01, atol=1e-6)


def test_the_fittest_model_is_chosen() -> None:
    assert isinstance(fitting(0, np.full(64, 5)), Flat)
    assert isinstance(fitting(-20, np.bincount(drawn("normal", 400, 4) + 20)), Gauss)
    assert isinstance(fitting(0, np.array([400, 0, 0, 400, 0, 0, 0, 400])), Counted)


@pytest.mark.parametrize(
    "values", [np.array([0] * 90 + [1] * 9 + [2]), np.repeat(np.arange(40), 1 << np.minimum(np.arange(40), 14))]
)
def test_huffman_codes_are_as_short_as_any_of_whole_bits_and_at_most_sixteen(values: np.ndarray) -> None:
    counts = np.bincount(values)
    lengths = np.array(huffman.code_lengths(counts))
    assert sum(0.5**length for length in lengths if length) == 1
    assert lengths.max() <= huffman.LONGEST
    assert entropy_nbits(values) <= int((lengths * counts).sum()) <= entropy_nbits(values) + len(values)


def test_a_huffman_stream_longer_than_what_is_looked_at_together_comes_back() -> None:
    values = np.random.default_rng(0).integers(0, 3, 900_000).astype(np.int32)
    record, stream = coded(values, "huffman")
    assert len(stream) > 1 << 17
    assert np.array_equal(symbols.decode(Reader(record), stream, len(values)), values)


@pytest.mark.parametrize("coder", get_args(Coder))
@pytest.mark.parametrize("name", [name for name in CASES if len(CASES[name]) > 1])
def test_damaged_bytes_are_refused_or_give_other_symbols(name: str, coder: Coder) -> None:
    record, stream = coded(CASES[name], coder)
    generator = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(record + stream)
        damaged[generator.integers(len(damaged))] = generator.integers(256)
        given = bytes(damaged[len(record) :])[: generator.integers(len(stream) + 1) if len(stream) else 0]
        try:
            found = symbols.decode(Reader(bytes(damaged[: len(record)])), given, len(CASES[name]))
        except DamagedError:
            continue
        assert found.dtype == np.int32
        assert found.shape == CASES[name].shape


def test_bytes_that_are_no_stream_are_refused() -> None:
    with pytest.raises(DamagedError):
        decode_range(b"\xff" * 40, np.array([1, TOTAL - 1]), 10**6)


def test_more_kinds_than_a_model_has_are_refused() -> None:
    with pytest.raises(ValueError, match="70,001 symbols are more than 65,536"):
        symbols.encode(np.array([0, 70_000], dtype=np.int32), Writer())
