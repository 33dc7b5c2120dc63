import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from compressnet.hashed import HashedWeight, recomputing
from compressnet.layers import CompressedConv2d, CompressedLinear
from compressnet.methods import BY_NAME

LAYERS = {
    "linear": (600, 500),
    "conv": (120, 130, 3, 3),
    "small linear": (8, 12),
    "small conv": (6, 4, 3, 3),
}
CASES = [pytest.param(name, LAYERS[kind], id=f"{name}-{kind}") for name in ("hashednet", "freshnet") for kind in LAYERS]


def layer_of(name: str, shape: tuple[int, ...]) -> CompressedLinear | CompressedConv2d:
    torch.manual_seed(0)
    weight = BY_NAME[name](shape, BY_NAME[name].Config(ratio=16), 5)
    nn.init.normal_(weight.get_parameter("buckets"))
    if len(shape) == 2:
        return CompressedLinear.like(nn.Linear(shape[1], shape[0]), weight)
    return CompressedConv2d.like(nn.Conv2d(shape[1], shape[0], 3, padding=1), weight)


def inputs_of(shape: tuple[int, ...]) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(4, shape[1], *[5] * (len(shape) - 2), requires_grad=True)


def gradients(layer: nn.Module, x: torch.Tensor, half: bool = False) -> list[torch.Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        y = layer(x)
    return [y.detach(), *torch.autograd.grad(y.float().square().sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("name", "shape"), CASES)
def test_a_layer_that_recomputes_gives_the_same(name: str, shape: tuple[int, ...], half: bool) -> None:
    layer, x = layer_of(name, shape), inputs_of(shape)
    kept = gradients(layer, x, half)
    with recomputing(layer):
        assert isinstance(layer.structured, HashedWeight)
        assert layer.structured.indices is None
        made = gradients(layer, x, half)
    assert isinstance(layer.structured.indices, torch.Tensor)
    for a, b in zip(kept, made, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_while_it_recomputes_nothing_as_large_as_its_weight_is_kept(name: str, shape: tuple[int, ...]) -> None:
    layer, x = layer_of(name, shape), inputs_of(shape)
    largest = max(x.numel(), layer.structured.numel)
    saved: list[Any] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with recomputing(layer), saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)
        assert all(tensor.numel() <= largest for tensor in saved)
        assert all(buffer.numel() <= 81 for buffer in layer.buffers())


def test_a_product_by_rows_is_the_one_with_the_dense_weight() -> None:
    layer, x = layer_of("hashednet", (600, 500)), inputs_of((600, 500))
    y = layer(x)
    assert "Linear" in y.grad_fn.next_functions[0][0].next_functions[0][0].name()
    with torch.no_grad():
        torch.testing.assert_close(layer(x), y)


@pytest.mark.parametrize("shape", [LAYERS["linear"], LAYERS["conv"]])
def test_numbers_in_the_place_of_its_own_are_those_of_the_backward_pass_too(shape: tuple[int, ...]) -> None:
    layer, x = layer_of("freshnet", shape), inputs_of(shape)
    other = layer.structured.get_parameter("buckets").detach() + 1
    given = {"structured.buckets": other.requires_grad_()}
    results = []
    for wanted in (False, True):
        with recomputing(layer, wanted):
            y = functional_call(layer, given, (x,))
            results.append(torch.autograd.grad(y.square().sum(), [x, other]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_what_recomputes_can_be_copied_moved_and_evaluated() -> None:
    layer, x = layer_of("freshnet", LAYERS["conv"]), inputs_of(LAYERS["conv"])
    expected = layer(x)
    with recomputing(layer), torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(layer)(x), expected)
        torch.testing.assert_close(layer.double()(x.double()).float(), expected, atol=1e-3, rtol=1e-4)
        assert copy.deepcopy(layer).to("meta").structured.dense().is_meta


@pytest.mark.parametrize("name", ["hashednet", "freshnet"])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_large_weights_are_compiled_whole_and_exported(name: str, kind: str) -> None:
    layer, x = layer_of(name, LAYERS[kind]), inputs_of(LAYERS[kind])
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for a, b in zip(gradients(layer, x), gradients(compiled, x), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * b.abs().max().item(), rtol=1e-4)
    program = torch.export.export(layer, (x.detach(),))
    torch.testing.assert_close(program.module()(x.detach()), layer(x).detach(), atol=1e-4, rtol=1e-4)
