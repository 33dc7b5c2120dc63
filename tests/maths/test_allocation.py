import itertools
import random

import pytest

from compressnet.maths.allocation import beta_rates, share_out


@pytest.mark.parametrize("seed", range(30))
def test_the_parts_add_up_and_keep_their_bounds(seed: int) -> None:
    chance = random.Random(seed)
    capacities = [chance.randint(1, 10 ** chance.randint(0, 6)) for _ in range(chance.randint(1, 20))]
    rates = [chance.randint(1, 1 << 20) for _ in capacities]
    total = chance.randint(len(capacities), sum(capacities))
    parts = share_out(total, capacities, rates)
    assert sum(parts) == total
    assert all(1 <= part <= capacity for part, capacity in zip(parts, capacities, strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_parts_between_their_bounds_are_in_proportion_to_within_one(seed: int) -> None:
    chance = random.Random(seed)
    capacities = [chance.randint(50, 5000) for _ in range(8)]
    rates = [chance.randint(1, 1000) for _ in capacities]
    parts = share_out(sum(capacities) // 3, capacities, rates)
    free = [j for j in range(8) if 1 < parts[j] < capacities[j]]
    for i, j in itertools.combinations(free, 2):
        wi, wj = capacities[i] * rates[i], capacities[j] * rates[j]
        assert (parts[i] - 1) * wj <= (parts[j] + 1) * wi
        assert (parts[j] - 1) * wi <= (parts[i] + 1) * wj


def test_everything_is_given_when_the_total_is_all() -> None:
    assert share_out(60, [10, 20, 30], [1, 100, 7]) == [10, 20, 30]


def test_one_each_when_the_total_is_the_least() -> None:
    assert share_out(3, [10, 20, 30], [1, 100, 7]) == [1, 1, 1]


def test_the_beta_density_falls_where_it_should() -> None:
    assert beta_rates(5, 0.2, 2.5) == sorted(beta_rates(5, 0.2, 2.5), reverse=True)
    assert beta_rates(5, 2.5, 0.2) == sorted(beta_rates(5, 2.5, 0.2))
    assert beta_rates(4, 2, 2) == beta_rates(4, 2, 2)[::-1]
    assert max(beta_rates(9, 0.5, 1.5)) == 1 << 20
