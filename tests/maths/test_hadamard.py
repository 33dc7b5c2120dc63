"""The Hadamard transform against SciPy's matrix."""

import math

import pytest
import torch
from scipy.linalg import hadamard as scipy_hadamard
from torch.utils.flop_counter import FlopCounterMode

from compressnet.maths.hadamard import (
    COMPILED_FROM,
    THREE_FROM,
    factors,
    hadamard,
    hadamard_matrix,
    macs,
    next_power_of_two,
    transform,
)

POWERS = [1, 2, 4, 8, 16, 64, 128, 512, 1024, THREE_FROM]


def dense(n: int) -> torch.Tensor:
    return torch.from_numpy(scipy_hadamard(n)).double() / math.sqrt(n)


@pytest.mark.parametrize(("n", "power"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (1023, 1024), (1025, 2048)])
def test_the_next_power_of_two_is_the_smallest_that_holds_n(n: int, power: int) -> None:
    assert next_power_of_two(n) == power


@pytest.mark.parametrize("n", POWERS[:-1])
def test_the_matrix_is_scipys_divided_by_the_root(n: int) -> None:
    assert torch.equal(hadamard_matrix(n, torch.float64), dense(n))


@pytest.mark.parametrize("n", [2, 16, 128])
def test_the_matrix_is_symmetric_and_its_own_inverse(n: int) -> None:
    H = hadamard_matrix(n, torch.float64)
    assert torch.equal(H, H.T)
    torch.testing.assert_close(H @ H, torch.eye(n, dtype=torch.float64), atol=1e-14, rtol=0)


@pytest.mark.parametrize("n", [1 << k for k in range(20)])
def test_the_factors_multiply_to_the_size_and_are_of_like_size(n: int) -> None:
    sizes = factors(n)
    assert math.prod(sizes) == n
    assert max(sizes) <= 2 * min(sizes)
    assert list(sizes) == sorted(sizes)
    assert len(sizes) == (2 if n < THREE_FROM else 3)


@pytest.mark.parametrize(
    ("n", "rows", "columns", "expected"),
    [
        (64, 64, 64, 64 * 16),
        (4096, 4096, 4096, 4096 * 48),
        (16_384, 4096, 16_384, 1024 * (4 * 16 + 4 * 64)),
        (16_384, 16_384, 9216, 1024 * (16 * 9 + 9 * 64)),
    ],
)
def test_the_products_cost_what_the_used_part_of_each_factor_has(
    n: int, rows: int, columns: int, expected: int
) -> None:
    assert macs(n, rows, columns) == expected
    with FlopCounterMode(display=False) as counter:
        transform(torch.ones(3, columns), n, rows)
    assert counter.get_total_flops() == 3 * 2 * expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("columns", "rows"), [(1.0, 1.0), (0.002, 1.0), (1.0, 0.01), (0.6, 0.26)])
@pytest.mark.parametrize("n", [1 << k for k in range(9, 15)])
def test_the_compiled_loop_gives_what_the_products_give(
    n: int, columns: float, rows: float, dtype: torch.dtype
) -> None:
    assert n >= COMPILED_FROM
    x = torch.randn(40, round(columns * n), dtype=dtype, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hadamard(x, n, round(rows * n)), transform(x, n, round(rows * n)))


@pytest.mark.parametrize("n", POWERS)
def test_the_transform_is_the_product_with_scipys_matrix(n: int) -> None:
    x = torch.randn(3, 2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hadamard(x, n), x @ dense(n))


@pytest.mark.parametrize("rows", [1, 5, 33, 64, None])
@pytest.mark.parametrize("columns", [1, 7, 40, 64])
def test_padding_and_unwanted_rows_change_nothing_else(columns: int, rows: int | None) -> None:
    x = torch.randn(5, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hadamard(x, 64, rows), x @ dense(64)[:columns, :rows])


@pytest.mark.parametrize(("columns", "rows"), [(1, 2048), (1250, 500), (2047, 1), (2048, 1500)])
def test_padding_and_unwanted_rows_change_nothing_else_in_three_products(columns: int, rows: int) -> None:
    x = torch.randn(2, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hadamard(x, 2048, rows), x @ dense(2048)[:columns, :rows])


@pytest.mark.parametrize("shape", [(16,), (0, 16), (2, 0, 16), (2, 3, 4, 16)])
def test_any_leading_dimensions_are_kept(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape, dtype=torch.float64)
    torch.testing.assert_close(hadamard(x, 16), x @ dense(16))


def test_a_transposed_input_is_read_by_its_logical_order() -> None:
    x = torch.randn(16, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hadamard(x.T, 16), x.T @ dense(16))


@pytest.mark.parametrize(("n", "columns", "rows"), [(16, 16, 16), (16, 9, 5), (512, 9, 512), (4096, 3, 2)])
def test_gradients_are_right_and_so_are_theirs(n: int, columns: int, rows: int) -> None:
    x = torch.randn(2, columns, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: hadamard(x, n, rows), x)
    assert torch.autograd.gradgradcheck(lambda x: hadamard(x, n, rows).sin(), x)


@pytest.mark.parametrize("n", [64, 512])
def test_functions_of_it_are_differentiated_by_torch_func(n: int) -> None:
    x, upstream = torch.randn(2, 3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, pull = torch.func.vjp(lambda x: hadamard(x, n), x)
    torch.testing.assert_close(y, x @ dense(n))
    torch.testing.assert_close(pull(upstream)[0], upstream @ dense(n))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.06), (torch.float16, 0.01)])
def test_the_transform_keeps_the_dtype(dtype: torch.dtype, tolerance: float) -> None:
    x = torch.randn(4, 256, generator=torch.Generator().manual_seed(0)).to(dtype)
    y = hadamard(x, 256)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), x.double() @ dense(256), atol=tolerance, rtol=0.02)


def test_a_transform_first_used_in_inference_mode_can_be_trained_afterwards() -> None:
    with torch.inference_mode():
        hadamard(torch.ones(1, 1 << 13), 1 << 13)
    x = torch.ones(1, 1 << 13, requires_grad=True)
    hadamard(x, 1 << 13).sum().backward()
    assert x.grad is not None


def test_the_meta_device_gives_the_shape() -> None:
    y = hadamard(torch.empty(7, 100, device="meta"), 128, 90)
    assert (y.shape, y.device.type) == ((7, 90), "meta")


def test_compilation_sees_one_graph() -> None:
    x = torch.randn(3, 100, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(lambda x: hadamard(x, 128, 90), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), hadamard(x, 128, 90))
