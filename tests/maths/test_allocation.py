import itertools
import random
from collections.abc import Iterator

import pytest

from compressnet.maths.allocation import allocate, beta_rates, envelope, share_out


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


Curve = list[tuple[float, float]]


def curves(seed: int, count: int = 4, points: int = 5) -> list[Curve]:
    chance = random.Random(seed)
    return [[(chance.randint(1, 30), chance.random()) for _ in range(points)] for _ in range(count)]


def total(made: list[Curve], places: list[int], which: int) -> float:
    return sum(curve[place][which] for curve, place in zip(made, places, strict=True))


def every_choice(made: list[Curve]) -> Iterator[list[int]]:
    yield from map(list, itertools.product(*(range(len(curve)) for curve in made)))


@pytest.mark.parametrize("seed", range(30))
def test_the_envelope_lies_below_every_point_and_every_chord_of_it_above_none(seed: int) -> None:
    (points,) = curves(seed, count=1, points=12)
    kept = [points[place] for place in envelope(points)]
    assert kept == sorted(kept)
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(kept)]
    assert slopes == sorted(slopes)
    assert all(slope < 0 for slope in slopes)
    for slope in (*slopes, -1e-9, -1e9):
        assert min(loss - slope * cost for cost, loss in kept) == pytest.approx(
            min(loss - slope * cost for cost, loss in points)
        )


@pytest.mark.parametrize("seed", range(40))
def test_nothing_that_costs_no_more_loses_less_where_all_steps_are_of_one_cost(seed: int) -> None:
    chance = random.Random(seed)
    made: list[Curve] = []
    for _ in range(4):
        drops = sorted((chance.random() for _ in range(4)), reverse=True)
        made.append([(5.0 * place, 10 - sum(drops[:place])) for place in range(5)])
    budget = 5.0 * chance.randint(0, 16)
    places = allocate(made, budget)
    assert places is not None
    assert total(made, places, 0) <= budget
    best = min(total(made, each, 1) for each in every_choice(made) if total(made, each, 0) <= budget)
    assert total(made, places, 1) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(40))
def test_a_choice_fits_and_is_no_worse_than_the_best_of_a_budget_less_by_one_step(seed: int) -> None:
    made = curves(seed)
    cheapest = sum(min(cost for cost, _ in curve) for curve in made)
    budget = cheapest + random.Random(seed).randint(0, 60)
    places = allocate(made, budget)
    assert places is not None
    assert total(made, places, 0) <= budget
    longest = max(made[n][b][0] - made[n][a][0] for n in range(4) for a, b in itertools.pairwise(envelope(made[n])))
    fitting = [each for each in every_choice(made) if total(made, each, 0) <= budget - longest]
    assert all(total(made, places, 1) <= total(made, each, 1) + 1e-12 for each in fitting)


def test_there_is_no_choice_where_the_cheapest_are_too_much() -> None:
    assert allocate([[(2, 0.0)], [(3, 1.0), (5, 0.0)]], budget=4) is None
    assert allocate([[(2, 0.0)], [(3, 1.0), (5, 0.0)]], budget=5) == [0, 0]
