"""Cascades by compiled loops against those of torch's Fourier transforms."""

import pytest
import torch
from torch import Tensor

from compressnet.layers import CompressedLinear
from compressnet.maths import cascade
from compressnet.methods.acdc import ACDCConfig, ACDCWeight


def passes(weight: ACDCWeight, x: Tensor, upstream: Tensor, bias: Tensor | None) -> list[tuple[Tensor, ...]]:
    """Result, and gradients of x and the diagonals: by the loop, and by operations of torch."""
    assert cascade.runs(x, weight.spatial, weight.spectral, bias)
    by_torch = weight._multiplied(x)
    results = [weight.affine(x, bias), by_torch if bias is None else by_torch + bias]
    wanted = [each for each in (x, weight.spatial, weight.spectral, bias) if each is not None]
    return [(y.detach(), *torch.autograd.grad(y, wanted, upstream)) for y in results]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 6, 7, 33])
@pytest.mark.parametrize(("rows", "columns", "depth"), [(512, 300, 2), (1000, 1024, 3), (2048, 777, 1)])
def test_results_and_gradients_are_those_of_torch(
    rows: int, columns: int, depth: int, batch: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    weight = ACDCWeight((rows, columns), ACDCConfig(depth=depth), seed=3).to(dtype)
    x, upstream = torch.randn(batch, columns, dtype=dtype, requires_grad=True), torch.randn(batch, rows, dtype=dtype)
    bias = torch.randn(rows, dtype=dtype, requires_grad=True) if batch % 2 else None
    for got, wanted in zip(*passes(weight, x, upstream, bias), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


def test_several_threads_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cascade, "parts", lambda numel, device: 3)
    weight = ACDCWeight((512, 512), ACDCConfig(depth=3), seed=1).double()
    x, upstream = torch.randn(2, 40, 512, dtype=torch.double, requires_grad=True).unbind()
    for got, wanted in zip(*passes(weight, x, upstream.detach(), None), strict=True):
        torch.testing.assert_close(got, wanted)


def test_gradients_of_what_lies_otherwise_in_memory_are_right() -> None:
    weight = ACDCWeight((512, 512), ACDCConfig(depth=2), seed=1).double()
    x = torch.randn(512, 20, dtype=torch.double).T.requires_grad_()
    upstream = torch.ones((), dtype=torch.double).expand(20, 512)
    for got, wanted in zip(*passes(weight, x, upstream, None), strict=True):
        torch.testing.assert_close(got, wanted)


def test_gradients_are_those_of_differences() -> None:
    weight = ACDCWeight((300, 512), ACDCConfig(depth=2), seed=1).double()
    x, step = torch.randn(3, 512, dtype=torch.double), 1e-6
    upstream = torch.randn(3, 300, dtype=torch.double)
    weight.affine(x, None).backward(upstream)
    direction = torch.randn_like(weight.spectral)
    with torch.no_grad():
        slope = (weight.spectral.grad * direction).sum()
        values = []
        for sign in (1, -1):
            weight.spectral += sign * step * direction
            values.append((weight.matmul(x) * upstream).sum())
            weight.spectral -= sign * step * direction
    torch.testing.assert_close((values[0] - values[1]) / (2 * step), slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(512,), (2, 3, 512), (4, 5, 512), (0, 512)])
def test_vectors_may_stand_in_any_shape(shape: tuple[int, ...]) -> None:
    layer = CompressedLinear(ACDCWeight((600, 512), ACDCConfig(depth=2), seed=1).eval(), torch.randn(600))
    x = torch.randn(shape)
    with torch.no_grad():
        wanted = layer.structured._multiplied(x) + layer.bias
        torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-4)
    if x.dim() > 1:
        turned = x.transpose(0, 1).contiguous().transpose(0, 1)
        torch.testing.assert_close(layer(turned), wanted, rtol=1e-4, atol=1e-4)


def test_other_widths_types_and_programs_are_left_to_torch() -> None:
    bias, x = torch.zeros(3), torch.zeros(2, 512)
    diagonals = torch.zeros(512), torch.zeros(1, 512)
    assert cascade.runs(x, *diagonals, bias)
    assert not cascade.runs(x, *diagonals, bias.double())
    assert not cascade.runs(x.half(), *diagonals, None)
    assert not cascade.runs(x[:0], *diagonals, None)
    for width in (256, 768):
        assert not cascade.runs(torch.zeros(2, width), torch.zeros(width), torch.zeros(1, width), None)
