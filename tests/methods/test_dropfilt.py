from typing import ClassVar

import pytest
import torch

from compressnet.methods.dropfilt import DropFiltConfig, DropFiltWeight
from tests.methods.contract import Contract


class TestDropFilt(Contract):
    weight = DropFiltWeight
    config: ClassVar = {"ratio": 4}
    seeded = False


@pytest.mark.parametrize("shape", [(13, 7), (21, 5, 3, 3)])
def test_the_filters_of_largest_norm_are_kept_as_they_are(shape: tuple[int, ...]) -> None:
    dense = torch.randn(shape) * torch.linspace(0.1, 3, shape[0])[torch.randperm(shape[0])].view(
        -1, *[1] * (len(shape) - 1)
    )
    weight = DropFiltWeight(shape, DropFiltConfig(ratio=3), seed=1).project_(dense)
    norms = dense.flatten(1).norm(dim=1)
    kept = norms >= norms.sort(descending=True).values[shape[0] // 3 - 1]
    assert torch.equal(weight.to_dense()[kept], dense[kept])
    assert weight.to_dense()[~kept].count_nonzero() == 0


@pytest.mark.parametrize("assign", [True, False])
def test_another_choice_of_filters_is_loaded_and_stays_whole_in_another_dtype(assign: bool) -> None:
    weight = DropFiltWeight((13, 7), DropFiltConfig(ratio=3), seed=1).project_(torch.randn(13, 7)).bfloat16()
    other = DropFiltWeight((13, 7), DropFiltConfig(ratio=3), seed=1, dtype=torch.bfloat16)
    other.load_state_dict(weight.state_dict(), assign=assign)
    assert torch.equal(other.to_dense(), weight.to_dense())
    assert other.state_dict()["bitmap"].dtype is torch.uint8


def test_its_values_are_a_share_of_the_filters_and_its_bitmap_comes_on_top() -> None:
    weight = DropFiltWeight((64, 32, 5, 5), DropFiltConfig(ratio=16), seed=1, device="meta")
    assert weight.values.numel() == 64 * 32 * 25 / 16
    assert weight.numel == weight.values.numel() + 8


def test_one_filter_is_the_least_and_the_plan_says_so() -> None:
    config = DropFiltConfig(ratio=64)
    assert len(DropFiltWeight((32, 3, 5, 5), config, seed=1, device="meta").values) == 1
    assert "one filter is kept, 1/32" in str(DropFiltWeight.remark((32, 3, 5, 5), config))
    assert DropFiltWeight.remark((64, 3, 5, 5), config) is None


def test_a_ratio_that_keeps_everything_is_refused() -> None:
    assert "would not be fewer" in str(DropFiltWeight.rejects((8, 8, 3, 3), DropFiltConfig(ratio=1)))
