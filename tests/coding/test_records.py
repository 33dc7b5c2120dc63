"""Whole numbers come back from their bytes, and what is missing is refused."""

import pytest

from compressnet.coding.records import DamagedError, Reader, Writer, golomb_nbits


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**62])
def test_counts_and_whole_numbers_come_back(value: int) -> None:
    writer = Writer()
    writer.count(value)
    writer.whole(-(value // 2) - 1)
    writer.whole(value // 2)
    reader = Reader(bytes(writer.data))
    assert (reader.count(), reader.whole(), reader.whole()) == (value, -(value // 2) - 1, value // 2)


@pytest.mark.parametrize(("value", "order", "bits"), [(0, 0, "1"), (3, 0, "00100"), (0, 2, "100"), (9, 2, "01101")])
def test_golomb_codes_are_those_of_the_specification(value: int, order: int, bits: str) -> None:
    writer = Writer()
    writer.golomb([value], order)
    assert f"{writer.data[0]:08b}" == bits.ljust(8, "0")
    assert golomb_nbits(value, order) == len(bits)


@pytest.mark.parametrize("order", range(8))
def test_golomb_codes_come_back(order: int) -> None:
    writer = Writer()
    writer.golomb(list(range(300)), order)
    reader = Reader(bytes(writer.data))
    assert reader.golomb(300, order) == list(range(300))
    assert reader.place == len(writer.data)


@pytest.mark.parametrize("form", ["e", "f"])
def test_floats_come_back_and_only_finite_ones_are_right(form: str) -> None:
    writer = Writer()
    writer.floats([0.5, -2.0, float("inf")], form)
    reader = Reader(bytes(writer.data))
    assert reader.floats(2, form) == (0.5, -2.0)
    with pytest.raises(DamagedError):
        reader.floats(1, form)


@pytest.mark.parametrize(
    "read",
    [
        lambda reader: reader.byte(),
        lambda reader: reader.take(1),
        lambda reader: reader.count(),
        lambda reader: reader.floats(1),
        lambda reader: reader.golomb(1, 0),
        lambda reader: reader.take(-1),
    ],
)
def test_bytes_that_are_missing_are_refused(read) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DamagedError):
        read(Reader(b"\x00\x00", 2))


@pytest.mark.parametrize("data", [b"\xff" * 12, b"\x80" * 3])
def test_a_count_without_end_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedError):
        Reader(data).count()
