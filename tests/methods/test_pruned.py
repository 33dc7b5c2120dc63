import math
from typing import Any, ClassVar

import pytest
import torch

from compressnet.methods.pruned import PackedConfig, PrunedConfig, PrunedWeight
from tests.methods.contract import SHAPES, Contract, key


class TestPruned(Contract):
    weight = PrunedWeight
    config: ClassVar = {"density": 0.1}
    seeded = False


class TestPrunedLittle(Contract):
    weight = PrunedWeight
    config: ClassVar = {"density": 0.8}
    seeded = False


class TestPacked(Contract):
    """As read from an exported file, with more codes than values: the last of them are fillers."""

    weight = PrunedWeight
    seeded = False

    def build(self, shape: tuple[int, ...], seed: int = 7, **more: Any) -> PrunedWeight:
        kept = max(1, round(0.1 * math.prod(shape)))
        config = PackedConfig(density=0.1, bits=4, codes=kept + 2)
        assert PrunedWeight.rejects(shape, config) is None
        return PrunedWeight(shape, config, seed, **more)

    def test_it_accepts_some_shapes(self) -> None:
        assert all(self.build(shape).damage() is None for shape in SHAPES)


def pruned(shape: tuple[int, ...], density: float = 0.2) -> tuple[torch.Tensor, PrunedWeight]:
    dense = torch.randn(shape)
    return dense, PrunedWeight(shape, PrunedConfig(density=density), seed=1).project_(dense)


@pytest.mark.parametrize("shape", [(13, 7), (6, 5, 3, 3)])
def test_the_entries_of_largest_magnitude_are_kept_as_they_are(shape: tuple[int, ...]) -> None:
    dense, weight = pruned(shape)
    threshold = dense.abs().flatten().sort(descending=True).values[round(0.2 * dense.numel()) - 1]
    assert torch.equal(weight.to_dense(), torch.where(dense.abs() >= threshold, dense, 0))


def test_the_bitmap_is_stored_as_bytes_and_stays_so_in_another_dtype() -> None:
    _, weight = pruned((13, 7))
    assert {k: (tuple(v.shape), v.dtype) for k, v in weight.half().state_dict().items()} == {
        "values": ((18,), torch.float16),
        "bitmap": ((12,), torch.uint8),
    }
    assert weight.to_dense().dtype is torch.float16
    assert weight.numel == 18 + 12


@pytest.mark.parametrize("assign", [True, False])
def test_another_bitmap_is_loaded_with_its_values(assign: bool) -> None:
    _, weight = pruned((13, 7))
    other = PrunedWeight((13, 7), PrunedConfig(density=0.2), seed=1)
    other.load_state_dict(weight.state_dict(), assign=assign)
    assert torch.equal(other.to_dense(), weight.to_dense())


def test_training_moves_values_and_leaves_the_positions() -> None:
    _, weight = pruned((13, 7))
    zero = weight.to_dense() == 0
    optimizer = torch.optim.SGD(weight.parameters(), lr=0.1)
    weight.matmul(torch.randn(5, 7)).square().sum().backward()
    before = weight.to_dense().detach()
    optimizer.step()
    assert (weight.to_dense()[zero] == 0).all()
    assert (weight.to_dense()[~zero] != before[~zero]).any()


def test_equal_entries_are_kept_as_often_as_the_density_says() -> None:
    weight = PrunedWeight((10, 10), PrunedConfig(density=0.3), seed=1).project_(torch.ones(10, 10))
    assert weight.to_dense().count_nonzero() == 30


def test_a_density_whose_bitmap_eats_what_it_saves_is_refused() -> None:
    assert "would not be fewer than 1,000 numbers" in str(PrunedWeight.rejects((10, 100), PrunedConfig(density=0.9)))
    assert PrunedWeight.rejects((10, 100), PrunedConfig(density=0.87)) is None


@pytest.mark.parametrize("density", [0, -0.1, 1.1, float("nan"), "abc"])
def test_a_density_outside_zero_to_one_is_refused(density: object) -> None:
    with pytest.raises(ValueError, match="density"):
        PrunedConfig(density=density)  # type: ignore[arg-type]


@pytest.mark.parametrize("density", [0.001, 0.02, 0.1, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("shape", [(83, 70), (16, 9, 5, 3)], ids=key)
def test_a_packed_weight_is_the_same_in_no_more_bytes(shape: tuple[int, ...], density: float) -> None:
    _, weight = pruned(shape, density)
    packed = weight.packed()
    assert torch.equal(packed.to_dense(), weight.to_dense())
    assert torch.equal(packed.values, weight.values)
    assert packed.numel <= weight.numel
    assert (packed is weight) == (density >= 0.5)
    assert packed.packed() is packed


def test_a_packed_weight_is_restored_from_its_config_and_its_tensors() -> None:
    _, weight = pruned((83, 70), 0.03)
    packed = weight.packed()
    keys = packed.config.model_dump()
    assert keys.keys() == {"density", "bits", "codes"}
    assert {k: (len(v), v.dtype) for k, v in packed.half().state_dict().items()} == {
        "values": (174, torch.float16),
        "gaps": (-(-keys["bits"] * keys["codes"] // 8), torch.uint8),
    }
    assert PrunedWeight.rejects((83, 70), PrunedWeight.read_config(keys)) is None
    again = PrunedWeight((83, 70), PrunedWeight.read_config(keys), seed=1, device="meta")
    again.load_state_dict(packed.state_dict(), assign=True)
    assert torch.equal(again.to_dense(), packed.to_dense())
    assert again.damage() is None


def test_a_packed_weight_is_projected_at_the_positions_it_has() -> None:
    _, weight = pruned((83, 70), 0.03)
    packed, other = weight.packed(), torch.randn(83, 70)
    there = packed.to_dense() != 0
    assert torch.equal(packed.project_(other).to_dense(), torch.where(there, other, 0))


@pytest.mark.parametrize(("bits", "codes"), [(4, 173), (4, 1453), (16, 364)])
def test_gaps_that_are_too_few_or_more_bytes_than_the_bitmap_are_refused(bits: int, codes: int) -> None:
    config = PackedConfig(density=0.03, bits=bits, codes=codes)
    assert "are not those of 174 values" in str(PrunedWeight.rejects((83, 70), config))


@pytest.mark.parametrize("damaged", [0x00, 0x77, 0xFF])
def test_gaps_beyond_the_weight_or_of_another_count_are_noticed(damaged: int) -> None:
    _, weight = pruned((83, 70), 0.03)
    packed = weight.packed()
    assert packed.damage() is None
    packed.gaps.fill_(damaged)
    packed.remake_("cpu")
    assert packed.damage() == "its positions are not 174 of 5,810"
