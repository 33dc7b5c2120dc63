"""LowRank: a weight as the product of two thin ones, the truncated singular value decomposition.

Carl Eckart, Gale Young: The Approximation of One Matrix by Another of Lower Rank, Psychometrika 1936,
https://doi.org/10.1007/BF02288367; in networks: Misha Denil, Babak Shakibi, Laurent Dinh, Marc'Aurelio Ranzato, Nando
de Freitas: Predicting Parameters in Deep Learning, NIPS 2013, https://arxiv.org/abs/1306.0543; by separable filters:
Max Jaderberg, Andrea Vedaldi, Andrew Zisserman: Speeding up Convolutional Neural Networks with Low Rank Expansions,
BMVC 2014, https://arxiv.org/abs/1405.3866

| letter | here |
|---|---|
| W, m × n | the weight, read as a matrix |
| U, m × r | ``left`` |
| V, r × n | ``right`` |
| X | ``inputs``, a sample in each row |
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.maths import vectors
from compressnet.product import ProductWeight
from compressnet.structured import ConvGeometry, MethodConfig

RIDGE = 1e-3  # of the mean square of the inputs: directions that no sample shows still count a little


class LowRankConfig(MethodConfig):
    """``lowrank`` in a recipe: exactly one of ``rank`` and ``ratio``.

    Args:
        rank: channels between the two factors.
        ratio: dense numbers per stored number, at least 1; the rank is the largest that stores no more.
        scheme: ``flat`` reads a convolution as the matrix out × (in·kh·kw); ``separable`` as (out·kw) × (in·kh), which
            makes every filter a sum of r vertical ones times horizontal ones.
    """

    sizes = ("rank", "ratio")

    rank: int | None = Field(default=None, ge=1)
    ratio: float | None = Field(default=None, ge=1, allow_inf_nan=False)
    scheme: Literal["flat", "separable"] = "flat"


class LowRankWeight(ProductWeight):
    """A weight of rank r, run as two layers with r channels between them.

        flat         W[o, (i a b)] = Σ_k U[o, k] V[k, (i a b)]          a kh×kw convolution by V, then a 1×1 one by U
        separable    W[o, i, a, b] = Σ_k U[(o b), k] V[k, (i a)]        a kh×1 convolution by V, then a 1×kw one by U

    A product with a matrix is two thin products. The truncated singular value decomposition is the least-squares
    optimum (Eckart and Young). Where samples X of the inputs are known, the optimum for the outputs is closed as well:
    ‖X (W − Ŵ)ᵀ‖ is least when U spans the r leading principal directions of the outputs X Wᵀ, and Ŵ = U Uᵀ W. Of a
    separable convolution each column of a patch is a sample, and each column's share of an output is an output: this
    leaves out how columns correlate.

    Stored: r · (out + in·kh·kw) floats, or r · (out·kw + in·kh); the singular values split evenly between the factors.
    Re-made: nothing.   Cost: as many multiply–accumulates a position.

    Source: Eckart and Young 1936; Denil et al. 2013; Jaderberg et al. 2014, scheme 2 (separable).

    Example:
        >>> weight = LowRankWeight((8, 4, 3, 3), LowRankConfig(rank=2), seed=1)
        >>> weight.numel, weight.to_dense().shape
        (88, torch.Size([8, 4, 3, 3]))
    """

    name = "lowrank"
    Config = LowRankConfig
    exact_projection = True

    @classmethod
    def rejects(cls, shape: Sequence[int], config: Any) -> str | None:
        """The rank is one that a matrix of this shape can have, and it stores less than the dense weight."""
        rank, (rows, columns) = _rank(shape, config), _matrix(shape, config)
        if rank < 1:
            return f"ratio {config.ratio:g} leaves fewer numbers than the {rows + columns:,} of rank 1"
        if rank > min(rows, columns):
            return f"rank {rank} is above {min(rows, columns)}, the rank of a {rows} × {columns} matrix"
        if rank * (rows + columns) >= rows * columns:
            least = (rows * columns - 1) // (rows + columns)
            advice = f"a rank up to {least} does" if least else "no rank does"
            return f"rank {rank} would not store fewer numbers than the dense weight; {advice}"
        return None

    @classmethod
    def runs_product(cls, shape: Sequence[int], groups: int = 1) -> bool:
        """Everything without groups is."""
        return groups == 1

    @classmethod
    def macs_per_input(cls, shape: Sequence[int], config: Any) -> int:
        """Two thin products."""
        return _rank(shape, config) * sum(_matrix(shape, config))

    def _allocate_(self, device: torch.device, dtype: torch.dtype) -> None:
        rank, (rows, columns) = _rank(self.shape, self.config), _matrix(self.shape, self.config)
        self.parts = _parts(self.shape, self.config)
        self.left = nn.Parameter(torch.zeros(rows, rank, device=device, dtype=dtype))
        self.right = nn.Parameter(torch.zeros(rank, columns, device=device, dtype=dtype))

    def _split(self, x: Tensor) -> Tensor:
        """Patches (…, in·kh·kw) as what V multiplies, (…, parts, columns): a part is a column of each, or all of it."""
        return x.unflatten(-1, (-1, self.parts)).mT

    def to_dense(self) -> Tensor:
        """The dense weight."""
        return (self.left @ self.right).unflatten(0, (-1, self.parts)).mT.reshape(self.shape)

    @torch.no_grad()
    def scale_(self, factor: float) -> None:
        """Multiply the weight by a number: the left factor takes it."""
        self.left.mul_(factor)

    @torch.no_grad()
    def scale_rows_(self, factors: Tensor) -> bool:
        """The left factor takes them."""
        self.left.view(len(factors), -1).mul_(factors[:, None])
        return True

    def matmul(self, x: Tensor) -> Tensor:
        """``x Wᵀ`` for x of shape (…, in·kh·kw), by two thin products."""
        return self.affine(x, None)

    def affine(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """:meth:`matmul`, with the bias in its second product."""
        if self.parts == 1:
            right, left = self.right, self.left
            if vectors.runs(x, right, left, bias):
                return vectors.through(x, right, left, bias, parts=1)
            return F.linear(F.linear(x, right), left, bias)
        return F.linear(F.linear(self._split(x), self.right).flatten(-2), self.left.view(self.shape[0], -1), bias)

    def conv2d(self, x: Tensor, geometry: ConvGeometry) -> Tensor:
        """Two convolutions with ``rank`` channels between; with groups, the dense weight is made."""
        if not self.runs_product(self.shape, geometry.groups):
            return geometry.convolve(x, self.dense())
        if self.parts == 1:
            thin = geometry.convolve(x, self.right.view(-1, *self.shape[1:]))
            return F.conv2d(thin, self.left[:, :, None, None])
        vertical, horizontal = _axes(geometry)
        thin = vertical.convolve(x, self.right.view(len(self.right), *self.shape[1:3], 1))
        return horizontal.convolve(thin, self.left.view(self.shape[0], self.parts, 1, -1).permute(0, 3, 2, 1))

    @torch.no_grad()
    def project_(self, dense: Tensor, inputs: Tensor | None = None) -> Self:
        """The truncated singular value decomposition, of the weight or, where inputs are given, of the outputs.

        Args:
            dense: shape ``shape``.
            inputs: shape (samples, in·kh·kw), for a convolution its patches.
        """
        matrix = self._split(dense.flatten(1)).flatten(0, 1).double()
        rank = self.left.shape[1]
        if inputs is not None:
            samples = self._split(inputs).flatten(0, 1)
            outputs = torch.cat([x.double() @ matrix.T for x in samples.split(256)])
            ridge = RIDGE * samples.double().square().mean() * len(samples)
            directions = _leading(outputs.T @ outputs + ridge * (matrix @ matrix.T), rank)
        elif matrix.shape[0] <= matrix.shape[1]:
            directions = _leading(matrix @ matrix.T, rank)
        else:
            directions = torch.linalg.qr(matrix @ _leading(matrix.T @ matrix, rank))[0]
        right = directions.T @ matrix
        strengths = right.norm(dim=1).clamp(min=torch.finfo(self.left.dtype).tiny).sqrt()
        self.left.copy_(directions * strengths)
        self.right.copy_(right / strengths[:, None])
        return self


def _leading(gram: Tensor, rank: int) -> Tensor:
    """The eigenvectors of the largest eigenvalues, in columns, the largest first."""
    return torch.linalg.eigh(gram)[1][:, -rank:].flip(1)


def _axes(geometry: ConvGeometry) -> tuple[ConvGeometry, ConvGeometry]:
    """The geometry of a vertical and of a horizontal kernel that together slide as one does."""
    (down, right), (tall, wide), pad = geometry.stride, geometry.dilation, geometry.padding
    above, beside = (pad, pad) if isinstance(pad, str) else ((pad[0], 0), (0, pad[1]))
    vertical = dataclasses.replace(
        geometry, stride=(down, 1), padding=above, dilation=(tall, 1), border=(0, 0, *geometry.border[2:])
    )
    horizontal = dataclasses.replace(
        geometry, stride=(1, right), padding=beside, dilation=(1, wide), border=(*geometry.border[:2], 0, 0)
    )
    return vertical, horizontal


def _parts(shape: Sequence[int], config: Any) -> int:
    return shape[3] if config.scheme == "separable" and len(shape) == 4 else 1


def _matrix(shape: Sequence[int], config: Any) -> tuple[int, int]:
    parts = _parts(shape, config)
    return shape[0] * parts, torch.Size(shape[1:]).numel() // parts


def _rank(shape: Sequence[int], config: Any) -> int:
    rows, columns = _matrix(shape, config)
    return int(config.rank or rows * columns / config.ratio // (rows + columns))
