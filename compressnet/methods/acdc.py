"""ACDC: a weight as a cascade of diagonals, alternately before and behind a cosine transform.

Marcin Moczulski, Misha Denil, Jeremy Appleyard, Nando de Freitas: ACDC: A Structured Efficient Linear Layer, ICLR 2016,
https://arxiv.org/abs/1511.05946

| paper | here |
|---|---|
| A, D | ``spatial``, ``spectral``: the diagonals of all factors |
| C | :func:`compressnet.maths.dct.dct`, orthonormal |
| K | ``depth`` |
| N | ``width``, the larger of in·kh·kw and out |
| the permutations between the factors | ``routes``, from the specified hash, between cosine filters' orders |
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.maths import cascade
from compressnet.maths.cache import in_cache
from compressnet.maths.cascade import Routes
from compressnet.maths.dct import cosine_filter, even_then_odd
from compressnet.maths.hashing import Purpose, derive, normal, permutation
from compressnet.product import FittedWeight
from compressnet.structured import MethodConfig


class ACDCConfig(MethodConfig):
    """``acdc`` in a recipe.

    Args:
        depth: factors A C D C⁻¹ of the cascade.
        init: ``fitted`` regresses the dense layer's outputs on its inputs; ``identity`` is the paper's start.
        noise: standard deviation of the diagonals around 1 at the start.
        steps: of the regression.
    """

    sizes = ("depth",)

    depth: int = Field(default=4, ge=1, le=1000)
    init: Literal["fitted", "identity"] = "fitted"
    noise: float = Field(default=0.061, ge=0, le=10)
    steps: int = Field(default=400, ge=1, le=100_000)


class ACDCWeight(FittedWeight):
    """A weight, read as a matrix of out rows and n = in·kh·kw columns, as a cascade of factors A C D C⁻¹.

    A row vector x of n inputs passes through every factor, with a fixed permutation P between two:

        x Wᵀ = x · A₁ C D₁ C⁻¹ · P₁ · A₂ C D₂ C⁻¹ · P₂ ⋯        (C the orthonormal DCT-II)

    Inputs are padded by zeros to the width, the larger of n and out, and the first ``out`` outputs are taken. This is
    the linear form: the paper's has a bias on D, and a ReLU, between its factors.

    Stored: n + (2 · depth − 1) · width floats; of A₁ only what meets an input.
    Re-made: the permutations, with those of the transform, one int32 for each of (depth + 1) · width.
    Cost: 2 · depth cosine transforms by FFT, O(width log width) each; a k×k convolution makes the dense weight.

    Source: Moczulski et al. 2016 (the structure, the identity with noise to start from, no weight decay).

    Example:
        >>> weight = ACDCWeight((10, 12), ACDCConfig(depth=2), seed=1)
        >>> weight.numel, weight.matmul(torch.ones(2, 12)).shape
        (48, torch.Size([2, 10]))
    """

    name = "acdc"
    Config = ACDCConfig
    weight_decay = 0.0

    order: Tensor
    back: Tensor
    routes: Tensor

    @classmethod
    def config_near(cls, shape: Sequence[int], ratio: float) -> ACDCConfig:
        """The depth that comes nearest."""
        depth = round(((math.prod(shape) / ratio - math.prod(shape[1:])) / _width(shape) + 1) / 2)
        return ACDCConfig(depth=min(max(depth, 1), 1000))

    @classmethod
    def macs_per_input(cls, shape: Sequence[int], config: Any) -> int:
        """Two diagonals and two transforms a factor; a transform as n (log₂ n + 3), a radix-2 FFT and two twiddles."""
        width = _width(shape)
        return config.depth * 2 * width * ((width - 1).bit_length() + 4)

    def _allocate_(self, device: torch.device, dtype: torch.dtype) -> None:
        depth = self.config.depth
        self.width = _width(self.shape)
        self.spatial = nn.Parameter(torch.empty(self.columns + (depth - 1) * self.width, device=device, dtype=dtype))
        self.spectral = nn.Parameter(torch.empty(depth, self.width, device=device, dtype=dtype))
        self.remake_(device)
        if device.type != "meta":
            self.draw_()

    @torch.no_grad()
    def draw_(self) -> None:
        """The identity with noise: every diagonal is normal around 1, from the specified hash."""
        for stream, diagonal in enumerate((self.spatial, self.spectral)):
            noise = normal(diagonal.numel(), self.seed, stream=stream).view_as(diagonal)
            diagonal.copy_(1 + self.config.noise * noise)

    def remake_(self, device: torch.device | str) -> None:
        """Make the order in which cosine filters work, the way back, and permutations from one factor to the next."""
        order = even_then_odd(self.width, device)
        back, routes = torch.empty_like(order), order.new_empty(self.config.depth - 1, self.width)
        if order.device.type != "meta":
            back[order] = torch.arange(self.width, device=device)
            for factor in range(self.config.depth - 1):
                part = permutation(self.width, derive(self.seed, factor), Purpose.ORDER)
                routes[factor] = back[torch.from_numpy(part.astype("int64")).to(order.device)[order]]
        for name, table in (("order", order), ("back", back), ("routes", routes)):
            self.register_buffer(name, table.int(), persistent=False)

    @torch.no_grad()
    def scale_(self, factor: float) -> None:
        """Multiply the weight by a number: the last D takes it."""
        self.spectral[-1].mul_(factor)

    def matmul(self, x: Tensor) -> Tensor:
        """``x Wᵀ`` for x of shape (…, in·kh·kw), by fast transforms in single or double precision."""
        return self.affine(x, None)

    def affine(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """:meth:`matmul` and a bias; on a CPU by one loop where the width is a power of two."""
        spatial, spectral = self.spatial, self.spectral
        if cascade.runs(x, spatial, spectral, bias):
            routes = Routes(self.back, self.order, self.routes)
            return cascade.multiply(x, spatial, spectral, routes, self.shape[0], bias)
        y = self._multiplied(x)
        return y if bias is None else y + bias.to(y.dtype)

    def _multiplied(self, x: Tensor) -> Tensor:
        """By operations of torch."""
        given = torch.promote_types(x.dtype, self.spatial.dtype)
        precise = torch.promote_types(given, torch.float32)
        y = in_cache(self._cascade, x.reshape(-1, self.columns).to(precise), self.width)
        return y.view(*x.shape[:-1], self.shape[0]).to(given)

    def _cascade(self, x: Tensor) -> Tensor:
        """Through every factor, in the order of cosine filters."""
        first, *others = self.spatial.split([self.columns] + [self.width] * (self.config.depth - 1))
        y = F.pad(x * first, (0, self.width - self.columns)).index_select(-1, self.order)
        y = cosine_filter(y, self.spectral[0])
        for factor, diagonal in enumerate(others):
            y = y.index_select(-1, self.routes[factor]) * diagonal.index_select(0, self.order)
            y = cosine_filter(y, self.spectral[factor + 1])
        return y.index_select(-1, self.back[: self.shape[0]])

    @property
    def learning_rate(self) -> float:
        """Less in deeper cascades, whose factors multiply: the best of those tried at depths 4 and 12."""
        return 0.4 / math.sqrt(self.config.depth)

    @torch.no_grad()
    def solve_(self, inputs: Tensor, targets: Tensor) -> None:
        """The best multiple of what the cascade gives goes into its last D."""
        outputs = torch.cat([self.matmul(x) for x in inputs.split(64)])
        energy = outputs.square().sum().clamp(min=torch.finfo(outputs.dtype).tiny)
        self.spectral[-1].mul_((outputs * targets).sum() / energy)


def _width(shape: Sequence[int]) -> int:
    return max(shape[0], torch.Size(shape[1:]).numel())
