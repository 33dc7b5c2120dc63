"""Monarch's factors by compiled loops against batched products of torch and their gradients."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from compressnet.maths import monarch
from compressnet.methods.monarch import MonarchConfig, MonarchWeight

SIZES = [
    (64, 64, 64),
    (128, 196, 32),
    (48, 16, 64),
    (32, 24, 96),
    (37, 40, 29),
    (17, 101, 21),
    (16, 17, 118),
    (101, 16, 1),
]
"""b, inputs of a block, outputs of a j."""


@pytest.fixture(params=[1, 2], ids=["one_thread", "two_threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def drawn(b: int, ins: int, outs: int, batch: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """x, right, left and a bias, all of which want gradients, and the gradient of the result."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, b * ins), (b, b, ins), (outs, b, b), (outs * b,), (batch, outs * b)]
    *given, upstream = (torch.randn(shape, dtype=dtype, generator=generator) for shape in shapes)
    return *(each.requires_grad_() for each in given), upstream


@pytest.mark.parametrize(("b", "ins", "outs"), SIZES)
@pytest.mark.parametrize("batch", [0, 1, 2, 3, 5, 33, 70])
@pytest.mark.usefixtures("threads")
def test_the_loops_give_what_products_of_torch_give_and_their_gradients(
    b: int, ins: int, outs: int, batch: int
) -> None:
    x, right, left, bias, upstream = drawn(b, ins, outs, batch)
    assert monarch.runs(x, right, left, bias)
    wanted, got = monarch.product(x, right, left) + bias, monarch.multiply(x, right, left, bias)
    torch.testing.assert_close(got, wanted)
    with torch.no_grad():
        assert torch.equal(monarch.multiply(x, right, left, bias), got)
    parameters = (x, right, left, bias)
    for ours, theirs in zip(*(torch.autograd.grad(y, parameters, upstream) for y in (got, wanted)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("b", "ins", "outs"), SIZES)
def test_single_precision_is_as_exact_as_that_of_torch(b: int, ins: int, outs: int) -> None:
    *given, upstream = drawn(b, ins, outs, 70)
    x, right, left, bias = (each.detach().float().requires_grad_() for each in given)
    wanted = monarch.product(*given[:3]) + given[3]
    got = monarch.multiply(x, right, left, bias)
    gradients = torch.autograd.grad(got, (x, right, left, bias), upstream.float())
    for ours, theirs in zip((got, *gradients), (wanted, *torch.autograd.grad(wanted, given, upstream)), strict=True):
        assert (ours - theirs).norm() < 1e-6 * theirs.norm()


def test_many_vectors_are_taken_through_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, right, left, _, upstream = drawn(41, 18, 7, 70)
    assert monarch.runs(x, right, left, None)
    wanted = monarch.multiply(x, right, left)
    gradients = torch.autograd.grad(wanted, (x, right, left), upstream)
    monkeypatch.setattr(monarch, "_ROOM", 1 << 15)
    got = monarch.multiply(x, right, left)
    torch.testing.assert_close(got, wanted)
    for ours, theirs in zip(torch.autograd.grad(got, (x, right, left), upstream), gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradients_are_those_of_finite_differences() -> None:
    x, right, left, bias, _ = drawn(32, 20, 17, 3)
    assert monarch.runs(x, right, left, bias)
    assert torch.autograd.gradcheck(monarch.multiply, (x, right, left, bias), fast_mode=True)
    assert torch.autograd.gradgradcheck(monarch.multiply, (x, right, left, bias), fast_mode=True)


@pytest.mark.parametrize("wanting", range(4))
@pytest.mark.usefixtures("threads")
def test_each_gradient_is_the_same_where_others_are_not_wanted(wanting: int) -> None:
    *given, upstream = drawn(64, 64, 64, 40)
    alone = [each.detach().requires_grad_(n == wanting) for n, each in enumerate(given)]
    (got,) = torch.autograd.grad(monarch.multiply(*alone), alone[wanting], upstream)
    assert torch.equal(got, torch.autograd.grad(monarch.multiply(*given), given, upstream)[wanting])


def test_what_is_spread_out_in_memory_is_read_by_its_logical_order() -> None:
    given = drawn(37, 40, 29, 10)[:4]
    spread = [each.detach().mT.contiguous().mT if each.dim() > 1 else each.detach() for each in given]
    assert not any(each.is_contiguous() for each in spread[:3])
    for each in spread:
        each.requires_grad_()
    y, upstream = monarch.multiply(*spread), torch.ones(1, 1, dtype=torch.float64).expand(10, 29 * 37)
    assert torch.equal(y, monarch.multiply(*given))
    for ours, theirs in zip(
        torch.autograd.grad(y, spread, upstream),
        torch.autograd.grad(monarch.multiply(*given), given, upstream.contiguous()),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def test_sizes_and_types_decide() -> None:
    x, right, left, bias, _ = drawn(32, 20, 20, 5, torch.float32)
    assert monarch.runs(x, right, left, bias)
    assert monarch.runs(x, right, left, None)
    assert not monarch.runs(x.bfloat16(), right, left, bias)
    assert not monarch.runs(x, right[:, :, :15], left, bias)
    assert not monarch.runs(x, right, left[:1, :12], bias)
    assert not monarch.runs(*(each[..., :1] for each in (x, right, left)), None)
    assert not monarch.runs(*(each.to("meta") for each in (x, right, left)), None)


@pytest.mark.parametrize(("outs", "ins"), [(512, 640), (1000, 777)])
@pytest.mark.parametrize("leading", [(), (3,), (2, 5)], ids=str)
@pytest.mark.parametrize("biased", [True, False])
def test_layers_of_any_size_multiply_by_their_dense_weight(
    outs: int, ins: int, leading: tuple[int, ...], biased: bool
) -> None:
    weight = MonarchWeight((outs, ins), MonarchConfig(blocks=32), seed=1, dtype=torch.float64)
    with torch.no_grad():
        for parameter in weight.parameters():
            parameter.normal_()
    x, bias = torch.randn(*leading, ins, dtype=torch.float64, requires_grad=True), None
    if biased:
        bias = torch.randn(outs, dtype=torch.float64, requires_grad=True)
    results = weight.affine(x, bias), torch.nn.functional.linear(x, weight.to_dense(), bias)
    torch.testing.assert_close(*results)
    wants = [x, weight.left, weight.right, *([bias] if biased else [])]
    for ours, theirs in zip(*(torch.autograd.grad(y.square().sum(), wants) for y in results), strict=True):
        torch.testing.assert_close(ours, theirs)
