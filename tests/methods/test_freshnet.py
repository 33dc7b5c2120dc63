from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from compressnet.maths.dct import band_numels, bands
from compressnet.methods.freshnet import FreshNetConfig, FreshNetWeight
from tests.methods.contract import Contract


class TestFreshNet(Contract):
    weight = FreshNetWeight
    config: ClassVar = {"ratio": 4}


class TestFreshNetWithThePapersHash(Contract):
    weight = FreshNetWeight
    config: ClassVar = {"ratio": 2.5, "alpha": 1, "beta": 1, "hashing": "independent"}


@pytest.mark.parametrize("kernel", [(3, 3), (5, 3), (1, 7), (11, 11), (1, 1)])
def test_the_dense_weight_is_the_inverse_dct_of_signed_shared_coefficients(kernel: tuple[int, int]) -> None:
    weight = FreshNetWeight((6, 5, *kernel), FreshNetConfig(ratio=2), seed=3, dtype=torch.float64)
    with torch.no_grad():
        weight.buckets.copy_(torch.randn(weight.buckets.shape))
    table = np.concatenate(
        [weight.buckets.detach().numpy()[:, None], -weight.buckets.detach().numpy()[:, None]], 1
    ).flatten()
    coefficients = table[weight.indices.numpy()].reshape(6, 5, *kernel)
    expected = idctn(coefficients, type=2, norm="ortho", axes=(2, 3))
    np.testing.assert_allclose(weight.to_dense().detach().numpy(), expected, atol=1e-12)


def test_no_two_bands_share_a_bucket() -> None:
    weight = FreshNetWeight((8, 8, 3, 3), FreshNetConfig(ratio=4), seed=3)
    buckets = (weight.indices >> 1).view(-1, 9)
    edges = np.cumsum([0, *weight.band_buckets()])
    for band in range(5):
        read = buckets[:, bands(3, 3) == band]
        assert read.min() >= edges[band]
        assert read.max() < edges[band + 1]


def test_the_projection_is_the_signed_mean_in_the_frequency_domain() -> None:
    dense = torch.randn(6, 5, 3, 3, dtype=torch.float64)
    weight = FreshNetWeight((6, 5, 3, 3), FreshNetConfig(ratio=3), seed=3, dtype=torch.float64).project_(dense)
    coefficients = dctn(dense.numpy(), type=2, norm="ortho", axes=(2, 3)).reshape(-1)
    indices = weight.indices.numpy()
    for bucket in range(weight.buckets.numel()):
        readers = np.flatnonzero(indices >> 1 == bucket)
        signs = 1 - 2 * (indices[readers] & 1)
        assert weight.buckets[bucket].item() == pytest.approx((signs * coefficients[readers]).mean())


@pytest.mark.parametrize("hashing", ["balanced", "independent"])
def test_ratio_one_is_lossless_with_the_balanced_hash_only(hashing: str) -> None:
    dense = torch.randn(20, 30, 3, 3)
    weight = FreshNetWeight((20, 30, 3, 3), FreshNetConfig(ratio=1, hashing=hashing), seed=3).project_(dense)
    error = ((weight.to_dense() - dense).norm() / dense.norm()).item()
    assert error < 1e-5 if hashing == "balanced" else 0.4 < error < 0.8


@pytest.mark.parametrize(
    ("shape", "ratio"), [((64, 32, 3, 3), 16), ((32, 1, 3, 3), 4), ((8, 8, 7, 1), 3), ((5, 5, 5, 5), 100)]
)
def test_the_total_meets_the_ratio(shape: tuple[int, ...], ratio: float) -> None:
    weight = FreshNetWeight(shape, FreshNetConfig(ratio=ratio), seed=3, device="meta")
    assert weight.numel == max(len(band_numels(weight.shape)), int(weight.shape.numel() / ratio))
    assert all(1 <= k <= n for k, n in zip(weight.band_buckets(), band_numels(weight.shape), strict=True))


def test_low_frequencies_get_more_buckets_a_coefficient_by_default() -> None:
    weight = FreshNetWeight((64, 64, 5, 5), FreshNetConfig(ratio=16), seed=3, device="meta")
    bands = zip(weight.band_buckets(), band_numels(weight.shape), strict=True)
    rates = [k / n for k, n in bands if k > 1]  # each band has one
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 10 * rates[-1]


def test_a_uniform_density_treats_all_bands_alike() -> None:
    weight = FreshNetWeight((64, 64, 5, 5), FreshNetConfig(ratio=16, alpha=1, beta=1), seed=3, device="meta")
    assert all(abs(k - n / 16) <= 1 for k, n in zip(weight.band_buckets(), band_numels(weight.shape), strict=True))


def test_a_kernel_of_one_coefficient_says_that_it_is_plain_hashing() -> None:
    assert "plain hashing" in str(FreshNetWeight.remark((8, 8, 1, 1), FreshNetConfig(ratio=2)))
    assert FreshNetWeight.remark((8, 8, 3, 1), FreshNetConfig(ratio=2)) is None
