"""Rounding in which the errors of some numbers make up for those of others.

| paper | here |
|---|---|
| H | ``moment``, E[x xᵀ] of what the layer sees |
| Cholesky(H⁻¹)ᵀ | ``upper`` |

Source: E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh: GPTQ: Accurate Post-Training Quantization for Generative
Pre-trained Transformers, ICLR 2023, https://arxiv.org/abs/2210.17323, algorithm 1, with the columns by falling H[j, j].
"""

from collections.abc import Callable

import torch
from torch import Tensor

Rounding = Callable[[Tensor, Tensor], Tensor]
DAMPING = 0.01  # of the mean of the diagonal: directions that no image shows still count
_COLUMNS = 64  # that are rounded before what is behind them is told


class Compensation:
    """How the error of an input's weights is made up for by the weights of the inputs behind it.

    The error of a row's outputs, eᵀ H e, is the sum of (e[j] / U[j, j])² over the inputs in order, where e[j] is what
    rounding adds to a weight which has been moved to make up for those before it, and U the upper Cholesky factor of
    H⁻¹.

    Args:
        moment: H, shape (groups, in, in).
    """

    def __init__(self, moment: Tensor) -> None:
        moment = moment.double()
        diagonal = moment.diagonal(dim1=1, dim2=2)
        damping = DAMPING * diagonal.mean(1).clamp(min=torch.finfo(torch.float32).tiny)
        damped = moment + torch.diag_embed(damping[:, None].expand_as(diagonal))
        self.order = diagonal.argsort(dim=1, descending=True, stable=True)
        whole = torch.arange(len(moment))[:, None, None]
        damped = damped[whole, self.order[:, :, None], self.order[:, None, :]]
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
        self.upper = torch.linalg.cholesky(inverse).mT.contiguous().float()
        own = self.upper.diagonal(dim1=1, dim2=2).double().square()
        self.costs = (own.reciprocal() / own.reciprocal().mean()).float()
        self.share = (own.reciprocal().mean() / damped.diagonal(dim1=1, dim2=2).mean()).item()
        """What the squared error of a number costs on average, relative to one that nothing makes up for."""

    @torch.no_grad()
    def round(self, matrix: Tensor, rounded_to: Rounding) -> Tensor:
        """Rounded numbers whose outputs are near to those of a matrix.

        Args:
            matrix: float32 of shape (groups, out, in).
            rounded_to: rounds numbers of shape (groups, out), given also what a squared error of them costs relative to
                the mean, of shape (groups, 1).

        Returns:
            of the matrix' shape.
        """
        places = self.order[:, :, None].expand_as(matrix.mT)
        rest = matrix.mT.gather(1, places)
        rounded = torch.empty_like(rest)
        for start in range(0, rest.shape[1], _COLUMNS):
            stop = min(start + _COLUMNS, rest.shape[1])
            errors = torch.empty_like(rest[:, start:stop])
            for j in range(start, stop):
                rounded[:, j] = rounded_to(rest[:, j], self.costs[:, j, None])
                errors[:, j - start] = (rest[:, j] - rounded[:, j]) / self.upper[:, j, j, None]
                rest[:, j + 1 : stop] -= self.upper[:, j, j + 1 : stop, None] * errors[:, None, j - start]
            rest[:, stop:] -= self.upper[:, start:stop, stop:].mT @ errors
        return torch.empty_like(rest).scatter_(1, places, rounded).mT
