"""One vector through two matrices, by a compiled loop against products of torch."""

import pytest
import torch
from torch import Tensor

from compressnet.layers import CompressedLinear
from compressnet.maths import vectors
from compressnet.methods import BY_NAME

SIZES = [(1, 700, 50, 301), (8, 40 * 8, 8, 300 * 8)]
"""Parts, inputs, rows of the first factor, outputs."""


def drawn(parts: int, ins: int, between: int, outs: int, dtype: torch.dtype) -> list[Tensor]:
    """x, both factors and a bias, all of which want gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, ins), (between, ins), (outs, between), (outs,)]
    return [torch.randn(shape, dtype=dtype, generator=generator).requires_grad_() for shape in shapes]


def by_torch(x: Tensor, first: Tensor, second: Tensor, parts: int) -> Tensor:
    middle = torch.einsum("rst,st->rs", first.view(len(first), parts, -1), x.view(parts, -1))
    return torch.einsum("opq,pq->op", second.view(-1, parts, len(first)), middle.reshape(parts, -1)).reshape(1, -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("parts", "ins", "between", "outs"), SIZES)
def test_the_loops_give_what_products_give_and_their_gradients(
    parts: int, ins: int, between: int, outs: int, biased: bool, dtype: torch.dtype
) -> None:
    x, first, second, bias = drawn(parts, ins, between, outs, dtype)
    near = {"rtol": 1e-5, "atol": 1e-3} if dtype is torch.float32 else {}
    wanted = by_torch(x, first, second, parts)
    wanted = wanted + bias if biased else wanted
    got = vectors.through(x, first, second, bias if biased else None, parts)
    torch.testing.assert_close(got, wanted, **near)
    with torch.no_grad():
        assert torch.equal(vectors.through(x, first, second, bias if biased else None, parts), got)
    parameters, upstream = [x, first, second, *([bias] if biased else [])], torch.randn(1, outs, dtype=dtype)
    for ours, theirs in zip(*(torch.autograd.grad(y, parameters, upstream) for y in (got, wanted)), strict=True):
        torch.testing.assert_close(ours, theirs, **near)


@pytest.mark.parametrize(("parts", "ins", "between", "outs"), SIZES)
@pytest.mark.parametrize("wanting", range(4))
def test_each_gradient_is_the_same_where_others_are_not_wanted(
    parts: int, ins: int, between: int, outs: int, wanting: int
) -> None:
    given = drawn(parts, ins, between, outs, torch.float64)
    alone = [each.detach().requires_grad_(n == wanting) for n, each in enumerate(given)]
    (got,) = torch.autograd.grad(vectors.through(*alone, parts).sum(), alone[wanting])
    assert torch.equal(got, torch.autograd.grad(vectors.through(*given, parts).sum(), given)[wanting])


@pytest.mark.parametrize(("parts", "ins", "between", "outs"), SIZES)
def test_gradients_can_be_differentiated(parts: int, ins: int, between: int, outs: int) -> None:
    x, first, second, bias = drawn(parts, ins, between, outs, torch.float64)
    found = []
    for y in (vectors.through(x, first, second, bias, parts), by_torch(x, first, second, parts) + bias):
        norms = torch.autograd.grad(y.square().sum(), (x, first), create_graph=True)
        found.append(torch.autograd.grad(sum(each.square().sum() for each in norms), (x, first, second, bias)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_one_vector_of_the_right_width_is_taken() -> None:
    first, second = torch.ones(100, 500), torch.ones(500, 100)
    assert vectors.runs(torch.ones(1, 500), first, second, None)
    assert vectors.runs(torch.ones(500), first, second, torch.ones(500))
    assert not vectors.runs(torch.ones(2, 500), first, second, None)
    assert not vectors.runs(torch.ones(1, 499), first, second, None)
    assert not vectors.runs(torch.ones(1, 500), first, second.double(), None)


@pytest.mark.parametrize("method", ["monarch", "lowrank"])
def test_layers_give_alone_what_they_give_in_a_batch(method: str) -> None:
    weight = BY_NAME[method]((640, 512), BY_NAME[method].config_near((640, 512), 5), seed=1)
    layer = CompressedLinear(weight, torch.randn(640))
    with torch.no_grad():
        for parameter in weight.parameters():
            parameter.normal_()
        x = torch.randn(3, 512)
        assert vectors.runs(x[:1], weight.right, weight.left, layer.bias)
        torch.testing.assert_close(layer(x[:1]), layer(x)[:1], rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")
@pytest.mark.parametrize("method", ["monarch", "lowrank"])
def test_transforms_of_torch_are_left_to_torch(method: str) -> None:
    weight = BY_NAME[method]((640, 512), BY_NAME[method].config_near((640, 512), 5), seed=1, dtype=torch.float64)
    with torch.no_grad():
        for parameter in weight.parameters():
            parameter.normal_()
    x = torch.randn(3, 512, dtype=torch.float64)
    wanted = x @ weight.to_dense().detach().T
    torch.testing.assert_close(torch.func.vmap(weight.matmul)(x), wanted)
    with torch.no_grad():
        torch.testing.assert_close(torch.func.vmap(weight.matmul)(x), wanted)
    for some in (x, x[:1]):
        torch.testing.assert_close(torch.func.jvp(weight.matmul, (some,), (some,))[1], wanted[: len(some)])
        with torch.autograd.forward_ad.dual_level():
            dual = weight.matmul(torch.autograd.forward_ad.make_dual(some, some))
            torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(dual).tangent, wanted[: len(some)])
