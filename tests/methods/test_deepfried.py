import math
from typing import ClassVar

import pytest
import torch
from scipy.linalg import hadamard
from torch.nn import functional

from compressnet.methods.deepfried import DeepFriedConfig, DeepFriedWeight
from compressnet.rewrite import relative_error
from compressnet.structured import ConvGeometry
from tests.methods.contract import Contract


class TestDeepFried(Contract):
    weight = DeepFriedWeight
    config: ClassVar = {"steps": 20}


class TestDeepFriedOfCopies(Contract):
    weight = DeepFriedWeight
    config: ClassVar = {"steps": 20, "copies": 3}


@pytest.mark.parametrize(("outs", "ins"), [(16, 16), (40, 16), (10, 30), (70, 33)])
@pytest.mark.parametrize("copies", [1, 3])
def test_the_dense_weight_is_the_papers_product_and_the_sum_of_its_copies(outs: int, ins: int, copies: int) -> None:
    config = DeepFriedConfig(sigma=1.7, copies=copies)
    weight = DeepFriedWeight((outs, ins), config, seed=5, dtype=torch.float64)
    d, order = weight.width, weight.order.view(-1, weight.width)
    H = torch.tensor(hadamard(d), dtype=torch.float64)  # entries ±1
    total = torch.zeros(outs, ins, dtype=torch.float64)
    for copy in range(copies):
        rows = []
        for block in range(copy * weight.blocks, (copy + 1) * weight.blocks):
            P = torch.eye(d, dtype=torch.float64)[order[block] - block * d]
            B = torch.zeros(d, dtype=torch.float64)
            B[:ins] = weight.signs[block].detach()
            rows.append(H @ torch.diag(weight.gauss[block].detach()) @ P @ H @ torch.diag(B))
        total += weight.scale[copy].detach()[:, None] * torch.cat(rows)[:outs, :ins] / (1.7 * math.sqrt(d))
    torch.testing.assert_close(weight.to_dense(), total / math.sqrt(copies))


@pytest.mark.parametrize("copies", [1, 4])
def test_a_fresh_draw_has_entries_of_standard_deviation_one_over_sigma(copies: int) -> None:
    weight = DeepFriedWeight((2048, 512), DeepFriedConfig(init="random", sigma=4.0, copies=copies), seed=5)
    assert weight.to_dense().std().item() == pytest.approx(1 / 4, rel=0.02)


def test_the_default_sigma_is_hes_choice() -> None:
    weight = DeepFriedWeight((600, 600), DeepFriedConfig(init="random"), seed=5)
    assert weight.to_dense().std().item() == pytest.approx(math.sqrt(2 / 600), rel=0.05)


def test_only_rows_and_columns_that_are_used_are_stored() -> None:
    weight = DeepFriedWeight((4096, 9216), DeepFriedConfig(), seed=5, device="meta")
    assert weight.numel == 4096 + 16384 + 9216


@pytest.mark.parametrize("copies", [1, 4])
def test_every_copy_stores_as_much_and_costs_as_much(copies: int) -> None:
    config, one = DeepFriedConfig(copies=copies), DeepFriedConfig()
    assert DeepFriedWeight((500, 800), config, seed=5, device="meta").numel == copies * (500 + 1024 + 800)
    assert DeepFriedWeight.macs_per_input((500, 800), config) == copies * DeepFriedWeight.macs_per_input(
        (500, 800), one
    )


def test_the_first_of_several_copies_is_the_draw_of_one() -> None:
    several, one = (DeepFriedWeight((40, 16), DeepFriedConfig(copies=c), seed=5) for c in (3, 1))
    assert torch.equal(several.order[: len(one.order)], one.order)
    assert torch.equal(several.gauss[: len(one.gauss)], one.gauss)


def test_more_copies_come_nearer_to_the_outputs_for_unseen_inputs() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1500, 24, generator=generator) @ torch.randn(24, 96, generator=generator)
    dense = torch.randn(64, 96, generator=generator) / 10
    errors = []
    for copies in (1, 2, 4):
        weight = DeepFriedWeight((64, 96), DeepFriedConfig(copies=copies), seed=5).project_(dense, inputs[:1000])
        errors.append(relative_error(weight, dense, inputs[1000:]))
    assert errors[1] < 0.9 * errors[0]
    assert errors[2] < 0.9 * errors[1]


def test_the_scales_of_all_copies_are_the_least_squares_optimum() -> None:
    weight = DeepFriedWeight((40, 24), DeepFriedConfig(copies=3), seed=5, dtype=torch.float64)
    inputs, dense = torch.randn(200, 24, dtype=torch.float64), torch.randn(40, 24, dtype=torch.float64)
    weight.solve_(inputs, inputs @ dense.T)
    error = (weight.matmul(inputs) - inputs @ dense.T).square().sum()
    (slope,) = torch.autograd.grad(error, [weight.scale])
    assert slope.abs().max() < 1e-4 * error  # but for the ridge


def test_a_convolution_with_a_large_kernel_is_fitted_to_what_its_patches_give() -> None:
    generator = torch.Generator().manual_seed(0)
    images = functional.avg_pool2d(torch.randn(30, 8, 18, 18, generator=generator), 3, 1)  # neighbours are alike
    dense = torch.randn(32, 8, 3, 3, generator=generator)
    patches = ConvGeometry().patches(images, (3, 3)).movedim(1, 3).flatten(3).flatten(0, 2)
    weight = DeepFriedWeight((32, 8, 3, 3), DeepFriedConfig(copies=2), seed=5).project_(dense, patches[:2000])
    without = DeepFriedWeight((32, 8, 3, 3), DeepFriedConfig(copies=2), seed=5).project_(dense)
    errors = [relative(w, dense, images[20:]) for w in (weight, without)]
    assert errors[0] < 0.8 * errors[1] < 0.8


def relative(weight: DeepFriedWeight, dense: torch.Tensor, images: torch.Tensor) -> float:
    wanted = functional.conv2d(images, dense)
    return ((weight.conv2d(images, ConvGeometry()) - wanted).norm() / wanted.norm()).item()


def test_a_large_kernel_is_kept_dense_for_inference_and_a_product_is_not() -> None:
    kernel, product = (DeepFriedWeight(shape, DeepFriedConfig(), seed=5) for shape in [(32, 8, 3, 3), (32, 72, 1, 1)])
    for weight in (kernel, product):
        weight.freeze()
    assert kernel._frozen is not None
    assert product._frozen is None


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


@pytest.mark.parametrize(("shape", "copies"), [((2, 20), 1), ((8, 2, 3, 3), 4), ((24, 48), 9)])
def test_what_would_not_be_smaller_is_refused_with_the_reason(shape: tuple[int, ...], copies: int) -> None:
    assert "would not be fewer" in str(DeepFriedWeight.rejects(shape, DeepFriedConfig(copies=copies)))
