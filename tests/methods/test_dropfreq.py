from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from compressnet.methods.dropfreq import DropFreqConfig, DropFreqWeight
from compressnet.methods.freshnet import FreshNetConfig, FreshNetWeight
from tests.methods.contract import Contract


class TestDropFreq(Contract):
    weight = DropFreqWeight
    config: ClassVar = {"ratio": 4}


class TestDropFreqBelowOneCoefficientAFilter(Contract):
    weight = DropFreqWeight
    config: ClassVar = {"ratio": 16}


@pytest.mark.parametrize(("shape", "ratio"), [((6, 5, 3, 3), 2.5), ((6, 5, 5, 3), 4), ((6, 5, 3, 3), 20)])
def test_what_is_kept_are_the_lowest_frequencies_of_the_dense_weight(shape: tuple[int, ...], ratio: float) -> None:
    dense = torch.randn(shape, dtype=torch.float64)
    weight = DropFreqWeight(shape, DropFreqConfig(ratio=ratio), seed=3, dtype=torch.float64).project_(dense)
    before = dctn(dense.numpy(), type=2, norm="ortho", axes=(2, 3))
    after = dctn(weight.to_dense().detach().numpy(), type=2, norm="ortho", axes=(2, 3))
    kept = np.abs(after) > 1e-12
    np.testing.assert_allclose(after[kept], before[kept])
    assert kept.sum() == int(dense.numel() / ratio) == weight.numel
    band = np.broadcast_to(np.add.outer(np.arange(shape[2]), np.arange(shape[3])), shape)
    last = band[kept].max()
    assert kept[band < last].all()


def test_the_hash_spreads_what_is_kept_of_the_last_band_over_the_filters() -> None:
    weight = DropFreqWeight((64, 64, 3, 3), DropFreqConfig(ratio=36), seed=3)
    kept = torch.zeros(64 * 64 * 9).index_fill(0, weight.positions.long(), 1).view(64, -1).sum(1)
    assert kept.sum() == 1024
    assert 4 < kept.min() <= kept.max() < 32
    other = DropFreqWeight((64, 64, 3, 3), DropFreqConfig(ratio=36), seed=4)
    assert not torch.equal(weight.positions, other.positions)


@pytest.mark.parametrize("ratio", [2, 7.5, 16, 64])
def test_its_budget_is_freshnets(ratio: float) -> None:
    shape = (32, 16, 5, 5)
    fresh = FreshNetWeight(shape, FreshNetConfig(ratio=ratio), seed=3, device="meta")
    assert DropFreqWeight(shape, DropFreqConfig(ratio=ratio), seed=3, device="meta").numel == fresh.numel


def test_a_kernel_of_one_coefficient_says_so() -> None:
    assert "hashed" in str(DropFreqWeight.remark((8, 8, 1, 1), DropFreqConfig(ratio=2)))
    assert DropFreqWeight.remark((8, 8, 3, 1), DropFreqConfig(ratio=2)) is None


def test_a_ratio_that_keeps_everything_is_refused() -> None:
    assert "keeps all 576 numbers" in str(DropFreqWeight.rejects((8, 8, 3, 3), DropFreqConfig(ratio=1)))
