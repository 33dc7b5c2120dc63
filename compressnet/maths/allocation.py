"""Sharing a budget: of numbers among the frequency bands of a layer, of bytes among the layers of a model."""

import math
from collections.abc import Sequence
from itertools import pairwise


def beta_rates(count: int, alpha: float, beta: float) -> list[int]:
    """The unnormalised Beta density x^(α−1) (1−x)^(β−1) at x = (j + ½) / count, in units of 2⁻²⁰ of its largest value.

    They are whole numbers, so that what is built on them does not hang on the last bit of a power function.

    Source: Chen et al. 2016 (FreshNets), section 4; the offset ½ keeps x inside (0, 1).

    >>> beta_rates(3, 1, 1)
    [1048576, 1048576, 1048576]
    """
    places = [(j + 0.5) / count for j in range(count)]
    density = [x ** (alpha - 1) * (1 - x) ** (beta - 1) for x in places]
    largest = max(density)
    return [max(1, round(value / largest * (1 << 20))) for value in density]


def share_out(total: int, capacities: Sequence[int], rates: Sequence[int]) -> list[int]:
    """Share a total in proportion to capacity · rate, each part between 1 and its capacity.

    What a full part cannot take, or a part raised to 1 takes too much, is shared among the others; remainders go to the
    largest fractions.

    Args:
        total: between the number of parts and the sum of the capacities.
        capacities: N_j ≥ 1.
        rates: relative density of each part, whole numbers ≥ 1.

    Returns:
        K_j with Σ K_j = total.

    >>> share_out(10, [4, 8, 8], [100, 2, 1])
    [4, 4, 2]
    """
    weights = [n * r for n, r in zip(capacities, rates, strict=True)]
    fixed: dict[int, int] = {}
    while True:
        free = [j for j in range(len(weights)) if j not in fixed]
        rest, whole = total - sum(fixed.values()), sum(weights[j] for j in free)
        over = [j for j in free if rest * weights[j] > capacities[j] * whole]
        under = [j for j in free if rest * weights[j] < whole]
        if not over and not under:
            break
        surplus = sum(rest * weights[j] - capacities[j] * whole for j in over)
        deficit = sum(whole - rest * weights[j] for j in under)
        fixed |= {j: capacities[j] for j in over} if surplus >= deficit else dict.fromkeys(under, 1)
    parts = [fixed[j] if j in fixed else rest * weights[j] // whole for j in range(len(weights))]
    by_remainder = sorted(free, key=lambda j: (-(rest * weights[j] % whole), j))
    for j in by_remainder[: total - sum(parts)]:
        parts[j] += 1
    return parts


def envelope(points: Sequence[tuple[float, float]]) -> list[int]:
    """The lower convex envelope of what can be had: of rising cost and falling loss, each step worth less than before.

    Args:
        points: cost and loss of each.

    Returns:
        the places of those on the envelope, by rising cost.

    >>> envelope([(3, 1), (1, 9), (2, 6), (2, 4), (5, 1)])
    [1, 3, 0]
    """
    kept: list[int] = []
    for place in sorted(range(len(points)), key=points.__getitem__):
        if kept and points[place][1] >= points[kept[-1]][1]:
            continue
        while len(kept) > 1 and _gain(points[kept[-2]], points[kept[-1]]) <= _gain(points[kept[-1]], points[place]):
            kept.pop()
        kept.append(place)
    return kept


def allocate(curves: Sequence[Sequence[tuple[float, float]]], budget: float) -> list[int] | None:
    """One point of each curve, of least loss together, whose costs are together within a budget.

    Every curve starts at the cheapest point of its envelope. Then whichever step along an envelope saves most loss for
    its cost is taken: what is reached after each is the least of loss + λ · cost for some λ, so that nothing of no
    greater cost has less loss. A step that does not fit ends its curve; the others go on. What is left then is spent on
    points off the envelopes.

    Args:
        curves: points of cost and loss, at least one each.
        budget: of the costs.

    Returns:
        the place of a point in each curve; None where the cheapest are too much.

    Source: Y. Shoham, A. Gersho: Efficient bit allocation for an arbitrary set of quantizers, IEEE Transactions on
    Acoustics, Speech, and Signal Processing 36, 1988.

    >>> allocate([[(1, 8), (2, 3)], [(1, 9), (3, 1), (4, 0)]], budget=5)
    [1, 1]
    """
    envelopes = [envelope(curve) for curve in curves]
    steps = [
        (_gain(curve[before], curve[after]), number, after, curve[after][0] - curve[before][0])
        for number, (curve, kept) in enumerate(zip(curves, envelopes, strict=True))
        for before, after in pairwise(kept)
    ]
    chosen = [kept[0] for kept in envelopes]
    rest = budget - sum(curve[place][0] for curve, place in zip(curves, chosen, strict=True))
    if rest < 0:
        return None
    ended: set[int] = set()
    for _, number, place, cost in sorted(steps, key=lambda step: -step[0]):
        if number not in ended and cost <= rest:
            chosen[number] = place
            rest -= cost
        else:
            ended.add(number)
    return _filled(curves, chosen, rest)


def _filled(curves: Sequence[Sequence[tuple[float, float]]], chosen: list[int], rest: float) -> list[int]:
    """A choice with what is left of its budget spent, each time where it saves most loss."""
    while True:
        better = [
            (curve[chosen[number]][1] - loss, number, place)
            for number, curve in enumerate(curves)
            for place, (cost, loss) in enumerate(curve)
            if cost <= curve[chosen[number]][0] + rest and loss < curve[chosen[number]][1]
        ]
        if not better:
            return chosen
        _, number, place = max(better)
        rest -= curves[number][place][0] - curves[number][chosen[number]][0]
        chosen[number] = place


def _gain(before: tuple[float, float], after: tuple[float, float]) -> float:
    """The loss that a step saves for each unit of its cost."""
    cost = after[0] - before[0]
    return (before[1] - after[1]) / cost if cost else math.inf
