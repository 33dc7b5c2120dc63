"""The forms of one layer: its weight in every ratio that it may have, and how far each is from the dense one."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressnet.allocation.rounding import Compensation
from compressnet.fitting import fit_linear_
from compressnet.maths.hashing import normal
from compressnet.plan import PlannedLayer
from compressnet.sizing.options import Form
from compressnet.sizing.views import View
from compressnet.structured import MethodConfig, StructuredWeight

NOISE = 0.1  # standard deviations of a tensor's numbers
NOTHING_LEFT = 0.95  # of the dense outputs: a ratio that loses so much has nothing to gain from a larger one
_STEPS = 30  # of conjugate gradients
_WIDEST = 2048  # inputs, of a layer whose rounding is thought to make up for itself

Loss = Callable[[Tensor, bool], float]
"""Of an error of the weight, shape (groups, out, in), and whether the bias makes up for its mean."""


@dataclass(frozen=True)
class Forms:
    """The forms of a layer, with errors of its weight to probe the model by, of shape (groups, out, in).

    Args:
        forms: by rising ratio.
        loss: of an error.
        lost: that a ratio in the middle makes; None where none makes any.
        noise: that inexact numbers make.
    """

    forms: list[Form]
    loss: Loss
    lost: Tensor | None
    noise: Tensor

    def weighed(self, lost: float, noise: float) -> list[Form]:
        """The forms with both losses in other units, each given as how many one of today's is."""
        return [dataclasses.replace(form, lost=lost * form.lost, noise=noise * form.noise) for form in self.forms]


@torch.no_grad()
def forms(
    layer: PlannedLayer, configs: Sequence[MethodConfig], dense: Tensor, view: View | None, ridge: float
) -> Forms:
    """Fit a layer at each of its ratios.

    Args:
        layer: of the plan.
        configs: its ratios, rising; none where it stays dense.
        dense: its weight.
        view: what it sees; None counts errors of the weight alone.
        ridge: see :func:`compressnet.calibration.calibrate_`.
    """
    matrix = dense.reshape(layer.groups, -1, dense[0].numel())

    def loss(error: Tensor, corrected: bool) -> float:
        return error.square().sum(dtype=torch.float64).item() if view is None else view.loss(error, corrected)

    if not configs:
        noise = _noise(dense, 0).view_as(matrix)
        share = _made_up(view) if view is not None else 1.0
        return Forms([Form(None, _standard(dense), 0, 0.0, share * loss(noise, False) / NOISE**2)], loss, None, noise)
    found, errors, noises, whole = [], [], [], loss(matrix, True)
    for config in configs:
        weight = type(layer.build("meta"))(layer.shape, config, layer.seed or 0)
        _fit_(weight, dense, view, ridge)
        fitted = weight.to_dense().reshape(matrix.shape)
        parameters = list(weight.parameters())
        stored = [_standard(parameter) for parameter in parameters]
        for place, parameter in enumerate(parameters):
            parameter.add_(_noise(parameter, place))
        errors.append(fitted - matrix)
        noises.append(weight.to_dense().reshape(matrix.shape) - fitted)
        beside = weight.numel - sum(parameter.numel() for parameter in parameters)
        lost, rough = loss(errors[-1], True), loss(noises[-1], False) / NOISE**2
        found.append(Form(config, torch.cat([each.flatten() for each in stored]), beside, lost, rough, len(stored)))
        if lost > NOTHING_LEFT * whole:
            break
    lossy = [error for error, form in zip(errors, found, strict=True) if form.lost > 1e-6 * whole]
    return Forms(found, loss, lossy[len(lossy) // 2] if lossy else None, noises[0])


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


def _made_up(view: View) -> float:
    """What rounding of a dense weight loses, of what it would if errors of an input were not made up for by others."""
    inputs = view.pairs.inputs
    return 1.0 if inputs.gram is None or len(inputs.gram[0]) > _WIDEST else Compensation(inputs.gram).share
