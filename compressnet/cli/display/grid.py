"""A table before it is drawn, and how numbers look in it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column of text, or of numbers, which stand to the right."""

    title: str
    numbers: bool = False


@dataclass(frozen=True)
class Grid:
    """A table: columns, rows of text, and rows below a rule."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    totals: Sequence[Sequence[str]] = ()

    def without_empty_columns(self) -> "Grid":
        """The columns in which a row has something."""
        kept = [index for index in range(len(self.columns)) if any(row[index] for row in self.rows)]

        def of(rows: Sequence[Sequence[str]]) -> list[list[str]]:
            return [[row[index] for index in kept] for row in rows]

        return Grid([self.columns[index] for index in kept], of(self.rows), of(self.totals))

    @property
    def width(self) -> int:
        """How many characters a line takes, a space behind every column."""
        texts = zip(*([column.title for column in self.columns], *self.rows, *self.totals), strict=True)
        return sum(1 + max(len(line) for text in column for line in text.split("\n")) for column in texts)

    def markdown(self) -> str:
        """As GitHub draws it."""
        rules = ["---:" if column.numbers else "---" for column in self.columns]
        lines = [[column.title.replace("\n", " ") for column in self.columns], rules, *self.rows, *self.totals]
        return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def count(number: int | None) -> str:
    """Every digit.

    >>> count(37748736), count(None)
    ('37,748,736', '')
    """
    return "" if number is None else f"{number:,}"


def short(number: int | None) -> str:
    """Three digits and a letter.

    >>> [short(n) for n in (7, 999, 4096, 999_999, 37_748_736, 1_234_000_000)]
    ['7', '999', '4.10k', '1.00M', '37.7M', '1.23G']
    """
    if number is None or number < 1000:
        return count(number)
    value, letters = float(number), iter("kMGTPEZY")
    while value >= 999.5:
        value, letter = value / 1000, next(letters)
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{letter}"


def times(ratio: float | None) -> str:
    """How many times.

    >>> times(16), times(355.42), times(None)
    ('16.0×', '355×', '')
    """
    return "" if ratio is None else f"{ratio:.{1 if ratio < 99.95 else 0}f}×"
