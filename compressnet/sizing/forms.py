"""The forms of one layer: its weight in every ratio that it may have, and how far each is from the dense one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from compressnet.allocation.rounding import Compensation
from compressnet.allocation.thrift import Thrift
from compressnet.coding.quantisers import Uniform
from compressnet.fitting import fit_linear_
from compressnet.fitting.linear import RIDGE
from compressnet.maths.hashing import normal
from compressnet.plan import PlannedLayer
from compressnet.sizing.options import COARSE, STEPS, Form, Rounded, entropy
from compressnet.sizing.views import View
from compressnet.structured import MethodConfig, StructuredWeight

NOISE = 0.1  # standard deviations of a tensor's numbers
NOTHING_LEFT = 0.95  # of the dense outputs: a ratio that loses so much has nothing to gain from a larger one
ROUNDED = (COARSE[0], COARSE[2], STEPS[1])
"""Steps, in standard deviations, at which rounding of a dense weight is measured."""
FAR = 1.0  # nats: how much farther answers are moved is not measured
_STEPS = 30  # of conjugate gradients
_WIDEST = 2048  # inputs, of a layer whose rounding is thought to make up for itself

Moved = Callable[[Tensor, bool], float]
"""How far an error of the weight, of shape (groups, out, in), moves the answers of the model, in nats, where the bias
makes up for the mean of what comes of it, or not."""


@torch.no_grad()
def forms(
    layer: PlannedLayer,
    configs: Sequence[MethodConfig | None],
    dense: Tensor,
    view: View | None = None,
    moved: Moved | None = None,
    ridge: float = RIDGE,
) -> list[Form]:
    """Fit a layer at each of its ratios.

    What sharing loses is measured with the layer alone changed, up to the first ratio that is far off; of larger ones
    it is taken to grow as the error of the outputs does. What inexact numbers lose is measured once.

    Args:
        layer: of the plan.
        configs: its ratios, rising; None is the layer as it is, dense.
        dense: its weight.
        view: what it sees; None counts errors of the weight alone, relative to it.
        moved: measures, where there is a view.
        ridge: see :func:`compressnet.calibration.calibrate_`.
    """
    matrix = dense.reshape(layer.groups, -1, dense[0].numel())
    weigh = _Weigh(matrix, view, moved)
    found = []
    for config in configs:
        if config is None:
            rounded = _rounded(matrix, view, moved)
            noise = 0.0 if rounded else weigh.noise(_noise(dense, 0).view_as(matrix))
            found.append(Form(None, _standard(dense), 0, 0.0, noise, rounded=rounded))
            continue
        weight = type(layer.build("meta"))(layer.shape, config, layer.seed or 0)
        _fit_(weight, dense, view, ridge)
        fitted = weight.to_dense().reshape(matrix.shape)
        parameters = list(weight.parameters())
        numbers = torch.cat([_standard(parameter).flatten() for parameter in parameters])
        for place, parameter in enumerate(parameters):
            parameter.add_(_noise(parameter, place))
        noise = weigh.noise(weight.to_dense().reshape(matrix.shape) - fitted)
        beside = weight.numel - len(numbers)
        found.append(Form(config, numbers, beside, weigh.lost(fitted - matrix), noise, len(parameters)))
        if weigh.nothing_left:
            break
    return found


class _Weigh:
    """What errors of a layer's weight lose."""

    def __init__(self, matrix: Tensor, view: View | None, moved: Moved | None) -> None:
        self._view, self._moved = view, moved
        self._energy = max(matrix.square().sum(dtype=torch.float64).item(), 1e-30)
        self._whole = self._loss(matrix, True)
        self._nats = 0.0
        self._last = 0.0
        self._unit: float | None = None

    @property
    def nothing_left(self) -> bool:
        """Whether the last ratio lost so much that a larger one has nothing to gain."""
        return self._last > NOTHING_LEFT * self._whole

    def lost(self, error: Tensor) -> float:
        """Of the fit at a ratio, larger than that before."""
        loss = self._loss(error, True)
        if self._moved is None:
            self._nats = loss
        elif self._nats < FAR or not self._last:
            self._nats = max(self._nats, self._moved(error, True))
        else:
            self._nats *= max(1.0, loss / self._last)
        self._last = loss
        return self._nats

    def noise(self, error: Tensor) -> float:
        """Of noise in the numbers, for each of their variance."""
        loss = self._loss(error, False)
        if self._unit is None:
            self._unit = 1.0 if self._moved is None else self._moved(error, False) / max(loss, 1e-30)
        return self._unit * loss / NOISE**2

    def _loss(self, error: Tensor, corrected: bool) -> float:
        if self._view is None:
            return error.square().sum(dtype=torch.float64).item() / self._energy
        return self._view.loss(error, corrected)


def _fit_(weight: StructuredWeight, dense: Tensor, view: View | None, ridge: float) -> None:
    if view is None:
        weight.project_(dense)
    elif weight.linear:
        weight.project_(dense)
        fit_linear_(weight, dense, view.pairs, ridge=ridge, cost=view.cost, steps=_STEPS)
    else:
        weight.project_(dense, view.pairs.inputs.sample)


def _standard(numbers: Tensor) -> Tensor:
    return numbers.detach().float() / _spread(numbers)


def _noise(numbers: Tensor, stream: int) -> Tensor:
    drawn = normal(numbers.numel(), seed=0, stream=stream).float().view_as(numbers)
    return NOISE * _spread(numbers) * drawn


def _spread(numbers: Tensor) -> float:
    spread = numbers.detach().double().std(correction=0).item()
    return spread or max(numbers.abs().max().item(), 1e-30)


def _rounded(matrix: Tensor, view: View | None, moved: Moved | None) -> Rounded | None:
    """Round a dense weight as ``export`` does, at a few steps; None where that cannot be measured."""
    inputs = None if view is None else view.pairs.inputs
    if inputs is None or moved is None or inputs.gram is None or len(inputs.gram[0]) > _WIDEST:
        return None
    mean = inputs.mean if inputs.centred else torch.zeros_like(inputs.mean)
    compensation = Compensation(inputs.gram + mean[:, :, None] * mean[:, None, :])
    spread = _spread(matrix)
    bits, losses = [], []
    for step in ROUNDED:
        quantiser = Uniform(step * spread)
        rounded = compensation.round(matrix, Thrift.of(matrix, quantiser))
        bits.append(entropy(quantiser.symbols(rounded)))
        losses.append(moved(rounded - matrix, False))
    return Rounded(ROUNDED, tuple(bits), tuple(losses))
