import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compressnet.layers import CompressedConv2d, CompressedLinear, freeze
from compressnet.methods import BY_NAME
from compressnet.structured import StructuredWeight

CONVOLUTIONS: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": 3, "stride": (2, 1), "padding": (1, 2)},
    {"kernel_size": (5, 3), "dilation": (1, 2), "padding": "same"},
    {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"},
    {"kernel_size": (3, 1), "padding": "valid", "bias": False},
    {"kernel_size": 3, "padding": "same", "padding_mode": "circular"},
    {"kernel_size": 3, "groups": 4, "padding": 1},
    {"kernel_size": 3, "groups": 32, "padding": 1},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 1, "padding": (1, 0), "stride": (1, 3), "padding_mode": "replicate"},
    {"kernel_size": 1, "padding": 1, "bias": False},
    {"kernel_size": 1, "groups": 2},
]


def structured(method: str, shape: tuple[int, ...]) -> StructuredWeight:
    weight = BY_NAME[method]
    sizes = {"ratio": 2, "density": 0.4}
    config = weight.Config(**{key: value for key, value in sizes.items() if key in weight.Config.model_fields})
    reason = weight.rejects(shape, config)
    if reason:
        pytest.skip(reason)
    made = weight(shape, config, seed=1, dtype=torch.float64)
    with torch.no_grad():
        for p in made.parameters():
            p.normal_()
    return made


@pytest.mark.parametrize("method", BY_NAME)
@pytest.mark.parametrize("arguments", CONVOLUTIONS, ids=str)
def test_a_compressed_convolution_equals_conv2d_with_its_dense_weight(method: str, arguments: dict[str, Any]) -> None:
    conv = nn.Conv2d(32, 64, **arguments).double()
    before = copy.deepcopy(conv.state_dict())
    layer = CompressedConv2d.like(conv, structured(method, tuple(conv.weight.shape)))
    reference = nn.Conv2d(32, 64, **arguments).double()
    reference.weight = nn.Parameter(layer.weight.detach())
    if conv.bias is not None and reference.bias is not None:
        reference.bias = nn.Parameter(conv.bias.detach())
    x = torch.randn(2, 32, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x), reference(x))
    assert (layer.bias is None) == (conv.bias is None)
    assert all(torch.equal(before[name], tensor) for name, tensor in conv.state_dict().items())
    assert layer.bias is None or layer.bias is not conv.bias


@pytest.mark.parametrize("method", BY_NAME)
@pytest.mark.parametrize("bias", [True, False])
def test_a_compressed_linear_layer_equals_linear_with_its_dense_weight(method: str, bias: bool) -> None:
    linear = nn.Linear(48, 33, bias=bias).double()
    layer = CompressedLinear.like(linear, structured(method, (33, 48)))
    x = torch.randn(2, 5, 48, dtype=torch.float64)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, linear.bias))


@pytest.mark.parametrize("arguments", CONVOLUTIONS, ids=str)
def test_the_ordinary_convolution_of_a_compressed_one_is_conv2d_and_computes_the_same(
    arguments: dict[str, Any],
) -> None:
    conv = nn.Conv2d(32, 64, **arguments).double()
    layer = CompressedConv2d.like(conv, structured("freshnet", tuple(conv.weight.shape))).eval()
    ordinary, x = layer.ordinary(), torch.randn(2, 32, 9, 8, dtype=torch.float64)
    assert type(ordinary) is nn.Conv2d
    assert str(ordinary) == str(conv)
    assert not ordinary.training
    torch.testing.assert_close(ordinary(x), layer(x))


@pytest.mark.parametrize("method", BY_NAME)
def test_the_ordinary_linear_layer_of_a_compressed_one_holds_its_dense_weight(method: str) -> None:
    layer = CompressedLinear.like(nn.Linear(48, 33).double(), structured(method, (33, 48)))
    ordinary, x = layer.ordinary(), torch.randn(5, 48, dtype=torch.float64)
    assert type(ordinary) is nn.Linear
    assert ordinary.weight.is_contiguous()
    assert ordinary.weight.requires_grad
    torch.testing.assert_close(ordinary(x), layer(x))


def test_a_layer_has_what_others_read_of_the_layer_it_replaces() -> None:
    conv = nn.Conv2d(8, 16, (3, 5), stride=2, padding=1, groups=2)
    layer = CompressedConv2d.like(conv, structured("freshnet", tuple(conv.weight.shape)))
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    assert [getattr(layer, name) for name in names] == [getattr(conv, name) for name in names]
    linear = nn.Linear(8, 16)
    replaced = CompressedLinear.like(linear, structured("hashednet", (16, 8)))
    assert (replaced.in_features, replaced.out_features) == (8, 16)


def test_a_frozen_layer_gives_the_same_output_without_making_its_weight() -> None:
    layer = CompressedLinear(structured("hashednet", (16, 8))).eval()
    x = torch.randn(3, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = layer(x)
        freeze(layer)
        assert layer.weight is layer.weight
        assert torch.equal(layer(x), expected)


def test_a_frozen_layer_still_gives_gradients() -> None:
    layer = CompressedLinear(structured("hashednet", (16, 8))).eval()
    freeze(layer)
    layer(torch.randn(3, 8, dtype=torch.float64)).sum().backward()
    assert next(layer.structured.parameters()).grad is not None
