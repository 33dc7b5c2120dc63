"""The largest number at which something that rises with it is not above 0."""

import math
from collections.abc import Callable

TRIALS = 16


def search(
    excess: Callable[[float], float], start: float, slack: float, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> float | None:
    """By steps as long as the excess; once the place is known to lie between two numbers, on the line between these.

    Args:
        excess: of x, about x − x₀ near its zero x₀; it rises, but for noise.
        start: the first x.
        slack: an excess between −slack and 0 is good enough.
        bounds: no x lies outside.

    Returns:
        the largest x tried with no excess; None where there is none.

    >>> search(lambda x: 2 * x - 8, 3.0, 0.1)
    3.975
    """
    below, above = (-math.inf, 0.0), (math.inf, 0.0)  # numbers and their excess
    x, stride, tried = min(max(start, bounds[0]), bounds[1]), 1.0, set[float]()
    while x not in tried and len(tried) < TRIALS:
        tried.add(x)
        found = excess(x)
        below, above = (max(below, (x, found)), above) if found <= 0 else (below, min(above, (x, found)))
        width = above[0] - below[0]
        if -slack <= found <= 0 or width <= 0:
            break
        if math.isfinite(width):
            share = (-slack / 2 - below[1]) / (above[1] - below[1])
            x = below[0] + min(max(share, 0.1), 0.9) * width
        else:
            x = min(max(x - stride * (found + slack / 2), bounds[0]), bounds[1])
            stride *= 1.5
    return below[0] if math.isfinite(below[0]) else None
