import re
from typing import ClassVar

import numpy as np
import pytest
import torch

from compressnet.methods.monarch import MonarchConfig, MonarchWeight
from tests.methods.contract import Contract


class TestMonarch(Contract):
    weight = MonarchWeight
    config: ClassVar = {}
    seeded = False


class TestMonarchWithBlocksThatDoNotDivide(Contract):
    weight = MonarchWeight
    config: ClassVar = {"blocks": 3}
    seeded = False


def filled(shape: tuple[int, ...], blocks: int) -> MonarchWeight:
    weight = MonarchWeight(shape, MonarchConfig(blocks=blocks), seed=1, dtype=torch.float64)
    with torch.no_grad():
        for p in weight.parameters():
            p.normal_()
    return weight


@pytest.mark.parametrize("m", [3, 4, 5])
def test_a_square_weight_is_the_papers_product_of_permutations_and_block_diagonals(m: int) -> None:
    n, weight = m * m, filled((m * m, m * m), m)
    left, right = weight.left.detach().numpy(), weight.right.detach().numpy()
    P = np.eye(n).reshape(m, m, n).transpose(1, 0, 2).reshape(n, n)
    L, R = np.zeros((n, n)), np.zeros((n, n))
    for block in range(m):
        own = slice(block * m, (block + 1) * m)
        L[own, own] = left[block::m]
        R[own, own] = right[:, own]
    np.testing.assert_allclose(weight.to_dense().detach().numpy(), P @ L @ P.T @ R, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "blocks"),
    [((16, 16), 4), ((20, 33), 4), ((33, 20), 5), ((48, 12), 3), ((12, 35, 1, 1), 3), ((12, 5, 5, 3), 4)],
)
@pytest.mark.parametrize("samples", [None, 400])
def test_a_weight_that_is_monarch_is_projected_onto_itself(
    shape: tuple[int, ...], blocks: int, samples: int | None
) -> None:
    dense = filled(shape, blocks).to_dense().detach()
    inputs = None if samples is None else torch.randn(samples, dense[0].numel(), dtype=torch.float64)
    again = MonarchWeight(shape, MonarchConfig(blocks=blocks), seed=1, dtype=torch.float64).project_(dense, inputs)
    torch.testing.assert_close(again.to_dense(), dense, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("shape", "blocks"), [((16, 16), 4), ((20, 33), 4), ((33, 20), 5)])
def test_no_descent_from_the_projection_of_a_nearly_monarch_weight_finds_a_nearer_one(
    shape: tuple[int, int], blocks: int
) -> None:
    dense = filled(shape, blocks).to_dense().detach() + 0.1 * torch.randn(shape, dtype=torch.float64)
    weight = MonarchWeight(shape, MonarchConfig(blocks=blocks), seed=1, dtype=torch.float64).project_(dense)
    closed = (weight.to_dense() - dense).square().sum().item()
    with torch.no_grad():
        for p in weight.parameters():
            p.add_(0.05 * torch.randn_like(p))
    search = torch.optim.LBFGS(weight.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def error() -> torch.Tensor:
        search.zero_grad()
        missing = (weight.to_dense() - dense).square().sum()
        missing.backward()
        return missing

    search.step(error)
    found = error().item()
    assert closed <= found * (1 + 1e-9)
    assert found == pytest.approx(closed, rel=1e-3)  # the search did come as far


@pytest.mark.parametrize(("shape", "blocks"), [((16, 16), 4), ((20, 33), 4), ((33, 20), 5)])
def test_the_projection_is_the_rank_one_svd_of_every_tile(shape: tuple[int, int], blocks: int) -> None:
    dense = torch.randn(shape, dtype=torch.float64)
    weight = MonarchWeight(shape, MonarchConfig(blocks=blocks), seed=1, dtype=torch.float64).project_(dense)
    made, width = weight.to_dense().detach().numpy(), -(-shape[1] // blocks)
    for group in range(blocks):
        for start in range(0, shape[1], width):
            u, s, vt = np.linalg.svd(dense.numpy()[group::blocks, start : start + width])
            np.testing.assert_allclose(
                made[group::blocks, start : start + width], s[0] * np.outer(u[:, 0], vt[0]), atol=1e-10
            )


@pytest.mark.parametrize("shape", [(40, 60), (61, 40, 1, 1)])
@pytest.mark.parametrize("samples", [50, 1000])
def test_knowing_the_inputs_makes_the_error_of_unseen_outputs_less(shape: tuple[int, ...], samples: int) -> None:
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(shape, generator=generator)
    mixing = torch.randn(shape[1], shape[1], generator=generator) * torch.logspace(0, -2, shape[1])[:, None]
    inputs = torch.randn(samples + 500, shape[1], generator=generator) @ mixing
    plain = MonarchWeight(shape, MonarchConfig(), seed=1).project_(dense)
    weighted = MonarchWeight(shape, MonarchConfig(), seed=1).project_(dense, inputs[:samples])
    targets = inputs[samples:] @ dense.flatten(1).T
    errors = [(w.matmul(inputs[samples:]) - targets).norm() for w in (weighted, plain)]
    assert errors[0] < 0.9 * errors[1]


def test_a_square_weight_has_the_papers_number_of_parameters() -> None:
    weight = MonarchWeight((4096, 4096), MonarchConfig(), seed=1, device="meta")
    assert weight.blocks == 64
    assert weight.numel == 2 * 4096 * 64 == MonarchWeight.macs_per_input((4096, 4096), MonarchConfig())


@pytest.mark.parametrize(
    ("shape", "blocks"),
    [((4096, 9216), 64), ((4096, 25088), 128), ((1000, 4096), 45), ((500, 800), 25), ((9, 1000), 9)],
)
def test_the_default_is_about_the_fourth_root_and_divides_both_sides_if_it_can(
    shape: tuple[int, int], blocks: int
) -> None:
    assert MonarchWeight(shape, MonarchConfig(), seed=1, device="meta").blocks == blocks


def test_a_product_makes_no_dense_weight() -> None:
    weight = MonarchWeight((1 << 16, 1 << 16), MonarchConfig(blocks=16), seed=1)
    assert weight.matmul(torch.randn(2, 1 << 16)).shape == (2, 1 << 16)  # the dense matrix would take 16 GiB


@pytest.mark.parametrize(
    ("shape", "blocks", "reason"),
    [
        ((8, 2, 3, 3), 6, "its 156 numbers would not be fewer than the 144"),
        ((40, 10), 7, "7 blocks would leave some empty; 5 would not"),
        ((4, 100), 5, "5 blocks would leave some empty; 3 would not"),
        ((1, 100), 5, "5 blocks would leave some empty"),
        ((20, 20), 10, "its 400 numbers would not be fewer than the 400"),
    ],
)
def test_what_it_cannot_hold_is_refused_with_the_reason(
    shape: tuple[int, ...], blocks: int | None, reason: str
) -> None:
    assert reason in str(MonarchWeight.rejects(shape, MonarchConfig(blocks=blocks)))


@pytest.mark.parametrize(("shape", "blocks"), [((1000, 4096), 999), ((40, 10), 9), ((64, 3, 11, 11), 63)])
def test_the_blocks_it_proposes_are_held(shape: tuple[int, ...], blocks: int) -> None:
    found = re.search(r"; (\d+) would not", str(MonarchWeight.rejects(shape, MonarchConfig(blocks=blocks))))
    assert found is not None
    assert MonarchWeight.rejects(shape, MonarchConfig(blocks=int(found[1]))) is None
