"""The statistical quality of the hash: everything here is deterministic, with thresholds far from chance.

A chi-square divided by its degrees of freedom is 1 ± √(2 / freedom) for a perfect hash.
"""

import itertools
import math
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from compressnet.maths import hashing, indices
from compressnet.maths.hashing import Hashing, Purpose, permutation
from compressnet.maths.indices import bucket_indices

Array = NDArray[np.uint32]


def words(numel: int, seed: int, purpose: Purpose = Purpose.BUCKET, stream: int = 0) -> Array:
    return hashing.hash_words(np.arange(numel, dtype=np.uint32), seed, purpose, stream)


@cache
def permutations(numel: int, seeds: int) -> Array:
    return np.stack([permutation(numel, seed, Purpose.BUCKET) for seed in range(seeds)])


def together(numel: int, buckets: int) -> float:
    """How likely two positions share a bucket when each bucket is read equally often to within one."""
    reads, extra = divmod(numel, buckets)
    return (extra * (reads + 1) * reads + (buckets - extra) * reads * (reads - 1)) / (numel * (numel - 1))


@pytest.mark.parametrize("ratio", [1, 2, 4, 16])
def test_independent_buckets_leave_the_poisson_fraction_unread(ratio: int) -> None:
    buckets = (1 << 18) // ratio
    reads = np.bincount(bucket_indices(1 << 18, buckets, 3, hashing="independent"), minlength=buckets)
    expected = math.exp(-ratio)
    assert abs((reads == 0).mean() - expected) < 5 * math.sqrt(expected / buckets)


@pytest.mark.parametrize("bit", range(32))
def test_every_bit_of_the_words_is_balanced(bit: int) -> None:
    ones = int((words(1 << 18, 5) >> np.uint32(bit) & 1).sum())
    assert abs(ones - (1 << 17)) < 5 * 256


@pytest.mark.parametrize("bit", range(32))
def test_one_flipped_bit_of_the_position_flips_half_of_the_word(bit: int) -> None:
    flipping = np.arange(1 << 14, dtype=np.uint32) ^ np.uint32(1 << bit)
    flipped = words(1 << 14, 5) ^ hashing.hash_words(flipping, 5, Purpose.BUCKET)
    flips = np.array([(flipped >> np.uint32(b) & 1).mean() for b in range(32)])
    assert np.abs(flips - 0.5).max() < 0.03


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("numel", [20, 100, 500, 100_000])
def test_signs_are_balanced_and_uncorrelated_with_their_neighbours(numel: int, seed: int) -> None:
    signs = 1.0 - 2.0 * (indices.signed_indices(numel, numel // 2, seed).numpy() & 1)
    assert abs(signs.sum()) < 5 * math.sqrt(numel)
    for distance in (1, 2, 3, 9, numel // 4, numel // 2):
        assert abs((signs[distance:] * signs[:-distance]).sum()) < 5 * math.sqrt(numel - distance)


@pytest.mark.parametrize("numel", [64, 576, 4096, 36_864])
def test_sign_and_bucket_are_unrelated(numel: int) -> None:
    buckets = numel // 16
    reads, sums = np.zeros(buckets), np.zeros(buckets)
    for seed in range(50):
        signed = indices.signed_indices(numel, buckets, seed).numpy()
        np.add.at(reads, signed >> 1, 1)
        np.add.at(sums, signed >> 1, 1 - 2 * (signed & 1))
    assert abs((sums**2 / reads).mean() - 1) < 5 * math.sqrt(2 / buckets)


KEYS = [
    (1, Purpose.BUCKET, 0),
    (2, Purpose.BUCKET, 0),
    (1, Purpose.SIGN, 0),
    (1, Purpose.BUCKET, 1),
    (1, Purpose.INITIAL, 1),
]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(KEYS, 2)))
def test_seeds_purposes_and_streams_give_unrelated_words(
    one: tuple[int, Purpose, int], other: tuple[int, Purpose, int]
) -> None:
    cells = (words(1 << 16, *one) >> 28) * 16 + (words(1 << 16, *other) >> 28)
    counts = np.bincount(cells, minlength=256)
    assert ((counts - 256.0) ** 2 / 256).sum() / 255 == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(KEYS, 2)))
def test_seeds_purposes_and_streams_give_unrelated_permutations(
    one: tuple[int, Purpose, int], other: tuple[int, Purpose, int]
) -> None:
    cells = (permutation(1 << 16, *one) >> 12) * 16 + (permutation(1 << 16, *other) >> 12)
    counts = np.bincount(cells, minlength=256)
    assert ((counts - 256.0) ** 2 / 256).sum() / 255 == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("numel", [8, 9, 16, 20, 32, 64, 100])
def test_over_seeds_every_position_goes_everywhere(numel: int) -> None:
    values = permutations(numel, 1000)
    counts = np.stack([np.bincount(values[:, i], minlength=numel) for i in range(numel)])
    mean = 1000 / numel
    freedom = (numel - 1) ** 2
    assert ((counts - mean) ** 2 / mean).sum() / freedom == pytest.approx(1, abs=5 * math.sqrt(2 / freedom))


@pytest.mark.parametrize("ratio", [2, 4])
@pytest.mark.parametrize("numel", [16, 20, 32, 50, 64, 100, 300])
def test_over_seeds_every_pair_shares_a_bucket_equally_often(numel: int, ratio: int) -> None:
    seeds, buckets = 1000, numel // ratio
    values = permutations(numel, seeds) % buckets
    shared = np.zeros((numel, numel), np.int32)
    for row in values:
        shared += row[:, None] == row
    chance = together(numel, buckets)
    z = (shared[np.triu_indices(numel, 1)] - seeds * chance) / math.sqrt(seeds * chance * (1 - chance))
    assert (z**2).mean() == pytest.approx(1, abs=max(0.1, 6 * math.sqrt(2 / len(z))))
    assert np.abs(z).max() < 7.5


@pytest.mark.parametrize("ratio", [2, 4, 16])
@pytest.mark.parametrize("numel", [256, 300, 512, 1024, 2304, 4096, 16_384])
def test_with_one_seed_no_distance_shares_buckets_more_often(numel: int, ratio: int) -> None:
    """Powers of two are where a permutation of few or short rounds shows: there 4 rounds give 10 to 50 deviations."""
    seeds = 100 if numel < 10_000 else 30
    distances = sorted({1, 3, 9, numel // 3} | {1 << k for k in range(3, (numel - 1).bit_length())})
    values = permutations(numel, seeds) % (numel // ratio)
    chance = together(numel, numel // ratio)
    for distance in distances:
        pairs = numel - distance
        shared = (values[:, distance:] == values[:, :-distance]).sum(axis=1)
        z = (shared - pairs * chance) / math.sqrt(pairs * chance * (1 - chance))
        assert (z**2).mean() < 1 + 6 * math.sqrt(2 / seeds)
        assert np.abs(z).max() < 9


@pytest.mark.parametrize("mode", ["balanced", "independent"])
@pytest.mark.parametrize("distance", [1, 2, 9, 1024, 1 << 16, 1 << 18])
def test_a_large_tile_has_no_distance_at_which_buckets_repeat(distance: int, mode: Hashing) -> None:
    numel, buckets = 1 << 20, 1 << 16
    indices = bucket_indices(numel, buckets, 3, hashing=mode)
    pairs = numel - distance
    chance = together(numel, buckets) if mode == "balanced" else 1 / buckets
    shared = int((indices[distance:] == indices[:-distance]).sum())
    assert abs(shared - pairs * chance) < 6 * math.sqrt(pairs * chance)


def test_a_large_permutation_spreads_neighbours_uniformly() -> None:
    values = permutation(1 << 20, 3).astype(np.int64)
    counts = np.bincount((values[1:] - values[:-1]) % (1 << 20) >> 10, minlength=1024)
    mean = len(values[1:]) / 1024
    assert ((counts - mean) ** 2 / mean).sum() / 1023 == pytest.approx(1, abs=0.3)


def test_uniform_numbers_fill_the_interval() -> None:
    numbers = hashing.uniform(100_000, 3)
    counts = torch.histc(numbers, 100, 0, 1)
    assert ((counts - 1000) ** 2 / 1000).sum().item() / 99 == pytest.approx(1, abs=0.7)
    assert 0 < numbers.min() < numbers.max() < 1


def test_normal_numbers_are_the_quantiles_of_uniform_ones() -> None:
    uniform = hashing.uniform(10_000, 3).numpy()
    np.testing.assert_allclose(hashing.normal(10_000, 3).numpy(), ndtri(uniform), rtol=1e-9, atol=1e-9)


def test_unread_buckets_are_no_more_than_chance_over_many_seeds() -> None:
    """A weaker mixing function (``lowbias32``) misses by 5 standard deviations at every seed of a million."""
    numel = 1 << 20
    unread = [
        (np.bincount(bucket_indices(numel, numel, seed, hashing="independent"), minlength=numel) == 0).mean()
        for seed in range(4)
    ]
    spread = math.sqrt(math.exp(-1) * (1 - 2 * math.exp(-1)) / numel / len(unread))
    assert abs(np.mean(unread) - math.exp(-1)) < 5 * spread
