"""What a layer sees and what it should give, in as little memory as a least-squares problem needs."""

from functools import cached_property

import torch
from torch import Tensor

SAMPLE = 512  # pairs that are kept as they are


class Pairs:
    """Inputs x of a compressed layer beside the outputs y of the dense one, over samples (positions of images).

    Pairs are kept as rows until they outnumber the inputs of the layer; from then on only their moments E[x xᵀ],
    E[y xᵀ], E[x], E[y] and E[y²] are, which is all that least squares needs. The memory is that of a few square
    matrices of the smaller of the two sides.

    Rows are of shape (samples, groups, in) and (samples, groups, out); matrices of shape (groups, out, in), that is
    ``weight.view(groups, out, in)`` of a convolution's weight.

    Args:
        centred: whether the layer has a bias, which takes care of the means.
    """

    def __init__(self, centred: bool) -> None:
        self.centred = centred
        self.count = 0
        self._rows: list[tuple[Tensor, Tensor]] | None = []
        self._sample: list[tuple[Tensor, Tensor]] = []
        self._sums: list[Tensor] = []
        self._gram: Tensor | None = None  # in the precision it was asked for last

    def add(self, x: Tensor, y: Tensor) -> None:
        """More rows; to be done with before anything is asked."""
        if (have := sum(len(rows) for rows, _ in self._sample)) < SAMPLE:
            self._sample.append((x[: SAMPLE - have].clone(), y[: SAMPLE - have].clone()))
        self.count += len(x)
        if self._rows is None:
            self._fold(x, y)
            return
        self._rows.append((x, y))
        if self.count > x.shape[2]:
            for rows in self._rows:
                self._fold(*rows)
            self._rows = None

    def _fold(self, x: Tensor, y: Tensor) -> None:
        x, y = x.transpose(0, 1), y.transpose(0, 1)
        parts = [x.mT @ x, y.mT @ x, x.sum(1), y.sum(1), y.square().sum(1)]
        # single precision inside a block of rows, double across blocks
        if not self._sums:
            self._sums = [part.double() for part in parts]
        else:
            for total, part in zip(self._sums, parts, strict=True):
                total += part

    @cached_property
    def sample(self) -> tuple[Tensor, Tensor]:
        """The first rows: x of shape (samples, groups, in) and y of shape (samples, groups, out)."""
        xs, ys = zip(*self._sample, strict=True)
        return torch.cat(xs), torch.cat(ys)

    @cached_property
    def means(self) -> tuple[Tensor, Tensor]:
        """E[x] of shape (groups, in) and E[y] of shape (groups, out)."""
        if self._rows is None:
            return self._sums[2] / self.count, self._sums[3] / self.count
        x, y = self._whole
        return x.mean(0).double(), y.mean(0).double()

    @cached_property
    def _whole(self) -> tuple[Tensor, Tensor]:
        assert self._rows is not None
        return torch.cat([x for x, _ in self._rows]), torch.cat([y for _, y in self._rows])

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor] | None:
        """x (groups, samples, in) and y (groups, samples, out), less their means where centred; None: see moments."""
        if self._rows is None:
            return None
        x, y = self._whole
        if self.centred:
            x, y = x - self.means[0].to(x), y - self.means[1].to(y)
        return x.transpose(0, 1), y.transpose(0, 1)

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """G = E[x xᵀ] of shape (groups, in, in) and B = E[y xᵀ] of (groups, out, in), of centred x and y if so."""
        gram, cross = self._sums[0] / self.count, self._sums[1] / self.count
        if self.centred:
            x, y = self.means
            gram, cross = gram - x[:, :, None] * x[:, None], cross - y[:, :, None] * x[:, None]
        return gram, cross

    @cached_property
    def power(self) -> float:
        """The mean square of an input: trace(G) / in."""
        if self.rows is not None:
            return self.rows[0].square().mean().item()
        return self.moments[0].diagonal(dim1=1, dim2=2).mean().item()

    def times_gram(self, matrix: Tensor) -> Tensor:
        """``matrix G``; G is not formed where rows are fewer than inputs."""
        if self.rows is not None:
            x = self.rows[0].to(matrix)
            return (matrix @ x.mT) @ x / self.count
        if self._gram is None or self._gram.dtype is not matrix.dtype:
            self._gram = self.moments[0].to(matrix)
        return matrix @ self._gram

    @cached_property
    def cross(self) -> Tensor:
        """B, of shape (groups, out, in)."""
        if self.rows is not None:
            return self.rows[1].mT @ self.rows[0] / self.count
        return self.moments[1]

    def bias(self, matrix: Tensor) -> Tensor:
        """What makes the mean of the outputs right: E[y] − W E[x], of shape (groups · out,)."""
        x, y = self.means
        return (y - (matrix.to(x) @ x[:, :, None])[:, :, 0]).flatten()

    @cached_property
    def energy(self) -> float:
        """E[y²], summed over outputs."""
        if self._rows is None:
            return self._sums[4].sum().item() / self.count
        return self._whole[1].square().sum().item() / self.count

    def error(self, matrix: Tensor, bias: Tensor | None = None) -> float:
        """The relative error of the outputs, ‖W x + bias − y‖ / ‖y‖ over all samples.

        Args:
            matrix: shape (groups, out, in).
            bias: shape (groups · out,); None is none.
        """
        x, y = self.means
        if self.rows is not None:
            wrong = (self.rows[0] @ matrix.mT.to(self.rows[0]) - self.rows[1]).square().sum().item() / self.count
        else:
            (gram, cross), matrix = self.moments, matrix.double()
            power = self._sums[4].sum() / self.count - (y.square().sum() if self.centred else 0)
            wrong = (((matrix @ gram - 2 * cross) * matrix).sum() + power).item()
        shift = torch.zeros_like(y) if bias is None else bias.to(y).view_as(y)
        if self.centred:
            wrong += ((matrix.to(x) @ x[:, :, None])[:, :, 0] + shift - y).square().sum().item()
        elif bias is not None:
            raise ValueError("a layer with a bias has centred pairs")
        return float((max(0.0, wrong) / max(self.energy, 1e-30)) ** 0.5)

    def best(self, dense: Tensor, ridge: float) -> Tensor:
        """The dense matrix that least squares prefers to W for these inputs: argmin E‖V x − y‖² + ridge · ‖V − W‖².

        A method that is not linear in its parameters is fitted to V as if V were the layer: V x has in it all of y that
        is linear in x.

        Args:
            dense: W, of shape (groups, out, in).
            ridge: relative to :attr:`power`.
        """
        weight = max(ridge, 1e-6) * max(self.power, 1e-30)
        if self.rows is not None:
            x, y = (side.to(dense) for side in self.rows)
            kernel = x @ x.mT / self.count + weight * torch.eye(x.shape[1]).to(x)
            return dense + torch.linalg.solve(kernel, y - x @ dense.mT).mT @ x / self.count
        gram, cross = self.moments
        wanted = cross - dense.double() @ gram
        kernel = gram + weight * torch.eye(gram.shape[1], dtype=gram.dtype)
        return dense + torch.linalg.solve(kernel, wanted, left=False).to(dense)
