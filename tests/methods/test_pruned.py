from typing import ClassVar

import pytest
import torch

from compressnet.methods.pruned import PrunedConfig, PrunedWeight
from tests.methods.contract import Contract


class TestPruned(Contract):
    weight = PrunedWeight
    config: ClassVar = {"density": 0.1}
    seeded = False


class TestPrunedLittle(Contract):
    weight = PrunedWeight
    config: ClassVar = {"density": 0.8}
    seeded = False


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
