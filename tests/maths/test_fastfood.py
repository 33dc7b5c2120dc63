"""Fastfood by compiled loops against the same by operations of torch."""

import pytest
import torch
from torch import Tensor

from compressnet.maths import fastfood

SIZES = [(512, 512, 1), (1100, 700, 1), (300, 2000, 1), (1300, 600, 3)]


def drawn(rows: int, ins: int, copies: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """x, S, G and B, all of which want gradients, and Π."""
    generator = torch.Generator().manual_seed(0)
    diagonals = fastfood.draw(rows, ins, seed=1, copies=copies)
    numbers = (torch.randn(2, 5, ins, dtype=torch.float64, generator=generator), *diagonals)
    return (
        *(each.to(dtype).requires_grad_() for each in numbers),
        fastfood.orders(len(diagonals[1]), diagonals[1].shape[1], 1, "cpu"),
    )


def by_torch(x: Tensor, scale: Tensor, gauss: Tensor, signs: Tensor, order: Tensor) -> Tensor:
    return (fastfood.mix(x, gauss, signs, order, scale.shape[1]) * scale).sum(-2)


@pytest.mark.parametrize(("rows", "ins", "copies"), SIZES)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loop_gives_what_operations_of_torch_give(
    rows: int, ins: int, copies: int, biased: bool, dtype: torch.dtype
) -> None:
    given = drawn(rows, ins, copies, dtype)
    bias = torch.arange(rows, dtype=dtype) if biased else None
    wanted = 3 * by_torch(*given) + (0 if bias is None else bias)
    torch.testing.assert_close(fastfood.multiply(*given, 3.0, bias), wanted)
    with torch.no_grad():
        torch.testing.assert_close(fastfood.multiply(*given, 3.0, bias), wanted)


@pytest.mark.parametrize(("rows", "ins", "copies"), SIZES)
@pytest.mark.parametrize("leading", [(2, 5), (1,), (), (0,)], ids=str)
def test_its_gradients_are_those_of_operations_of_torch(
    rows: int, ins: int, copies: int, leading: tuple[int, ...]
) -> None:
    _, *diagonals, order = drawn(rows, ins, copies)
    x = torch.randn(*leading, ins, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    bias = torch.ones(rows, dtype=torch.float64, requires_grad=True)
    wants = (x, *diagonals, bias)
    upstream = torch.randn(*x.shape[:-1], rows, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    got = torch.autograd.grad(fastfood.multiply(x, *diagonals, order, 0.5, bias), wants, upstream)
    wanted = torch.autograd.grad(0.5 * by_torch(x, *diagonals, order) + bias, wants, upstream)
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_several_threads_give_what_one_gives() -> None:
    _, *diagonals, order = drawn(2048, 2048, 1)
    x = torch.randn(300, 2048, dtype=torch.float64, requires_grad=True)
    results, before = [], torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        y = fastfood.multiply(x, *diagonals, order, 1.0)
        results.append((y, *torch.autograd.grad(y.square().sum(), (x, *diagonals))))
    torch.set_num_threads(before)
    for one, several in zip(*results, strict=True):
        torch.testing.assert_close(one, several)


def test_inputs_of_another_width_are_refused() -> None:
    _, *diagonals, order = drawn(512, 512, 1)
    with pytest.raises(RuntimeError, match="must match"):
        fastfood.multiply(torch.ones(3, 500, dtype=torch.float64), *diagonals, order, 1.0)


def test_what_is_spread_out_in_memory_is_read_by_its_logical_order() -> None:
    x, *diagonals, order = drawn(512, 512, 1)
    y = fastfood.multiply(x.mT.contiguous().mT, *(each.T.contiguous().T for each in diagonals), order, 1.0)
    torch.testing.assert_close(y, fastfood.multiply(x, *diagonals, order, 1.0))
