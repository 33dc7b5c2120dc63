"""Sharing a budget of numbers among the frequency bands of a layer."""

from collections.abc import Sequence


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
