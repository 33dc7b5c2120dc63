from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.fitting import Pairs, fit_linear_
from compressnet.methods import BY_NAME
from compressnet.structured import ConvGeometry, StructuredWeight

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {"padding": 1},
    "grouped": {"groups": 3, "padding": 1},
    "depthwise": {"groups": 6},
    "strided": {"stride": (2, 1), "padding": (0, 1)},
    "dilated": {"dilation": (1, 2), "padding": "same"},
    "reflected": {"padding": (1, 2), "padding_mode": "reflect"},
    "one by one": {"kernel_size": 1, "stride": 2},
    "without bias": {"bias": False, "padding": 1},
}


def weight_for(shape: tuple[int, ...], method: str = "freshnet", ratio: float = 3) -> StructuredWeight:
    cls = BY_NAME[method]
    return cls(shape, cls.Config(ratio=ratio), seed=3, dtype=torch.float64)


def conv(**changes: Any) -> nn.Conv2d:
    torch.manual_seed(1)
    return nn.Conv2d(6, 6, **{"kernel_size": (3, 2)} | changes).double()


def columns(weight: StructuredWeight) -> Tensor:
    """S as a matrix of (numel of the weight, numbers stored), from the unit vectors."""
    (parameter,) = weight.parameters()
    made = []
    with torch.no_grad():
        for index in range(parameter.numel()):
            parameter.zero_()
            parameter[index] = 1
            made.append(weight.to_dense().flatten())
    return torch.stack(made, dim=1)


def solved(weight: StructuredWeight, dense: Tensor, design: Tensor, target: Tensor, pull: float) -> Tensor:
    """The best weight by a direct solver, from the explicit design of the outputs and of the ridge."""
    spread = columns(weight)
    left = torch.cat([design @ spread, pull**0.5 * spread])
    right = torch.cat([target, pull**0.5 * dense.flatten()])
    # as small as possible where nothing reads a number: such a number has no effect
    found = torch.linalg.lstsq(left, right[:, None], driver="gelsd").solution[:, 0]
    return (spread @ found).view(weight.shape)


def design_of(call: Any, shape: tuple[int, ...], centred: bool) -> Tensor:
    """The outputs as a matrix of (numel of outputs, numel of the weight), by running a layer on unit weights."""
    unit = torch.eye(torch.Size(shape).numel(), dtype=torch.float64)
    outs = [call(row.view(shape)).movedim(1, -1).flatten(0, -2) for row in unit]
    return torch.stack([(y - y.mean(0) if centred else y).flatten() for y in outs], dim=1)


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_a_convolution_gets_what_a_direct_solver_finds(name: str, ridge: float) -> None:
    layer = conv(**CONVOLUTIONS[name])
    geometry, shape, centred = ConvGeometry.of(layer), tuple(layer.weight.shape), layer.bias is not None
    x = torch.randn(20, 6, 7, 8, dtype=torch.float64)
    x0 = x + 0.3 * torch.randn_like(x)
    dense = layer.weight.detach()
    y = layer(x0).detach()
    patches = geometry.patches(x, shape[2:]).movedim(1, 3).flatten(0, 2)
    pairs = Pairs(centred)
    rows = patches.reshape(len(patches), geometry.groups, -1)
    pairs.add(rows, y.movedim(1, -1).reshape(len(patches), geometry.groups, -1))

    weight = weight_for(shape).project_(dense)
    fit_linear_(weight, dense, pairs, ridge=ridge, steps=3000, tolerance=1e-11)

    design = design_of(lambda w: geometry.convolve(x, w), shape, centred)
    target = y.movedim(1, -1).flatten(0, -2)
    target = (target - target.mean(0) if centred else target).flatten()
    flat = rows - rows.mean(0) if centred else rows
    pull = ridge * flat.square().mean().item() * len(patches)
    expected = solved(weight_for(shape), dense, design, target, pull)
    torch.testing.assert_close(weight.to_dense().detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("samples", [500, 12], ids=["more samples than inputs", "fewer samples than inputs"])
@pytest.mark.parametrize("method", ["hashednet", "freshnet"])
def test_a_linear_layer_gets_what_a_direct_solver_finds(samples: int, method: str) -> None:
    torch.manual_seed(2)
    layer = nn.Linear(20, 9).double()
    x0 = torch.randn(samples, 20, dtype=torch.float64)
    x = x0 + 0.2 * torch.randn_like(x0)
    dense, y = layer.weight.detach(), layer(x0).detach()
    pairs = Pairs(True)
    for part in (slice(0, 5), slice(5, None)):
        pairs.add(x[part, None], y[part, None])
    assert (pairs.rows is None) == (samples > 20)
    weight = weight_for((9, 20), method).project_(dense)
    fit_linear_(weight, dense, pairs, ridge=0.05, steps=3000, tolerance=1e-11)

    centre = x - x.mean(0)
    design = design_of(lambda w: F.linear(x, w), (9, 20), centred=True)
    pull = 0.05 * centre.square().mean().item() * samples
    expected = solved(weight_for((9, 20), method), dense, design, (y - y.mean(0)).flatten(), pull)
    torch.testing.assert_close(weight.to_dense().detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("samples", [400, 10])
def test_the_error_and_the_bias_are_those_of_the_outputs(centred: bool, samples: int) -> None:
    torch.manual_seed(3)
    x = torch.randn(samples, 2, 15, dtype=torch.float64) + 1
    y = torch.randn(samples, 2, 4, dtype=torch.float64) - 2
    matrix = torch.randn(2, 4, 15, dtype=torch.float64)
    pairs = Pairs(centred)
    pairs.add(x, y)
    made = torch.einsum("sgi,goi->sgo", x, matrix)
    bias = pairs.bias(matrix) if centred else None
    if bias is not None:
        torch.testing.assert_close(bias.view(2, 4), (y - made).mean(0))
        made = made + bias.view(2, 4)
    assert pairs.error(matrix, bias) == pytest.approx(((made - y).norm() / y.norm()).item(), rel=1e-6)


@pytest.mark.parametrize("samples", [400, 10])
def test_the_best_matrix_leaves_nothing_that_a_smaller_one_would_take(samples: int) -> None:
    torch.manual_seed(4)
    x, y = torch.randn(samples, 2, 15, dtype=torch.float64), torch.randn(samples, 2, 4, dtype=torch.float64)
    dense = torch.randn(2, 4, 15, dtype=torch.float64)
    pairs = Pairs(False)
    pairs.add(x, y)
    best = pairs.best(dense, 0.1)
    pull = 0.1 * x.square().mean() * samples
    gradient = torch.einsum("sgo,sgi->goi", torch.einsum("sgi,goi->sgo", x, best) - y, x) + pull * (best - dense)
    assert gradient.abs().max() < 1e-9


def test_moments_are_kept_when_there_are_more_samples_than_inputs_and_rows_before() -> None:
    pairs = Pairs(True)
    pairs.add(torch.randn(4, 1, 6), torch.randn(4, 1, 2))
    assert pairs._rows is not None
    pairs.add(torch.randn(4, 1, 6), torch.randn(4, 1, 2))
    assert pairs._rows is None
    assert pairs.moments[0].shape == (1, 6, 6)


def test_a_layer_that_sees_nothing_keeps_its_projection() -> None:
    dense = torch.randn(6, 5, dtype=torch.float64)
    pairs = Pairs(False)
    pairs.add(torch.zeros(9, 1, 5, dtype=torch.float64), torch.zeros(9, 1, 6, dtype=torch.float64))
    weight = weight_for((6, 5)).project_(dense)
    before = weight.to_dense().detach()
    assert fit_linear_(weight, dense, pairs) == 0
    assert torch.equal(weight.to_dense(), before)
