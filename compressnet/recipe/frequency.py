"""How often something is done while training: after so many steps, or minutes."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

MINUTES = re.compile(r"(\d+(?:\.\d+)?) ?min")


def _checked(given: Any) -> Any:
    right = given is None or (type(given) is int and given > 0)
    if not right and not (isinstance(given, str) and _minutes(given) > 0):
        raise ValueError(f"should be a number of steps, or of minutes such as 10min, not {given!r}")
    return given


def _minutes(given: str) -> float:
    found = MINUTES.fullmatch(given)
    return float(found[1]) if found else 0.0


Frequency = Annotated[int | str | None, BeforeValidator(_checked)]
"""Steps, or text such as ``10min``; None is never."""


def is_due(every: int | str | None, step: int, seconds: float) -> bool:
    """Whether it is to be done now.

    Args:
        every: a :data:`Frequency`.
        step: that is done, counted from 1.
        seconds: since it was done last.

    >>> is_due(50, 100, 3.0), is_due(50, 101, 3.0), is_due("1.5min", 7, 89.0), is_due("1.5min", 7, 90.0)
    (True, False, False, True)
    """
    if isinstance(every, str):
        return seconds >= 60 * _minutes(every)
    return every is not None and step % every == 0
