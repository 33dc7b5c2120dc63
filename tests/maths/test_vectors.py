"""One vector through two matrices, by a compiled loop against products of torch."""

import pytest
import torch

from compressnet.maths import vectors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("parts", "ins", "between", "outs"), [(1, 700, 50, 301), (8, 40 * 8, 8, 300 * 8)])
def test_the_loop_gives_what_products_give(
    parts: int, ins: int, between: int, outs: int, biased: bool, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second, x, bias = (
        torch.randn(shape, dtype=dtype, generator=generator)
        for shape in [(between, ins), (outs, between), (1, ins), (outs,)]
    )
    middle = torch.einsum("rst,st->rs", first.view(between, parts, -1), x.view(parts, -1))
    wanted = torch.einsum("opq,pq->op", second.view(-1, parts, between), middle.reshape(parts, between)).flatten()
    got = vectors.through(x, first, second, bias if biased else None, parts)
    torch.testing.assert_close(got, (wanted + bias if biased else wanted)[None], rtol=1e-5, atol=1e-3)


def test_one_vector_without_gradients_and_of_the_right_width_is_taken() -> None:
    first, second = torch.ones(100, 500), torch.ones(500, 100)
    with torch.no_grad():
        assert vectors.runs(torch.ones(1, 500), first, second, None)
        assert vectors.runs(torch.ones(500), first, second, torch.ones(500))
        assert not vectors.runs(torch.ones(2, 500), first, second, None)
        assert not vectors.runs(torch.ones(1, 499), first, second, None)
        assert not vectors.runs(torch.ones(1, 500), first, second.double(), None)
    assert not vectors.runs(torch.ones(1, 500), first, second, None)


@pytest.mark.parametrize("method", ["monarch", "lowrank"])
def test_layers_give_alone_what_they_give_in_a_batch(method: str) -> None:
    from compressnet.layers import CompressedLinear
    from compressnet.methods import BY_NAME

    weight = BY_NAME[method]((640, 512), BY_NAME[method].config_near((640, 512), 5), seed=1)
    layer = CompressedLinear(weight, torch.randn(640))
    with torch.no_grad():
        for parameter in weight.parameters():
            parameter.normal_()
        x = torch.randn(3, 512)
        assert vectors.runs(x[:1], weight.right, weight.left, layer.bias)
        torch.testing.assert_close(layer(x[:1]), layer(x)[:1], rtol=1e-4, atol=1e-3)
