"""A kept dense weight is used for inference, and never once the parameters are others."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressnet.attention import CompressedMultiheadAttention
from compressnet.dense import dense_
from compressnet.layers import CompressedConv2d, CompressedLayer, CompressedLinear, freeze, unfreeze
from compressnet.methods import BY_NAME
from compressnet.structured import StructuredWeight

CONFIGS: dict[str, dict[str, Any]] = {"pruned": {"density": 0.3}, "deepfried": {"init": "random"}, "acdc": {"depth": 1}}
RUN_DENSE = [name for name, method in BY_NAME.items() if not method.runs_product((24, 40, 3, 3))]


def weight(name: str, shape: tuple[int, ...], seed: int = 7) -> StructuredWeight:
    method = BY_NAME[name]
    made = method(shape, method.Config(**CONFIGS.get(name, {} if name == "monarch" else {"ratio": 4})), 7)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    return made.eval()


def convolution(name: str = "freshnet") -> CompressedConv2d:
    return CompressedConv2d.like(nn.Conv2d(40, 24, 3, stride=2, padding=1), weight(name, (24, 40, 3, 3))).eval()


def frozen(layer: CompressedLayer | None = None) -> CompressedLayer:
    layer = layer or convolution()
    freeze(layer)
    assert layer.structured.frozen() is not None or torch.is_grad_enabled()
    return layer


def doubled(layer: CompressedLayer) -> None:
    for parameter in layer.structured.parameters():
        parameter.mul_(2)


def replaced(layer: CompressedLayer) -> None:
    for name, parameter in list(layer.structured.named_parameters()):
        setattr(layer.structured, name, nn.Parameter(2 * parameter))


def swapped(layer: CompressedLayer) -> None:
    for parameter in layer.structured.parameters():
        parameter.data = 2 * parameter.data


def loaded(layer: CompressedLayer) -> None:
    layer.structured.load_state_dict(weight("freshnet", (24, 40, 3, 3), seed=8).state_dict())


def trained(layer: CompressedLayer) -> None:
    """A step of an optimiser, in evaluation mode."""
    with torch.enable_grad():
        layer(torch.randn(2, 40, 5, 5)).square().sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()


@pytest.mark.parametrize("name", RUN_DENSE)
@torch.no_grad()
def test_a_frozen_layer_computes_bit_for_bit_what_the_ordinary_layer_does(name: str) -> None:
    layer, x = frozen(convolution(name)), torch.randn(2, 40, 7, 7)
    assert torch.equal(layer(x), layer.ordinary()(x))


@torch.no_grad()
def test_so_does_a_frozen_linear_layer_and_a_frozen_attention() -> None:
    linear = frozen(CompressedLinear.like(nn.Linear(48, 64), weight("hashednet", (64, 48))))
    x = torch.randn(3, 48)
    assert torch.equal(linear(x), linear.ordinary()(x))
    attention = CompressedMultiheadAttention(nn.MultiheadAttention(16, 2, batch_first=True).eval())
    assert attention.in_proj_bias is not None
    attention.in_proj_bias.normal_()
    attention.hold_("in_proj", weight("hashednet", (48, 16)))
    model, x = nn.ModuleList([attention]), torch.randn(3, 5, 16)
    freeze(model)
    y = attention(x, x, x, need_weights=False)[0]
    dense_(model)
    torch.testing.assert_close(y, model[0](x, x, x, need_weights=False)[0])


@pytest.mark.parametrize("change", [doubled, replaced, swapped, loaded, trained])
@torch.no_grad()
def test_a_change_of_the_parameters_thaws(change: Callable[[CompressedLayer], None]) -> None:
    layer, x = frozen(), torch.randn(2, 40, 7, 7)
    before = layer(x)
    change(layer)
    y = layer(x)
    assert not torch.allclose(y, before)
    assert torch.equal(layer.structured.dense(), layer.structured.to_dense())
    unfreeze(layer)
    assert torch.equal(y, layer(x))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@torch.no_grad()
def test_a_copy_is_thawed(copied: Callable[[CompressedLayer], CompressedLayer]) -> None:
    layer = frozen()
    other = copied(layer)
    assert other.structured.frozen() is None
    assert layer.structured.frozen() is not None
    assert torch.equal(other.structured.dense(), layer.structured.dense())


@torch.no_grad()
def test_another_dtype_and_training_thaw() -> None:
    assert frozen().double().structured.frozen() is None
    layer = frozen().train()
    assert layer.eval().structured.frozen() is None


@torch.no_grad()
def test_another_place_takes_the_kept_weight_along() -> None:
    layer, x = frozen(), torch.randn(2, 40, 7, 7)
    expected = layer(x)
    layer.to("cpu", memory_format=torch.channels_last)
    kept = layer.structured.frozen()
    assert kept is not None
    assert kept.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(x), expected, atol=1e-4, rtol=1e-4)
    doubled(layer)
    assert layer.structured.frozen() is None


@torch.no_grad()
def test_a_stale_weight_does_not_move() -> None:
    layer = frozen()
    doubled(layer)
    assert layer.to("cpu").structured.frozen() is None


def test_a_layer_frozen_in_inference_mode_runs_there() -> None:
    with torch.inference_mode():
        layer, x = frozen(), torch.randn(2, 40, 7, 7)
        assert torch.equal(layer(x), layer.ordinary()(x))


def compiled(layer: CompressedLayer) -> Callable[[Tensor], Tensor]:
    torch.compiler.reset()
    return torch.compile(layer, fullgraph=True, backend="aot_eager")


@pytest.mark.parametrize("name", RUN_DENSE)
@torch.no_grad()
def test_a_frozen_layer_is_compiled_whole(name: str) -> None:
    layer, x = frozen(convolution(name)), torch.randn(2, 40, 7, 7)
    assert torch.equal(compiled(layer)(x), layer(x))


@torch.no_grad()
def test_a_frozen_model_of_every_method_is_compiled_whole_and_never_stale() -> None:
    convolutions = [nn.Sequential(convolution(name), nn.Conv2d(24, 40, 1)) for name in RUN_DENSE]
    head = CompressedLinear.like(nn.Linear(40, 10), weight("hashednet", (10, 40)))
    model = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
    freeze(model)
    x = torch.randn(2, 40, 7, 7)
    torch.compiler.reset()
    run = torch.compile(model, fullgraph=True, backend="aot_eager")
    before = run(x)
    torch.testing.assert_close(before, model(x))
    state = model.state_dict()
    model.load_state_dict(state | {name: 2 * state[name] for name in dict(model.named_parameters())})
    assert not any(module.frozen() is not None for module in model.modules() if isinstance(module, StructuredWeight))
    assert not torch.allclose(run(x), before)
    torch.testing.assert_close(run(x), model(x), rtol=1e-5, atol=0)  # outside of the graph there are compiled loops


@pytest.mark.parametrize("change", [loaded, trained, lambda layer: layer.train().double().float().eval()])
@torch.no_grad()
def test_a_compiled_layer_is_thawed_too(change: Callable[[CompressedLayer], None]) -> None:
    layer, x = frozen(), torch.randn(2, 40, 7, 7)
    run = compiled(layer)
    run(x)
    change(layer)
    if change is trained:
        layer(x)  # outside the graph, where a change is seen
    torch.testing.assert_close(run(x), layer(x))
    assert torch.equal(layer.structured.dense(), layer.structured.to_dense())


@torch.no_grad()
def test_a_compiled_layer_with_gradients_is_thawed_by_the_graph() -> None:
    layer, x = frozen(), torch.randn(2, 40, 7, 7)
    run = compiled(layer)
    before = run(x)
    with torch.enable_grad():
        run(x).square().sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    y = run(x)
    assert not torch.allclose(y, before)
    torch.testing.assert_close(y, layer(x))
