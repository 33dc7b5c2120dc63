from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from compressnet.methods.lowrank import LowRankConfig, LowRankWeight
from compressnet.structured import ConvGeometry
from tests.methods.contract import Contract


class TestLowRank(Contract):
    weight = LowRankWeight
    config: ClassVar = {"ratio": 3}
    seeded = False


class TestLowRankOfARank(Contract):
    weight = LowRankWeight
    config: ClassVar = {"rank": 3}
    seeded = False


class TestLowRankOfSeparableFilters(Contract):
    weight = LowRankWeight
    config: ClassVar = {"ratio": 3, "scheme": "separable"}
    seeded = False


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (12, 6, 3, 3), (40, 2, 3, 3)])
def test_the_projection_is_the_truncated_svd(shape: tuple[int, ...]) -> None:
    dense = torch.randn(shape, dtype=torch.float64)
    weight = LowRankWeight(shape, LowRankConfig(rank=4), seed=1, dtype=torch.float64).project_(dense)
    u, s, vt = np.linalg.svd(dense.flatten(1).numpy(), full_matrices=False)
    expected = (u[:, :4] * s[:4]) @ vt[:4]
    np.testing.assert_allclose(weight.to_dense().detach().flatten(1).numpy(), expected, atol=1e-10)
    for factor in (weight.left.detach(), weight.right.detach().T):
        np.testing.assert_allclose((factor.T @ factor).numpy(), np.diag(s[:4]), atol=1e-10)


def correlated(samples: int, width: int, generator: torch.Generator) -> torch.Tensor:
    mixing = torch.randn(width, width, generator=generator) * torch.logspace(0, -2, width)[:, None]
    return torch.randn(samples, width, generator=generator) @ mixing


@pytest.mark.parametrize("shape", [(40, 60), (60, 40, 1, 1)])
@pytest.mark.parametrize("samples", [30, 1000])
def test_knowing_the_inputs_makes_the_error_of_unseen_outputs_less(shape: tuple[int, ...], samples: int) -> None:
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(shape, generator=generator)
    inputs = correlated(samples + 500, shape[1], generator)
    known, unseen = inputs[:samples], inputs[samples:]
    plain = LowRankWeight(shape, LowRankConfig(rank=8), seed=1).project_(dense)
    weighted = LowRankWeight(shape, LowRankConfig(rank=8), seed=1).project_(dense, known)
    targets = unseen @ dense.flatten(1).T
    errors = [(w.matmul(unseen) - targets).norm() for w in (weighted, plain)]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("scheme", ["flat", "separable"])
@pytest.mark.parametrize("side", [(3, 3), (5, 3)])
def test_knowing_the_patches_makes_the_error_of_a_convolutions_unseen_outputs_less(
    scheme: str, side: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(16, 16, generator=generator) * torch.logspace(0, -2, 16)[:, None]
    noise = torch.einsum("nihw,ij->njhw", torch.randn(24, 16, 16, 16, generator=generator), mixing)
    images = functional.avg_pool2d(noise, 3, 1).relu()  # neighbours and channels are alike, as in a trained network
    dense = torch.randn(40, 16, *side, generator=generator)
    patches = ConvGeometry().patches(images[:12], side).movedim(1, 3).flatten(3).flatten(0, 2)
    config = LowRankConfig(rank=8, scheme=scheme)  # type: ignore[arg-type]
    plain = LowRankWeight(dense.shape, config, seed=1).project_(dense)
    weighted = LowRankWeight(dense.shape, config, seed=1).project_(dense, patches)
    wanted = functional.conv2d(images[12:], dense)
    errors = [(w.conv2d(images[12:], ConvGeometry()) - wanted).norm() for w in (weighted, plain)]
    assert errors[0] < 0.9 * errors[1]


def test_every_filter_of_the_separable_scheme_is_a_sum_of_vertical_times_horizontal_ones() -> None:
    dense = torch.randn(10, 6, 5, 3, dtype=torch.float64)
    config = LowRankConfig(rank=4, scheme="separable")
    weight = LowRankWeight(dense.shape, config, seed=1, dtype=torch.float64).project_(dense)
    vertical, horizontal = weight.right.detach().view(4, 6, 5), weight.left.detach().view(10, 3, 4)
    made = torch.einsum("kia,obk->oiab", vertical, horizontal)
    torch.testing.assert_close(weight.to_dense(), made)
    matrix = dense.permute(0, 3, 1, 2).reshape(30, 30)
    least = torch.linalg.svdvals(matrix)[4:].norm()
    torch.testing.assert_close((made - dense).norm(), least)
    assert weight.numel == LowRankWeight.macs_per_input(dense.shape, config) == 4 * (10 * 3 + 6 * 5)


def test_the_weighted_projection_is_the_optimum_over_all_weights_of_the_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    dense, inputs = torch.randn(12, 16, generator=generator).double(), correlated(200, 16, generator).double()
    weight = LowRankWeight((12, 16), LowRankConfig(rank=3), seed=1, dtype=torch.float64).project_(dense, inputs)
    values, vectors = np.linalg.eigh((inputs.T @ inputs + 1e-3 * inputs.square().mean() * 200 * torch.eye(16)).numpy())
    root, inverse = (vectors * values**p @ vectors.T for p in (0.5, -0.5))
    u, s, vt = np.linalg.svd(dense.numpy() @ root, full_matrices=False)
    np.testing.assert_allclose(weight.to_dense().detach().numpy(), (u[:, :3] * s[:3]) @ vt[:3] @ inverse, atol=1e-8)


@pytest.mark.parametrize(
    "window",
    [
        {"stride": (2, 1), "padding": (2, 1), "padding_mode": "reflect"},
        {"stride": (1, 3), "padding": (1, 2), "dilation": (1, 2)},
        {"padding": "same", "dilation": (2, 1)},
        {"padding": "valid"},
    ],
    ids=str,
)
@pytest.mark.parametrize("scheme", ["flat", "separable"])
def test_a_convolution_runs_as_two_and_never_makes_its_weight(
    scheme: str, window: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    conv = nn.Conv2d(12, 20, (5, 3), bias=False, **window).double()
    config = LowRankConfig(rank=13, scheme=scheme)  # type: ignore[arg-type]
    weight = LowRankWeight((20, 12, 5, 3), config, seed=1, dtype=torch.float64)
    weight.project_(conv.weight.detach())
    conv.weight = nn.Parameter(weight.to_dense().detach())
    monkeypatch.setattr(LowRankWeight, "to_dense", None)
    x = torch.randn(2, 12, 11, 9, dtype=torch.float64)
    torch.testing.assert_close(weight.conv2d(x, ConvGeometry.of(conv)), conv(x))


def test_a_ratio_takes_the_largest_rank_that_stores_no_more() -> None:
    config = LowRankConfig(ratio=16)
    weight = LowRankWeight((4096, 9216), config, seed=1, device="meta")
    assert weight.left.shape == (4096, 177)
    assert weight.numel == LowRankWeight.macs_per_input((4096, 9216), config) == 177 * (4096 + 9216)
    assert weight.numel <= 4096 * 9216 / 16 < 178 * (4096 + 9216)


@pytest.mark.parametrize(
    ("shape", "keys", "reason"),
    [
        ((8, 16), {"rank": 9}, "rank 9 is above 8, the rank of a 8 × 16 matrix"),
        ((8, 16), {"rank": 6}, "rank 6 would not store fewer numbers than the dense weight; a rank up to 5 does"),
        ((8, 1, 1, 1), {"rank": 1}, "no rank does"),
        ((8, 16), {"ratio": 8}, "ratio 8 leaves fewer numbers than the 24 of rank 1"),
    ],
)
def test_what_it_cannot_hold_is_refused_with_the_reason(shape: tuple[int, ...], keys: dict, reason: str) -> None:
    assert reason in str(LowRankWeight.rejects(shape, LowRankConfig(**keys)))


@pytest.mark.parametrize("keys", [{}, {"rank": 2, "ratio": 3}])
def test_rank_and_ratio_exclude_each_other_and_one_is_needed(keys: dict) -> None:
    with pytest.raises(ValueError, match="exactly one of rank, ratio is to be given"):
        LowRankConfig(**keys)
