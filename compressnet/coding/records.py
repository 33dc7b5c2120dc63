"""Whole numbers as bytes, few for small ones, and read back without trust."""

import math
import struct
from collections.abc import Iterable, Sequence


class DamagedError(Exception):
    """Bytes are not what any writer of ours makes."""


class Writer:
    """Appends to bytes."""

    def __init__(self) -> None:
        self.data = bytearray()

    def byte(self, value: int) -> None:
        """One byte."""
        self.data.append(value)

    def count(self, value: int) -> None:
        """A number of at least 0: seven bits a byte, the lowest first, the highest bit set where more follow."""
        while value >= 128:
            self.data.append(value & 127 | 128)
            value >>= 7
        self.data.append(value)

    def whole(self, value: int) -> None:
        """A number of either sign, as the count 2 · value, or −2 · value − 1 below 0."""
        self.count(folded(value))

    def floats(self, values: Iterable[float], form: str = "f") -> None:
        """Floating-point numbers, little-endian: form f of four bytes, e of two."""
        listed = list(values)
        self.data += struct.pack(f"<{len(listed)}{form}", *listed)

    def golomb(self, values: Sequence[int], order: int) -> None:
        """Exponential Golomb codes of numbers of at least 0, the highest bit of each byte first."""
        text = "".join(_golomb(value, order) for value in values)
        text += "0" * (-len(text) % 8)
        self.data += bytes(int(text[place : place + 8], 2) for place in range(0, len(text), 8))


class Reader:
    """Reads what a :class:`Writer` wrote.

    Raises:
        DamagedError: from every method, where bytes are missing or mean nothing.
    """

    def __init__(self, data: bytes, place: int = 0) -> None:
        self.data, self.place = data, place

    def take(self, nbytes: int) -> bytes:
        """The next bytes."""
        if nbytes < 0 or self.place + nbytes > len(self.data):
            raise DamagedError
        self.place += nbytes
        return self.data[self.place - nbytes : self.place]

    def byte(self) -> int:
        """One byte."""
        return self.take(1)[0]

    def count(self) -> int:
        """A number of at least 0 and below 2⁶³."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if value >= 1 << 63:
            raise DamagedError
        return value

    def whole(self) -> int:
        """A number of either sign."""
        return unfolded(self.count())

    def floats(self, count: int, form: str = "f") -> tuple[float, ...]:
        """Floating-point numbers; finite ones alone are right."""
        values = struct.unpack(f"<{count}{form}", self.take(count * struct.calcsize(f"<{form}")))
        if not all(map(math.isfinite, values)):
            raise DamagedError
        return values

    def golomb(self, count: int, order: int) -> list[int]:
        """As many numbers, and the bits that fill their last byte."""
        place, values = 8 * self.place, []
        for _ in range(count):
            zeros = 0
            while not self._bit(place + zeros):
                zeros += 1
                if zeros > 32:
                    raise DamagedError
            width = zeros + 1 + order
            place += zeros
            value = 0
            for _ in range(width):
                value = value << 1 | self._bit(place)
                place += 1
            values.append(value - (1 << order))
        self.place = -(-place // 8)
        return values

    def _bit(self, place: int) -> int:
        if place >= 8 * len(self.data):
            raise DamagedError
        return self.data[place // 8] >> (7 - place % 8) & 1


def _golomb(value: int, order: int) -> str:
    digits = f"{value + (1 << order):b}"
    return "0" * (len(digits) - 1 - order) + digits


def golomb_nbits(value: int, order: int) -> int:
    """Bits of an exponential Golomb code."""
    return 2 * (value + (1 << order)).bit_length() - 1 - order


def folded(value: int) -> int:
    """A number of either sign as one of at least 0: 0, −1, 1, −2, … as 0, 1, 2, 3, …"""
    return 2 * value if value >= 0 else -2 * value - 1


def unfolded(value: int) -> int:
    """The number of :func:`folded`."""
    return value // 2 if value % 2 == 0 else -(value + 1) // 2
