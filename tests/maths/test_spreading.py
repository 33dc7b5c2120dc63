import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from compressnet.maths import spreading
from compressnet.maths.assignment import Assignment
from compressnet.maths.dct import dct2_matrix, kernels
from compressnet.maths.indices import signed_indices
from compressnet.maths.sharing import expand, signed_mean
from compressnet.maths.spreading import Indices, by_parts, linear, rows, spread, spread_kernels

OUT, IN, COUNT = 60, 9001, 20_000
ASSIGNMENT = Assignment(OUT * IN, (0,), (COUNT,), seed=3)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)
    return int(request.param)


@pytest.fixture(scope="module")
def kept() -> Tensor:
    return ASSIGNMENT.signed_indices()


@pytest.fixture(params=["kept", "made anew"])
def indices(request: pytest.FixtureRequest, kept: Tensor) -> Indices:
    return kept if request.param == "kept" else ASSIGNMENT


@pytest.mark.usefixtures("threads")
def test_spreading_is_expanding_forwards_and_backwards(indices: Indices, kept: Tensor) -> None:
    values = torch.randn(COUNT, requires_grad=True)
    upstream = torch.randn(len(kept))
    made, reference = spread(values, indices), expand(values, kept)
    assert torch.equal(made, reference)
    assert made.grad_fn is not None
    assert "Spread" in made.grad_fn.name()
    gradients = [torch.autograd.grad(y, values, upstream)[0] for y in (made, reference)]
    torch.testing.assert_close(*gradients)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(3, 3), (5, 3), (1, 1)])
def test_kernels_are_the_inverse_dct_of_what_they_read(size: tuple[int, int], dtype: torch.dtype) -> None:
    shape = torch.Size((120, 130, *size))
    places, transform = signed_indices(shape.numel(), COUNT // 10, 3), dct2_matrix(*size).to(dtype)
    values, upstream = torch.randn(COUNT // 10, dtype=dtype, requires_grad=True), torch.randn(shape, dtype=dtype)
    made = spread_kernels(values, places, transform, shape)
    assert (made.grad_fn.next_functions[0][0].name() == "_SpreadBackward") is (size == (3, 3))  # type: ignore[union-attr]
    reference = kernels(expand(values, places), transform, shape)
    torch.testing.assert_close(made, reference, atol=1e-5, rtol=1e-5)
    (ours,), (theirs,) = (torch.autograd.grad(y, values, upstream, create_graph=True) for y in (made, reference))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        *(
            torch.func.vjp(f, values.detach())[1](upstream)[0]
            for f in (
                lambda v: spread_kernels(v, places, transform, shape),
                lambda v: kernels(expand(v, places), transform, shape),
            )
        ),
        atol=1e-4,
        rtol=1e-4,
    )


def test_few_values_are_expanded_by_ordinary_operations() -> None:
    assert not by_parts(torch.ones(10), 1000)
    assert not by_parts(torch.ones(10, device="meta"), 10**9)


def test_spreading_can_be_differentiated_twice(indices: Indices, kept: Tensor) -> None:
    values = torch.randn(COUNT, dtype=torch.float64, requires_grad=True)
    (once,) = torch.autograd.grad(spread(values, indices).square().sum(), values, create_graph=True)
    (twice,) = torch.autograd.grad(once.sum(), values)
    assert torch.equal(twice, 2.0 * torch.bincount(kept >> 1, minlength=COUNT))


def test_spreading_has_a_vector_jacobian_product_of_torch_func(kept: Tensor) -> None:
    values, upstream = torch.randn(COUNT), torch.randn(len(kept))
    pairs = [torch.func.vjp(lambda v, f=f: f(v, kept), values)[1](upstream)[0] for f in (spread, expand)]  # type: ignore[misc]
    torch.testing.assert_close(*pairs)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("wanted", ["values", "inputs", "both"])
def test_a_product_by_rows_is_the_product_with_the_dense_weight(
    indices: Indices, kept: Tensor, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "NUMBERS", 7 * IN + 1)
    values = torch.randn(COUNT, requires_grad=wanted != "inputs")
    x = torch.randn(2, 3, IN, requires_grad=wanted != "values")
    upstream = torch.randn(2, 3, OUT)
    ours, reference = linear(x, values, indices, (OUT, IN)), F.linear(x, expand(values, kept).view(OUT, IN))
    torch.testing.assert_close(ours, reference, atol=1e-3, rtol=1e-4)
    inputs = [tensor for tensor in (x, values) if tensor.requires_grad]
    for a, b in zip(*(torch.autograd.grad(y, inputs, upstream) for y in (ours, reference)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)


def test_signed_means_are_the_same_with_any_number_of_threads(kept: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = torch.randn(len(kept))
    means = []
    for count in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        means.append(signed_mean(dense, kept, COUNT))
    torch.testing.assert_close(*means)


@pytest.mark.usefixtures("threads")
def test_rows_are_those_of_the_whole(indices: Indices, kept: Tensor) -> None:
    values = torch.randn(COUNT, requires_grad=True)
    made = [some.clone() for some in rows(values, indices, (OUT, IN), 7)]
    assert torch.equal(torch.cat(made), expand(values, kept).view(OUT, IN))
