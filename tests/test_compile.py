"""torch.compile follows everything that a forward pass runs, without a break, and gives the same."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressnet
from compressnet.attention import CompressedMultiheadAttention
from compressnet.blocks import BLOCKS
from compressnet.layers import CompressedConv2d, CompressedLinear
from compressnet.methods import BY_NAME, METHODS
from compressnet.structured import StructuredWeight
from compressnet.zoo import models
from compressnet.zoo.models import ModelSpec

CONFIGS: dict[str, dict[str, Any]] = {
    "pruned": {"density": 0.3},
    "deepfried": {"init": "random"},
    "acdc": {"depth": 2},
    "monarch": {},
    "deepfried_head": {"features": 64},
    "acdc_stack": {"depth": 2},
}
SHAPES = {"linear": (64, 48), "1x1": (40, 24, 1, 1), "3x3": (24, 40, 3, 3)}
CASES = [
    pytest.param(method.name, shape, id=f"{method.name}-{kind}")
    for method in METHODS
    for kind, shape in SHAPES.items()
    if kind != "1x1" or method.runs == "product"  # others make the dense weight, whatever the kernel
]


def weight(name: str, shape: tuple[int, ...]) -> StructuredWeight:
    made = BY_NAME[name](shape, BY_NAME[name].Config(**CONFIGS.get(name, {"ratio": 4})), 7)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    return made


def gradients(module: nn.Module, y: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(y.square().mean(), tuple(module.parameters())))


def check(module: nn.Module, *inputs: Tensor, **more: Any) -> None:
    """A module gives the same compiled, whole, as it does as it is, backwards too."""
    torch.compiler.reset()
    compiled = torch.compile(lambda *x: module(*x, **more), fullgraph=True, backend="aot_eager")
    expected, given = (run(*inputs) for run in (lambda *x: module(*x, **more), compiled))
    first, second = (y[0] if isinstance(y, tuple) else y for y in (expected, given))
    torch.testing.assert_close(second, first)
    for a, b in zip(gradients(module, first), gradients(module, second), strict=True):
        torch.testing.assert_close(b, a)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_a_layer_of_every_method_is_compiled_whole(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    if len(shape) == 2:
        check(CompressedLinear.like(nn.Linear(48, 64), weight(name, shape)), torch.randn(3, 48))
    else:
        dense = nn.Conv2d(shape[1], shape[0], shape[2:], stride=(2, 1), padding=1)
        check(CompressedConv2d.like(dense, weight(name, shape)), torch.randn(2, shape[1], 7, 7))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_every_block_is_compiled_whole(block: Any) -> None:
    torch.manual_seed(0)
    check(block(24, block.Config(**CONFIGS[block.name]), 7), torch.randn(3, 24))


@pytest.mark.parametrize("need_weights", [False, True])
def test_attention_is_compiled_whole(need_weights: bool) -> None:
    torch.manual_seed(0)
    attention = CompressedMultiheadAttention(nn.MultiheadAttention(16, 2, batch_first=True))
    attention.hold_("in_proj", weight("hashednet", (48, 16)))
    x = torch.randn(3, 5, 16)
    check(attention, x, x, x, need_weights=need_weights)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_is_compiled_whole_with_mixed_precision(lenet: dict[str, Any], dtype: torch.dtype) -> None:
    model = compressnet.compress(models.fresh(ModelSpec("lenet5", 10), 0), {"layers": lenet["layers"]}).train()
    x = torch.randn(4, 1, 28, 28)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(compiled(x), model(x))
