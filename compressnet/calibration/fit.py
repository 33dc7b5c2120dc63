"""One layer, fitted to what it sees and should give."""

import torch
from torch import Tensor

from compressnet.calibration.calls import Place
from compressnet.fitting import Pairs, fit_linear_
from compressnet.rewrite import relative_error
from compressnet.structured import StructuredWeight

ROUNDS = 3  # of targets behind a ReLU
_STEPS = 30  # of conjugate gradients, each round


@torch.no_grad()
def fit_(place: Place, pairs: Pairs, ridge: float) -> None:
    """Set the fitted weight of a place, the bias that goes with it (None where there is none), and its errors.

    Args:
        place: in the model.
        pairs: what it sees and should give.
        ridge: see :func:`compressnet.calibration.calibrate_`.
    """
    layer, dense = place.layer, place.dense.detach().float()
    weight = layer.build() if place.start is None else place.start
    bias = None
    if weight.linear:
        bias = _fit_linear_(weight, dense, pairs, place, ridge)
    else:
        matrix = dense.view(layer.groups, -1, dense[0].numel())
        aim = pairs.best(matrix, ridge).view_as(dense) if weight.uses_inputs else dense
        weight.project_(aim, pairs.inputs.sample)
        bias = _bias(weight, pairs)
    place.fitted, place.bias = weight, bias
    place.errors = relative_error(weight, dense), _error(place, pairs)


def _fit_linear_(weight: StructuredWeight, dense: Tensor, pairs: Pairs, place: Place, ridge: float) -> Tensor | None:
    """Least squares; behind a ReLU in rounds, each toward what the one before leaves to be reached. Gives the bias."""
    if place.start is None:
        weight.project_(dense)
    fit_linear_(weight, dense, pairs, ridge=ridge, cost=place.cost)
    bias = _bias(weight, pairs)
    for _ in range(ROUNDS if place.gate else 0):
        assert place.gate is not None
        nearer = pairs.toward(place.gate.target(_given(weight, pairs, bias), pairs.outputs))
        fit_linear_(weight, dense, nearer, ridge=ridge, cost=place.cost, steps=_STEPS)
        bias = _bias(weight, nearer)
    return bias


def _error(place: Place, pairs: Pairs) -> float:
    """The relative error of the layer's outputs, or of what the ReLU behind it lets through."""
    assert place.fitted is not None
    given = _given(place.fitted, pairs, place.bias)
    wanted = pairs.outputs[:, _measured(place.fitted, pairs)]
    if place.gate is not None:
        given, wanted = place.gate.through(given), place.gate.through(wanted)
    return ((given - wanted).norm() / wanted.norm().clamp(min=1e-30)).item()


def _bias(weight: StructuredWeight, pairs: Pairs) -> Tensor | None:
    """What makes the mean of the outputs right, E[y] − W E[x], of shape (out,); None for a layer without a bias."""
    if not pairs.inputs.centred:
        return None
    return pairs.mean.flatten().float() - _product(weight, pairs.inputs.mean.float()[:, None]).flatten()


def _given(weight: StructuredWeight, pairs: Pairs, bias: Tensor | None) -> Tensor:
    """The outputs of the layer, of shape (groups, samples, out)."""
    rows, mean = pairs.inputs.rows[:, _measured(weight, pairs)], pairs.inputs.mean.float()[:, None]
    given = _product(weight, rows)
    return given if bias is None else given + _product(weight, mean) + bias.view(len(mean), 1, -1)


def _measured(weight: StructuredWeight, pairs: Pairs) -> slice:
    """The samples whose outputs are made: some of them, where they are the method's own product."""
    return pairs.inputs.some if weight.runs_product(weight.shape, len(pairs.outputs)) else slice(None)


def _product(weight: StructuredWeight, x: Tensor) -> Tensor:
    """The outputs for x of shape (groups, samples, in)."""
    if weight.runs_product(weight.shape, len(x)):
        return weight.matmul(x[0])[None]
    return x @ weight.to_dense().reshape(len(x), -1, x.shape[2]).mT
