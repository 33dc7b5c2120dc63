"""Sizes of files, as people write them."""

import re

UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_FOLDED = {unit.lower(): factor for unit, factor in UNITS.items()}


def parse_nbytes(text: str) -> int:
    """The bytes of a size: a number, and a unit or none.

    Raises:
        ValueError: it is none.

    >>> parse_nbytes("500kB"), parse_nbytes("2.5 MiB"), parse_nbytes("3000")
    (500000, 2621440, 3000)
    """
    found = _SIZE.fullmatch(text.strip())
    nbytes = int(float(found[1]) * _FOLDED.get(found[2].lower(), 0)) if found else 0
    if not nbytes:
        raise ValueError(f"'{text}' is no size; one is such as 500kB, 2.5MiB, or 3000 for bytes")
    return nbytes
