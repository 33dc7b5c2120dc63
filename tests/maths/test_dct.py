"""The DCT against SciPy and against the cosine sum written out."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import fft
from scipy.fft import dctn

from compressnet.maths.dct import bands, cosine_filter, dct, dct2_matrix, dct_matrix, even_then_odd, idct

SIZES = [1, 2, 3, 5, 7, 8, 11]
SHAPES = [(1, 1), (1, 5), (5, 1), (2, 3), (3, 3), (3, 5), (5, 5), (7, 7), (11, 4)]


@pytest.mark.parametrize("n", SIZES)
def test_the_matrix_transforms_as_scipy_does(n: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((n, 4))
    np.testing.assert_allclose(dct_matrix(n).numpy() @ vectors, fft.dct(vectors, axis=0, norm="ortho"), atol=1e-13)


@pytest.mark.parametrize("n", SIZES)
def test_the_matrix_is_the_cosine_sum_written_out(n: int) -> None:
    expected = [
        [math.sqrt((2 if j else 1) / n) * math.cos(math.pi * (2 * i + 1) * j / (2 * n)) for i in range(n)]
        for j in range(n)
    ]
    np.testing.assert_allclose(dct_matrix(n).numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("n", SIZES)
def test_the_matrix_is_orthonormal(n: int) -> None:
    C = dct_matrix(n)
    torch.testing.assert_close(C @ C.T, torch.eye(n, dtype=torch.float64), atol=1e-14, rtol=0)


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_the_matrix_of_two_dimensions_transforms_flattened_kernels_as_scipy_does(height: int, width: int) -> None:
    kernels = np.random.default_rng(0).standard_normal((6, height, width))
    expected = dctn(kernels, axes=(1, 2), norm="ortho").reshape(6, -1)
    np.testing.assert_allclose(kernels.reshape(6, -1) @ dct2_matrix(height, width).numpy().T, expected, atol=1e-13)


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_two_dimensions_are_two_products(height: int, width: int) -> None:
    kernel = torch.arange(height * width, dtype=torch.float64).view(height, width).sin()
    two_products = dct_matrix(height) @ kernel @ dct_matrix(width).T
    torch.testing.assert_close(
        dct2_matrix(height, width) @ kernel.flatten(), two_products.flatten(), atol=1e-13, rtol=0
    )


def test_a_constant_kernel_has_only_the_lowest_coefficient() -> None:
    coefficients = dct2_matrix(3, 5) @ torch.ones(15, dtype=torch.float64)
    assert coefficients[0].item() == pytest.approx(math.sqrt(15))
    assert coefficients[1:].abs().max() < 1e-14


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_the_band_of_a_coefficient_is_the_sum_of_its_frequencies(height: int, width: int) -> None:
    assert bands(height, width).tolist() == [a + b for a in range(height) for b in range(width)]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 9, 30, 31, 1000, 9216])
def test_the_fast_transform_and_its_inverse_are_scipys(n: int) -> None:
    x = torch.randn(2, 3, n, dtype=torch.float64)
    np.testing.assert_allclose(dct(x).numpy(), fft.dct(x.numpy(), norm="ortho"), atol=1e-12)
    np.testing.assert_allclose(idct(x).numpy(), fft.idct(x.numpy(), norm="ortho"), atol=1e-12)


@pytest.mark.parametrize("transform", [dct, idct])
@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_the_fast_transform_has_the_right_gradient(transform: Callable[[torch.Tensor], torch.Tensor], n: int) -> None:
    assert torch.autograd.gradcheck(transform, torch.randn(3, n, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 31, 1000])
def test_a_cosine_filter_is_a_diagonal_between_scipys_transforms_in_its_own_order(n: int) -> None:
    x, gains, order = torch.randn(2, n, dtype=torch.float64), torch.randn(n, dtype=torch.float64), even_then_odd(n)
    expected = fft.idct(fft.dct(x.numpy(), norm="ortho") * gains.numpy(), norm="ortho")
    np.testing.assert_allclose(cosine_filter(x[:, order], gains).numpy(), expected[:, order.numpy()], atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_a_cosine_filter_has_the_right_gradients(n: int) -> None:
    x, gains = (torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((3, n), (n,)))
    assert torch.autograd.gradcheck(cosine_filter, (x, gains))


@pytest.mark.parametrize("run", [dct, idct])
def test_a_transform_first_used_in_inference_mode_can_be_trained_afterwards(
    run: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    with torch.inference_mode():
        run(torch.ones(1, 77))
    x = torch.ones(1, 77, requires_grad=True)
    run(x).sum().backward()
    assert x.grad is not None
