"""The largest number at which something that rises with it is not above 0."""

import math
from collections.abc import Callable

TRIALS = 16


def search(
    excess: Callable[[float], float], start: float, slack: float, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> float | None:
    """By steps as long as the excess; once the place is known to lie between two numbers, between these.

    Args:
        excess: of x, about x − x₀ near its zero x₀; it rises, but for noise.
        start: the first x.
        slack: an excess between −slack and 0 is good enough.
        bounds: no x lies outside.

    Returns:
        the largest x tried with no excess; None where there is none.

    >>> search(lambda x: 2 * x - 8, 3.0, 0.1)
    3.95
    """
    fits, exceeds = -math.inf, math.inf
    x, stride, tried = min(max(start, bounds[0]), bounds[1]), 1.0, set[float]()
    while x not in tried and len(tried) < TRIALS:
        tried.add(x)
        found = excess(x)
        fits, exceeds = (max(fits, x), exceeds) if found <= 0 else (fits, min(exceeds, x))
        if -slack <= found <= 0 or fits >= exceeds:
            break
        x -= stride * (found + slack / 2)
        if math.isfinite(exceeds - fits):
            margin = 0.1 * (exceeds - fits)
            x = min(max(x, fits + margin), exceeds - margin)
        else:
            stride *= 1.5
            x = min(max(x, bounds[0]), bounds[1])
    return fits if math.isfinite(fits) else None
