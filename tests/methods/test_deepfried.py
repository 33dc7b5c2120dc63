import math
from typing import ClassVar

import pytest
import torch
from scipy.linalg import hadamard

from compressnet.methods.deepfried import DeepFriedConfig, DeepFriedWeight
from tests.methods.contract import Contract


class TestDeepFried(Contract):
    weight = DeepFriedWeight
    config: ClassVar = {"steps": 20}


@pytest.mark.parametrize(("outs", "ins"), [(16, 16), (40, 16), (10, 30), (70, 33)])
def test_the_dense_weight_is_the_papers_product(outs: int, ins: int) -> None:
    weight = DeepFriedWeight((outs, ins), DeepFriedConfig(sigma=1.7), seed=5, dtype=torch.float64)
    d = weight.width
    H = torch.tensor(hadamard(d), dtype=torch.float64)  # entries ±1
    rows = []
    for block in range(weight.blocks):
        P = torch.eye(d, dtype=torch.float64)[weight.order.view(weight.blocks, d)[block] - block * d]
        B = torch.zeros(d, dtype=torch.float64)
        B[:ins] = weight.signs[block].detach()
        rows.append(H @ torch.diag(weight.gauss[block].detach()) @ P @ H @ torch.diag(B))
    V = weight.scale.detach()[:, None] * torch.cat(rows)[:outs, :ins] / (1.7 * math.sqrt(d))
    torch.testing.assert_close(weight.to_dense(), V)


def test_a_fresh_draw_has_entries_of_standard_deviation_one_over_sigma() -> None:
    weight = DeepFriedWeight((2048, 512), DeepFriedConfig(init="random", sigma=4.0), seed=5)
    assert weight.to_dense().std().item() == pytest.approx(1 / 4, rel=0.02)


def test_the_default_sigma_is_hes_choice() -> None:
    weight = DeepFriedWeight((600, 600), DeepFriedConfig(init="random"), seed=5)
    assert weight.to_dense().std().item() == pytest.approx(math.sqrt(2 / 600), rel=0.05)


def test_only_rows_and_columns_that_are_used_are_stored() -> None:
    weight = DeepFriedWeight((4096, 9216), DeepFriedConfig(), seed=5, device="meta")
    assert weight.numel == 4096 + 16384 + 9216


def test_the_regression_beats_the_draw_and_the_zero_weight_on_outputs() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, 8, generator=generator) @ torch.randn(8, 96, generator=generator)
    dense = torch.randn(64, 96, generator=generator) / 10
    targets = inputs @ dense.T
    drawn = DeepFriedWeight((64, 96), DeepFriedConfig(init="random"), seed=5).project_(dense, inputs)
    fitted = DeepFriedWeight((64, 96), DeepFriedConfig(), seed=5).project_(dense, inputs)
    error = (fitted.matmul(inputs) - targets).norm()
    assert error < 0.9 * targets.norm()
    assert error < (drawn.matmul(inputs) - targets).norm()


def test_the_dense_matrix_is_never_formed_in_a_product() -> None:
    weight = DeepFriedWeight((1 << 15, 1 << 15), DeepFriedConfig(), seed=5)
    x = torch.randn(2, 1 << 15, requires_grad=True)
    weight.matmul(x).sum().backward()  # the dense matrix would take 4 GiB
    assert x.grad is not None


@pytest.mark.parametrize(("shape", "reason"), [((8, 8, 3, 3), "1×1"), ((2, 20), "fewer")])
def test_what_it_cannot_hold_is_refused_with_the_reason(shape: tuple[int, ...], reason: str) -> None:
    assert reason in str(DeepFriedWeight.rejects(shape, DeepFriedConfig()))
