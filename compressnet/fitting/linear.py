"""Least squares on a layer's outputs, for every weight that is linear in its parameters.

The weight is W = S(p) with S linear. With x the inputs of the compressed layer, y the outputs to reach, G = E[x xᵀ],
B = E[y xᵀ] and Γ what an error of the outputs costs, the p that minimises

    E (S(p) x − y)ᵀ Γ (S(p) x − y) + λ tr((S(p) − W₀)ᵀ Γ (S(p) − W₀))

solves Sᵀ(Γ S(p) (G + λ I)) = Sᵀ(Γ (B + λ W₀)). It is found by conjugate gradients: S is ``to_dense``, Sᵀ its
vector–Jacobian product, so that no method has to say more of itself.
"""

import torch
from torch import Tensor, nn

from compressnet.fitting.pairs import Pairs
from compressnet.structured import StructuredWeight

RIDGE = 0.001  # of the mean square of an input
STEPS = 100
TOLERANCE = 1e-4


class _Dense(nn.Module):
    def __init__(self, weight: StructuredWeight) -> None:
        super().__init__()
        self.weight = weight

    def forward(self) -> Tensor:
        return self.weight.to_dense()


def fit_linear_(
    weight: StructuredWeight,
    dense: Tensor,
    pairs: Pairs,
    *,
    ridge: float = RIDGE,
    cost: Tensor | None = None,
    steps: int = STEPS,
    tolerance: float = TOLERANCE,
) -> int:
    """Fit the outputs of a weight that is linear in its parameters, from the parameters it has.

    Args:
        weight: fitted in place; best projected before, as the fit starts there.
        dense: the weight W₀ that the ridge draws toward, of the same shape.
        pairs: inputs of the compressed layer and outputs to reach.
        ridge: λ, relative to the mean square of an input.
        cost: Γ, of shape (groups, out, out), or its diagonal, (groups, out, 1); None is the identity.
        steps: of conjugate gradients, at most.
        tolerance: of the residual of the normal equations, relative to their right-hand side, at which it ends.

    Returns:
        the steps taken.
    """
    module = _Dense(weight)
    names = [name for name, _ in module.named_parameters()]
    values = [p.detach().clone() for p in module.parameters()]
    shape = (pairs.cross.shape[0], -1, pairs.cross.shape[2])
    pull = ridge * pairs.inputs.power

    def spread(*parameters: Tensor) -> Tensor:
        matrix = torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), ())
        return matrix.reshape(shape)

    def charged(matrix: Tensor) -> Tensor:
        if cost is None:
            return matrix
        return cost.to(matrix) * matrix if cost.shape[2] == 1 else cost.to(matrix) @ matrix

    with torch.no_grad():
        gather = torch.func.vjp(spread, *values)[1]

        def normal(parameters: list[Tensor]) -> list[Tensor]:
            matrix = spread(*parameters)
            return list(gather(charged(pairs.inputs.times_gram(matrix) + pull * matrix)))

        matrix = dense.detach().to(values[0]).reshape(shape)
        wanted = list(gather(charged(pairs.cross.to(matrix) + pull * matrix)))
        residual = [b - a for b, a in zip(wanted, normal(values), strict=True)]
        direction, size = residual, _dot(residual, residual)
        enough = tolerance**2 * _dot(wanted, wanted)
        taken = 0
        while taken < steps and size > enough:
            image = normal(direction)
            curvature = _dot(direction, image)
            if curvature <= 0:
                break
            taken += 1
            step = size / curvature
            values = [v + step * d for v, d in zip(values, direction, strict=True)]
            residual = [r - step * i for r, i in zip(residual, image, strict=True)]
            size, before = _dot(residual, residual), size
            direction = [r + size / before * d for r, d in zip(residual, direction, strict=True)]
        for parameter, value in zip(weight.parameters(), values, strict=True):
            parameter.copy_(value)
    return taken


def _dot(left: list[Tensor], right: list[Tensor]) -> float:
    return sum((a.double() * b).sum().item() for a, b in zip(left, right, strict=True))
