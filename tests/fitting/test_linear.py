from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.fitting import Inputs, Pairs, fit_linear_
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
    rows = patches.reshape(len(patches), geometry.groups, -1)
    pairs = Pairs(Inputs(rows, centred), y.movedim(1, -1).reshape(len(patches), geometry.groups, -1))

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
    pairs = Pairs(Inputs(x[:, None], centred=True), y[:, None])
    assert (pairs.inputs.gram is None) == (samples < 20)
    weight = weight_for((9, 20), method).project_(dense)
    fit_linear_(weight, dense, pairs, ridge=0.05, steps=3000, tolerance=1e-11)

    centre = x - x.mean(0)
    design = design_of(lambda w: F.linear(x, w), (9, 20), centred=True)
    pull = 0.05 * centre.square().mean().item() * samples
    expected = solved(weight_for((9, 20), method), dense, design, (y - y.mean(0)).flatten(), pull)
    torch.testing.assert_close(weight.to_dense().detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("diagonal", [True, False])
def test_errors_that_cost_more_are_made_smaller_as_a_direct_solver_makes_them(diagonal: bool) -> None:
    torch.manual_seed(5)
    x, y = torch.randn(60, 2, 8, dtype=torch.float64), torch.randn(60, 2, 3, dtype=torch.float64)
    dense = torch.randn(6, 8, dtype=torch.float64)
    root = torch.randn(2, 3, 3, dtype=torch.float64)
    cost = torch.diag_embed(torch.tensor([[1.0, 4.0, 9.0], [0.1, 2.0, 5.0]]).double()) if diagonal else root.mT @ root
    given = cost.diagonal(dim1=1, dim2=2)[:, :, None] if diagonal else cost
    weight = weight_for((6, 8), "hashednet").project_(dense)
    fit_linear_(weight, dense, Pairs(Inputs(x, False), y), ridge=0, cost=given, steps=3000, tolerance=1e-11)

    factor = torch.linalg.cholesky(cost + 1e-15 * torch.eye(3).double()).mT  # Γ = Rᵀ R
    unit = torch.eye(48, dtype=torch.float64)
    outs = [torch.einsum("goi,sgi->sgo", row.view(2, 3, 8), x) for row in unit]
    design = torch.stack([torch.einsum("gpo,sgo->sgp", factor, out).flatten() for out in outs], dim=1)
    target = torch.einsum("gpo,sgo->sgp", factor, y).flatten()
    expected = solved(weight_for((6, 8), "hashednet"), dense, design, target, 0.0)
    torch.testing.assert_close(weight.to_dense().detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("samples", [400, 10])
def test_the_best_matrix_leaves_nothing_that_a_smaller_one_would_take(samples: int) -> None:
    torch.manual_seed(4)
    x, y = torch.randn(samples, 2, 15, dtype=torch.float64), torch.randn(samples, 2, 4, dtype=torch.float64)
    dense = torch.randn(2, 4, 15, dtype=torch.float64)
    pairs = Pairs(Inputs(x, False), y)
    best = pairs.best(dense, 0.1)
    pull = 0.1 * x.square().mean() * samples
    gradient = torch.einsum("sgo,sgi->goi", torch.einsum("sgi,goi->sgo", x, best) - y, x) + pull * (best - dense)
    assert gradient.abs().max() < 1e-9


@pytest.mark.parametrize("samples", [3, 9000])
def test_moments_are_those_of_numpy(samples: int) -> None:
    x = torch.randn(samples, 2, 6) + 100
    gram = Inputs(x, centred=True)
    expected = np.stack([np.cov(side.numpy().astype(np.float64).T, bias=True) for side in x.unbind(1)])
    made = gram.times_gram(torch.eye(6).expand(2, 6, 6))
    torch.testing.assert_close(made.double(), torch.from_numpy(expected), rtol=1e-3, atol=1e-3)


def test_a_layer_that_sees_nothing_keeps_its_projection() -> None:
    dense = torch.randn(6, 5, dtype=torch.float64)
    pairs = Pairs(Inputs(torch.zeros(9, 1, 5).double(), False), torch.zeros(9, 1, 6).double())
    weight = weight_for((6, 5)).project_(dense)
    before = weight.to_dense().detach()
    assert fit_linear_(weight, dense, pairs) == 0
    assert torch.equal(weight.to_dense(), before)
