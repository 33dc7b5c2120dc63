"""One layer, fitted to what it sees and should give."""

from torch import Tensor

from compressnet.fitting import Pairs, fit_linear_
from compressnet.plan import PlannedLayer
from compressnet.rewrite import relative_error
from compressnet.structured import StructuredWeight


def fit_layer(
    layer: PlannedLayer, dense: Tensor, pairs: Pairs, ridge: float
) -> tuple[StructuredWeight, Tensor | None, tuple[float, float]]:
    """The weight that gives a layer's outputs, the bias that goes with it (None where there is none), and both errors.

    Args:
        layer: planned.
        dense: its weight.
        pairs: what it sees and should give.
        ridge: see :func:`calibrate_`.
    """
    dense, weight = dense.detach().float().cpu(), layer.build()
    matrix = dense.view(layer.groups, -1, dense[0].numel())
    inputs, outputs = pairs.sample
    if weight.linear:
        weight.project_(dense)
        fit_linear_(weight, dense, pairs, ridge=ridge)
    elif weight.uses_inputs:
        weight.project_(pairs.best(matrix, ridge).view_as(dense), inputs.flatten(0, 1))
    else:
        weight.project_(dense)
    error = relative_error(weight, dense, inputs.flatten(0, 1))
    if not weight.runs_product(layer.shape, layer.groups):
        made = weight.to_dense().reshape(matrix.shape)
        bias = pairs.bias(made).float() if pairs.centred else None
        return weight, bias, (error, pairs.error(made, bias))
    given = weight.matmul(inputs[:, 0])
    bias = (pairs.means[1][0] - weight.matmul(pairs.means[0].float())[0]).float() if pairs.centred else None
    wrong = given - outputs[:, 0] + (0 if bias is None else bias)
    return weight, bias, (error, (wrong.norm() / outputs.norm().clamp(min=1e-30)).item())
