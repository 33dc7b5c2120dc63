"""What a layer sees beside what it should give, and the moments of both that least squares needs."""

from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

SAMPLE = 2048  # pairs that a regression sees, at most
_BLOCK = 4096  # rows whose products are summed in their own precision; the sums of blocks are added in double


class Inputs:
    """Inputs x of a layer over samples (positions of images), and G = E[x xᵀ].

    Where samples outnumber inputs G is formed, of shape (groups, in, in); where they do not, products with G are made
    of the rows, so that the memory is that of the rows and of one square matrix of the smaller side.

    Args:
        rows: shape (samples, groups, in).
        centred: whether the layer has a bias, which takes care of the means: then x is less its mean.
    """

    def __init__(self, rows: Tensor, centred: bool) -> None:
        self.centred = centred
        self.count = len(rows)
        self.mean = rows.mean(0, dtype=torch.float64)
        self.rows = (rows - self.mean.to(rows) if centred else rows).transpose(0, 1)
        self.some = slice(None, None, -(-len(rows) // SAMPLE))
        self._gram: Tensor | None = None  # in the precision it was asked for last

    @property
    def sample(self) -> Tensor:
        """Rows from all samples alike, as many as a regression sees, of shape (samples · groups, in)."""
        return self.rows[:, self.some].transpose(0, 1).flatten(0, 1)

    @property
    def gram(self) -> Tensor | None:
        """G in double precision; None where inputs outnumber samples."""
        return self._product if self.count > self.rows.shape[2] else None

    @cached_property
    def _product(self) -> Tensor:
        return moment(self.rows, self.rows)

    @cached_property
    def power(self) -> float:
        """The mean square of an input: trace(G) / in."""
        return self.rows.square().mean(dtype=torch.float64).item()

    def times_gram(self, matrix: Tensor) -> Tensor:
        """``matrix G`` for a matrix of shape (groups, out, in)."""
        if self.gram is None:
            rows = self.rows.to(matrix)
            return (matrix @ rows.mT) @ rows / self.count
        if self._gram is None or self._gram.dtype is not matrix.dtype:
            self._gram = self.gram.to(matrix)
        return matrix @ self._gram


class Pairs:
    """Inputs x of a compressed layer beside outputs y to reach, over samples.

    Matrices are of shape (groups, out, in), that is ``weight.view(groups, out, in)`` of a convolution's weight.

    Args:
        inputs: x.
        outputs: y, shape (samples, groups, out).
    """

    def __init__(self, inputs: Inputs, outputs: Tensor) -> None:
        self.inputs = inputs
        self.mean = outputs.mean(0, dtype=torch.float64)
        self.outputs = outputs.transpose(0, 1)

    def toward(self, outputs: Tensor) -> "Pairs":
        """The same inputs beside other outputs, of shape (groups, samples, out)."""
        return Pairs(self.inputs, outputs.transpose(0, 1))

    @cached_property
    def cross(self) -> Tensor:
        """B = E[y xᵀ], of shape (groups, out, in), of centred x and y if so."""
        return moment(self.centred, self.inputs.rows)

    @property
    def centred(self) -> Tensor:
        """y, less its mean where x is: shape (groups, samples, out)."""
        return self.outputs - self.mean.to(self.outputs)[:, None] if self.inputs.centred else self.outputs

    def best(self, dense: Tensor, ridge: float) -> Tensor:
        """The dense matrix that least squares prefers to W for these inputs: argmin E‖V x − y‖² + ridge · ‖V − W‖².

        A method that is not linear in its parameters is fitted to V as if V were the layer: V x has in it all of y that
        is linear in x.

        Args:
            dense: W.
            ridge: relative to :attr:`Inputs.power`.
        """
        weight = max(ridge, 1e-6) * max(self.inputs.power, 1e-30)
        x, gram = self.inputs.rows, self.inputs.gram
        wrong = self.centred - x @ dense.mT.to(x)
        if gram is None:
            kernel = moment(x.mT, x.mT) * (x.shape[2] / self.inputs.count)
            kernel += weight * torch.eye(x.shape[1], dtype=kernel.dtype)
            share = torch.linalg.solve(kernel, wrong.to(kernel)).to(x)
            return dense + (share.mT @ x / self.inputs.count).to(dense)
        kernel = gram + weight * torch.eye(gram.shape[1], dtype=gram.dtype)
        return dense + torch.linalg.solve(kernel, moment(wrong, x), left=False).to(dense)


def moment(left: Tensor, right: Tensor) -> Tensor:
    """E[l rᵀ] in double precision, of shape (groups, left, right), for rows of shape (groups, samples, …)."""
    count = left.shape[1]
    edges = [*range(0, count, _BLOCK), count]
    total = torch.zeros(len(left), left.shape[2], right.shape[2], dtype=torch.float64)
    for start, end in pairwise(edges):
        total += left[:, start:end].mT @ right[:, start:end]
    return total / count
