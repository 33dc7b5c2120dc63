"""LowRank: a weight as the product of two thin ones, the truncated singular value decomposition.

Carl Eckart, Gale Young: The Approximation of One Matrix by Another of Lower Rank, Psychometrika 1936,
https://doi.org/10.1007/BF02288367; in networks: Misha Denil, Babak Shakibi, Laurent Dinh, Marc'Aurelio Ranzato, Nando
de Freitas: Predicting Parameters in Deep Learning, NIPS 2013, https://arxiv.org/abs/1306.0543

| letter | here |
|---|---|
| W, m × n | the weight, flattened to out × (in·kh·kw) |
| U, m × r | ``left`` |
| V, r × n | ``right`` |
| X | ``inputs``, a sample in each row |
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.structured import ConvGeometry, MethodConfig, StructuredWeight

RIDGE = 1e-3  # of the mean square of the inputs: directions that no sample shows still count a little


class LowRankConfig(MethodConfig):
    """``lowrank`` in a recipe: exactly one of ``rank`` and ``ratio``.

    Args:
        rank: channels between the two factors.
        ratio: dense numbers per stored number, at least 1; the rank is the largest that stores no more.
        scheme: ``flat`` reads a convolution as the matrix out × (in·kh·kw).
    """

    rank: int | None = Field(default=None, ge=1)
    ratio: float | None = Field(default=None, ge=1, allow_inf_nan=False)
    scheme: Literal["flat"] = "flat"

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.rank is None) == (self.ratio is None):
            given = "neither is" if self.rank is None else "both are"
            raise ValueError(f"lowrank takes exactly one of 'rank' and 'ratio', and {given} given")
        return self


class LowRankWeight(StructuredWeight):
    """A weight of rank r, run as two layers with r channels between them.

        W = U V        U: out × r,   V: r × (in·kh·kw)

    A convolution by W is one by V, a k×k kernel with r outputs, then one by U, a 1×1 kernel; a product with W is two
    thin products. The truncated singular value decomposition is the least-squares optimum (Eckart and Young). Where
    samples X of the inputs are known, the optimum for the outputs is closed as well: ‖X (W − Ŵ)ᵀ‖ is least when U spans
    the r leading principal directions of the outputs X Wᵀ, and Ŵ = U Uᵀ W.

    Stored: r · (out + in·kh·kw) floats, the singular values split evenly between the factors.
    Re-made: nothing.   Cost: r · (out + in·kh·kw) multiply–accumulates a position.

    Source: Eckart and Young 1936; Denil et al. 2013.

    Example:
        >>> weight = LowRankWeight((8, 4, 3, 3), LowRankConfig(rank=2), seed=1)
        >>> weight.numel, weight.to_dense().shape
        (88, torch.Size([8, 4, 3, 3]))
    """

    name = "lowrank"
    Config = LowRankConfig
    linear = False
    exact_projection = True
    runs = "product"
    uses_inputs = True

    @classmethod
    def rejects(cls, shape: Sequence[int], config: Any) -> str | None:
        """The rank is one that a matrix of this shape can have, and it stores less than the dense weight."""
        rank, (outs, ins) = _rank(shape, config), _matrix(shape)
        if rank < 1:
            return f"ratio {config.ratio:g} leaves fewer numbers than the {outs + ins:,} of rank 1"
        if rank > min(outs, ins):
            return f"rank {rank} is above {min(outs, ins)}, the rank of a {outs} × {ins} matrix"
        if rank * (outs + ins) >= outs * ins:
            least = (outs * ins - 1) // (outs + ins)
            advice = f"a rank up to {least} does" if least else "no rank does"
            return f"rank {rank} would not store fewer numbers than the dense weight; {advice}"
        return None

    @classmethod
    def macs_per_input(cls, shape: Sequence[int], config: Any) -> int:
        """Two thin products."""
        return _rank(shape, config) * sum(_matrix(shape))

    def _allocate_(self, device: torch.device, dtype: torch.dtype) -> None:
        rank, (outs, ins) = _rank(self.shape, self.config), _matrix(self.shape)
        self.left = nn.Parameter(torch.zeros(outs, rank, device=device, dtype=dtype))
        self.right = nn.Parameter(torch.zeros(rank, ins, device=device, dtype=dtype))

    def to_dense(self) -> Tensor:
        """The dense weight."""
        return (self.left @ self.right).view(self.shape)

    @torch.no_grad()
    def scale_(self, factor: float) -> None:
        """Multiply the weight by a number: the left factor takes it."""
        self.left.mul_(factor)

    def matmul(self, x: Tensor) -> Tensor:
        """``x Wᵀ`` for x of shape (…, in), by two thin products."""
        return F.linear(F.linear(x, self.right), self.left)

    def conv2d(self, x: Tensor, geometry: ConvGeometry) -> Tensor:
        """Two convolutions: k×k to ``rank`` channels, then 1×1; with groups, the dense weight is made."""
        if geometry.groups > 1:
            return geometry.convolve(x, self.to_dense())
        thin = geometry.convolve(x, self.right.view(-1, *self.shape[1:]))
        return F.conv2d(thin, self.left[:, :, None, None])

    @torch.no_grad()
    def project_(self, dense: Tensor, inputs: Tensor | None = None) -> Self:
        """The truncated singular value decomposition, of the weight or, where inputs are given, of the outputs.

        Args:
            dense: shape ``shape``.
            inputs: shape (samples, in·kh·kw), for a convolution its patches; inputs of another width (the channels
                of a k×k or grouped convolution) say nothing of the outputs and are left aside.
        """
        matrix = dense.flatten(1).double()
        rank = self.left.shape[1]
        if inputs is not None and inputs.shape[1] == matrix.shape[1]:
            outputs = torch.cat([x.double() @ matrix.T for x in inputs.split(256)])
            ridge = RIDGE * inputs.double().square().mean() * len(inputs)
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


def _matrix(shape: Sequence[int]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])


def _rank(shape: Sequence[int], config: Any) -> int:
    outs, ins = _matrix(shape)
    return int(config.rank or outs * ins / config.ratio // (outs + ins))
