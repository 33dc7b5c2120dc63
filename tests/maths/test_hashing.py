"""The hash against docs/format.md written out once more, one integer at a time."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import compressnet
from compressnet.maths import hashing, indices
from compressnet.maths.hashing import Hashing, Purpose, derive, mix, permutation
from compressnet.maths.indices import bucket_indices

MODES = pytest.mark.parametrize("mode", ["balanced", "independent"])

GOLDEN: dict[str, list[Any]] = {
    "mix": [0x0, 0x42741D6, 0xF1DFE8E9, 0x127F588F, 0x5F9B465A],
    "derive": [0x0, 0xD67C554D, 0x59970F3, 0x57960110, 0x9A6F290F, 0xC24DB8D6],
    "layer_seed": [0xCB5F4D3A, 0xC1C13359, 0xE5F32173],
    "hash_words": [0x66E1D54B, 0xD492AD9D, 0x5F37CD86, 0x56E87667],
    "permutation": [9, 8, 3, 6, 0, 7, 5, 4, 1, 2],
    "long permutation": [475683, 380675, 614669, 971191, 848616, 332096],
    "tiles": [[0, 999998, 0, 333333], [999998, 1000001, 333333, 333334], [1999999, 1000001, 666667, 333334]],
    "balanced": [2, 5, 3, 2, 1, 0, 5, 4, 1, 1, 3, 5, 1, 4, 0, 0, 0, 2, 3, 4],
    "balanced, signed": [5, 11, 6, 5, 3, 1, 10, 9, 3, 3, 6, 11, 2, 9, 0, 1, 1, 4, 7, 9],
    "balanced, tiled": [80424, 328479, 346222, 340303, 903106],
    "independent": [5, 3, 0, 4, 5, 3, 0, 4, 1, 5, 5, 3, 0, 3, 5, 0, 4, 4, 5, 2],
    "independent, signed": [11, 7, 0, 9, 11, 7, 0, 9, 3, 11, 10, 7, 0, 7, 10, 1, 9, 8, 11, 5],
    "independent, many": [926494, 546730, 551088, 577766, 683925],
    "uniform": ["0x1.e55982f200000p-2", "0x1.17c6a66c00000p-3", "0x1.ad25665d00000p-1"],
}

COMPUTE = """
import numpy as np
from compressnet.maths.hashing import *
from compressnet.maths.indices import *
from compressnet.maths.seeds import layer_seed

few, many = [0, 1, 2, 65536, 1 << 20, (1 << 20) + 4], [0, 1, 1_000_000, 1_500_000, 2_999_999]
seeds = [(0,), (0, 0), (0, 1), (1, 0), (1, 2, 3), (0xFFFFFFFF, 5)]
layers = [(0, "features.0"), (1, "features.0"), (0, "layer1.0.conv1")]
computed = {
    "mix": [*map(mix, (0, 1, 2, 0xFFFFFFFF)), mix(1, (2, 3))],
    "derive": [derive(*seed) for seed in seeds],
    "layer_seed": [layer_seed(*layer) for layer in layers],
    "hash_words": hash_words(np.arange(4, dtype=np.uint32), 7, Purpose.SIGN, 3).tolist(),
    "permutation": permutation(10, 7).tolist(),
    "long permutation": permutation((1 << 20) + 5, 7)[few].tolist(),
    "tiles": [list(tile) for tile in tiles(3_000_000, 1_000_001)],
    "balanced": bucket_indices(20, 6, 7).tolist(),
    "balanced, signed": signed_indices(20, 6, 7).tolist(),
    "balanced, tiled": bucket_indices(3_000_000, 1_000_001, 7)[many].tolist(),
    "independent": bucket_indices(20, 6, 7, hashing="independent").tolist(),
    "independent, signed": signed_indices(20, 6, 7, hashing="independent").tolist(),
    "independent, many": bucket_indices(3_000_000, 1_000_001, 7, hashing="independent")[many].tolist(),
    "uniform": [number.hex() for number in uniform(3, 7).tolist()],
}
"""


def reference_word(position: int, seed: int, purpose: int, stream: int = 0) -> int:
    return mix(position, (derive(seed, purpose, stream, 0), derive(seed, purpose, stream, 1)))


def reference_permutation(numel: int, seed: int, purpose: int, stream: int = 0) -> Callable[[int], int]:
    bits = 1
    while 2**bits < numel:
        bits += 1
    keys = [(derive(seed, purpose, stream, r, 0) | 1, derive(seed, purpose, stream, r, 1)) for r in range(8)]

    def step(value: int) -> int:
        for multiply, add in keys:
            value = (value * multiply + add) % 2**bits
            value ^= value >> ((bits + 2) // 3)
        return value

    def permuted(position: int) -> int:
        value = step(position)
        while value >= numel:
            value = step(value)
        return value

    return permuted


def reference_bucket(numel: int, buckets: int, seed: int, stream: int, mode: Hashing) -> Callable[[int], int]:
    if mode == "independent":
        return lambda position: reference_word(position, seed, 1, stream) * buckets >> 32
    count = -(-buckets // max(1, 2**20 * buckets // numel))
    firsts = [buckets * t // count for t in range(count + 1)]
    starts = [numel * first // buckets for first in firsts]

    def bucket(position: int) -> int:
        t = max(t for t in range(count) if starts[t] <= position)
        permuted = reference_permutation(starts[t + 1] - starts[t], derive(seed, stream, t), 1)
        return firsts[t] + permuted(position - starts[t]) % (firsts[t + 1] - firsts[t])

    return bucket


def sample(numel: int) -> list[int]:
    """Some positions: the ends, the edges of chunks and tiles, and others in between."""
    edges = [edge + step for edge in (0, 1 << 16, 1 << 17, 1 << 20, 1 << 21, numel) for step in (-2, -1, 0, 1)]
    return [p for p in edges + list(range(7, numel, max(1, numel // 100))) if 0 <= p < numel]


def test_the_golden_vectors_hold_in_this_process() -> None:
    """Format version 1 is frozen: what these do not hold for cannot read the files that are out there."""
    names: dict[str, object] = {}
    exec(COMPUTE, names)
    assert names["computed"] == GOLDEN


@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_vectors_are_those_of_the_specification(name: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8").replace("`", "")
    values = GOLDEN[name]
    words = name in ("mix", "derive", "layer_seed", "hash_words")
    for value in values if words or name == "tiles" else [", ".join(map(str, values))]:
        assert (f"0x{value:08X}" if words else str(value).replace("[", "(").replace("]", ")")) in text


def test_the_golden_vectors_hold_in_another_process_with_one_thread() -> None:
    """Format version 1, as above."""
    code = f"import json, torch\ntorch.set_num_threads(1)\n{COMPUTE}\nprint(json.dumps(computed))"
    root = Path(compressnet.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=root)
    assert json.loads(done.stdout) == GOLDEN


@pytest.mark.parametrize("numel", [1, 2, 3, 1000, (1 << 16) + 1, (1 << 20) + 77])
def test_words_hashed_in_chunks_are_those_hashed_one_by_one(numel: int) -> None:
    words = hashing.hash_words(np.arange(numel, dtype=np.uint32), 9, Purpose.SIGN, stream=4)
    assert [int(words[p]) for p in sample(numel)] == [reference_word(p, 9, 2, 4) for p in sample(numel)]


@pytest.mark.parametrize("numel", [1, 2, 3, 5, 16, 17, 1000, 65536, 65537, (1 << 20) - 1, (1 << 20) + 77])
def test_a_permutation_computed_in_chunks_is_the_one_computed_entry_by_entry(numel: int) -> None:
    permuted = reference_permutation(numel, 9, 3, 4)
    values = permutation(numel, 9, stream=4)
    assert [int(values[p]) for p in sample(numel)] == [permuted(p) for p in sample(numel)]


@pytest.mark.parametrize("numel", [*range(1, 40), 63, 64, 65, 100, 4097, 65537, 300_001, (1 << 20) + 1, 1_500_000])
def test_a_permutation_holds_every_number_once(numel: int) -> None:
    assert np.array_equal(np.sort(permutation(numel, numel)), np.arange(numel))


@MODES
@pytest.mark.parametrize(("numel", "buckets"), [(1, 1), (9, 4), (1000, 333), (2_500_000, 1_111_111), (3 << 20, 1)])
def test_buckets_are_those_of_the_specification(numel: int, buckets: int, mode: Hashing) -> None:
    bucket = reference_bucket(numel, buckets, 9, 4, mode)
    indices = bucket_indices(numel, buckets, 9, 4, mode)
    assert indices.dtype == np.uint32
    assert [int(indices[p]) for p in sample(numel)] == [bucket(p) for p in sample(numel)]


@MODES
@pytest.mark.parametrize(("numel", "buckets"), [(7, 3), (70_000, 900)])
def test_signed_indices_hold_twice_the_bucket_and_the_sign(numel: int, buckets: int, mode: Hashing) -> None:
    signed = indices.signed_indices(numel, buckets, 9, 4, mode)
    assert signed.dtype == torch.int32
    assert torch.equal(signed >> 1, torch.from_numpy(bucket_indices(numel, buckets, 9, 4, mode).astype(np.int32)))
    negative = [reference_word(p, 9, 2, 4) >> 31 for p in sample(numel)]
    assert (signed & 1)[sample(numel)].tolist() == negative


@MODES
def test_the_number_of_threads_changes_nothing(mode: Hashing) -> None:
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            made.append(indices.signed_indices(1_500_000, 500_001, 9, 4, mode))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


SIZES = [(1, 1), (5, 5), (5, 4), (20, 7), (576, 36), (1000, 999), (36_864, 2304), (100_003, 6250)]
LARGE = [(1 << 20, 1 << 16), ((1 << 20) + 1, (1 << 20) + 1), (2_360_000, 147_501), (2_200_000, 1), (3 << 20, 2)]


@pytest.mark.parametrize(("numel", "buckets"), SIZES + LARGE)
def test_a_balanced_bucket_is_read_by_floor_or_ceiling_of_the_mean(numel: int, buckets: int) -> None:
    reads = np.bincount(bucket_indices(numel, buckets, 3), minlength=buckets)
    assert len(reads) == buckets
    assert reads.min() >= numel // buckets
    assert reads.max() <= -(-numel // buckets)


@pytest.mark.parametrize("numel", [1, 2, 3, 500, 65_537, (1 << 21) + 3])
def test_ratio_one_loses_nothing(numel: int) -> None:
    dense = np.arange(numel)
    stored = np.full(numel, -1)
    indices = bucket_indices(numel, numel, 3)
    stored[indices] = dense
    assert np.array_equal(stored[indices], dense)


TILED = [*SIZES, *LARGE, (102_760_448, 6_422_528), (102_760_448, 6_422_529), (25_000_000, 3), (16_777_217, 16_777_217)]


@pytest.mark.parametrize(("numel", "buckets"), TILED)
def test_tiles_cover_positions_and_buckets_exactly_once(numel: int, buckets: int) -> None:
    position = first = 0
    for start, positions, first_bucket, owned in hashing.tiles(numel, buckets):
        assert (start, first_bucket) == (position, first)
        assert numel // buckets * owned <= positions <= -(-numel // buckets) * owned
        assert positions <= 1 << 20 or owned == 1
        position, first = position + positions, first + owned
    assert (position, first) == (numel, buckets)


@pytest.mark.parametrize("mode", ["balanced", "independent"])
def test_a_tile_keeps_its_positions_in_its_own_buckets(mode: Hashing) -> None:
    start, positions, first, owned = hashing.tiles(3_000_000, 200_000)[1]
    indices = bucket_indices(3_000_000, 200_000, 3, hashing=mode)[start : start + positions]
    kept = (indices >= first) & (indices < first + owned)
    assert kept.all() == (mode == "balanced")


def test_uniform_numbers_are_the_centres_of_the_words_cells() -> None:
    numbers = hashing.uniform(100, 9, stream=4)
    expected = [(reference_word(p, 9, 4, 4) + 0.5) / 2**32 for p in range(100)]
    assert numbers.tolist() == expected


def test_a_seed_is_read_modulo_the_word_size() -> None:
    assert derive(7, 1) == derive(7 + (1 << 32), 1) == derive(7, 1 + (1 << 32))
