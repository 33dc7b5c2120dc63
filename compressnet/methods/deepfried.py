"""Deep-Fried: a weight as adaptive Fastfood, three diagonals between Hadamard transforms.

Zichao Yang, Marcin Moczulski, Misha Denil, Nando de Freitas, Alex Smola, Le Song, Ziyu Wang: Deep Fried Convnets, ICCV
2015, https://arxiv.org/abs/1412.7149; Fastfood: Le, Sarlós, Smola, ICML 2013, https://arxiv.org/abs/1408.3060

| paper | here |
|---|---|
| S, G, B | ``scale``, ``gauss``, ``signs``: the diagonals, all learned |
| Π | ``order``, a permutation from the specified hash |
| H | :func:`compressnet.maths.hadamard.hadamard`, orthonormal: the paper's H is √d times ours |
| d | ``width``, the inputs padded to a power of two |
| n / d | ``blocks``, stacked until there are enough rows |
| σ | ``sigma`` |
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from compressnet.maths import fastfood
from compressnet.product import FittedWeight
from compressnet.structured import MethodConfig

_RIDGE = 1e-6  # of the energy of what the copies of a row give, so that copies alike do not matter


class DeepFriedConfig(MethodConfig):
    """``deepfried`` in a recipe.

    Args:
        copies: independent transforms whose outputs are added; each costs as much again.
        init: ``fitted`` regresses the dense layer's outputs on its inputs; ``random`` is the paper's Fastfood draw.
        sigma: bandwidth of the draw, whose entries have standard deviation 1/σ; by default √(n / 2), He's choice.
        steps: of the regression.
    """

    sizes = ("copies",)

    copies: int = Field(default=1, ge=1, le=1000)
    init: Literal["fitted", "random"] = "fitted"
    sigma: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    steps: int = Field(default=400, ge=1, le=100_000)


class DeepFriedWeight(FittedWeight):
    """A weight, read as a matrix of out rows and n = in·kh·kw columns, of stacked adaptive Fastfood transforms.

    Each block of d rows is a product of diagonals, a permutation and two Walsh–Hadamard transforms:

        V = 1 / (σ √d) · S H G Π H B        (H with entries ±1)

    As H H = d · I, every row of a fresh draw has the norm and every entry the variance of a Gaussian matrix, while
    3 d numbers hold d² and a product costs O(d log d) by compiled loops, about d^(4/3) by small dense factors.

    Inputs are padded to d = 2^p by zeros, blocks are stacked until they give ``out`` rows; S is held only for rows, and
    B only for columns, that are used. Of C copies the weight is the sum, divided by √C.

    Stored: copies · (out (S) + blocks · d (G) + blocks · n (B)) floats.
    Re-made: Π, one int64 for each of copies · blocks · d.
    Cost: two Hadamard transforms a block; a k×k convolution makes the dense weight, by one transform a row.

    Source: Yang et al. 2015, section 3 (equations 4 to 7); initial draw: Le et al. 2013.

    Example:
        >>> weight = DeepFriedWeight((10, 6), DeepFriedConfig(), seed=1)
        >>> weight.numel, weight.matmul(torch.ones(2, 6)).shape
        (38, torch.Size([2, 10]))
    """

    name = "deepfried"
    Config = DeepFriedConfig

    order: Tensor

    @classmethod
    def config_near(cls, shape: Sequence[int], ratio: float) -> DeepFriedConfig:
        """The number of copies that comes nearest."""
        one = cls(shape, DeepFriedConfig(), 0, device="meta").numel
        return DeepFriedConfig(copies=max(1, round(math.prod(shape) / ratio / one)))

    @classmethod
    def macs_per_input(cls, shape: Sequence[int], config: Any) -> int:
        """Three diagonals and two transforms a block, counted as products of small Hadamard matrices."""
        return int(config.copies * fastfood.macs(shape[0], torch.Size(shape[1:]).numel()))

    def _allocate_(self, device: torch.device, dtype: torch.dtype) -> None:
        copies, outs = self.config.copies, self.shape[0]
        self.width, self.blocks = fastfood.layout(outs, self.columns)
        sigma = self.config.sigma or math.sqrt(self.columns / 2)
        self.gain = fastfood.gain(self.width, sigma) / math.sqrt(copies)  # of an orthonormal H, shared by the copies
        self.scale = nn.Parameter(torch.empty(copies, outs, device=device, dtype=dtype))
        self.gauss = nn.Parameter(torch.empty(copies * self.blocks, self.width, device=device, dtype=dtype))
        self.signs = nn.Parameter(torch.empty(copies * self.blocks, self.columns, device=device, dtype=dtype))
        self.remake_(device)
        if device.type != "meta":
            self.draw_()

    @torch.no_grad()
    def draw_(self) -> None:
        """The paper's draw, from the specified hash: B = ±1, G normal, S such that row norms are chi-distributed."""
        drawn = fastfood.draw(self.shape[0], self.columns, self.seed, self.config.copies)
        for diagonal, value in zip((self.scale, self.gauss, self.signs), drawn, strict=True):
            diagonal.copy_(value)

    def remake_(self, device: torch.device | str) -> None:
        """Make the permutation of each block, as positions among all blocks."""
        self.register_buffer(
            "order", fastfood.orders(len(self.gauss), self.gauss.shape[1], self.seed, device), persistent=False
        )

    @torch.no_grad()
    def scale_(self, factor: float) -> None:
        """Multiply the weight by a number: S takes it."""
        self.scale.mul_(factor)

    @torch.no_grad()
    def scale_rows_(self, factors: Tensor) -> bool:
        """S takes them."""
        self.scale.mul_(factors)
        return True

    def matmul(self, x: Tensor) -> Tensor:
        """``x Vᵀ`` for x of shape (…, in·kh·kw), by fast transforms in the forward and the backward pass."""
        return self.affine(x, None)

    def affine(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """:meth:`matmul` and a bias, in one loop where that is compiled."""
        return fastfood.multiply(x, self.scale, self.gauss, self.signs, self.order, self.gain, bias)

    def to_dense(self) -> Tensor:
        """The dense weight, by one transform a row."""
        copies = fastfood.dense(self.gauss, self.signs, self.order, self.shape[0])
        return (copies * (self.scale * self.gain)[..., None]).sum(0).view(self.shape)

    @torch.no_grad()
    def solve_(self, inputs: Tensor, targets: Tensor) -> None:
        """The outputs are linear in S: its least-squares values are closed, row by row, over all copies at once."""
        copies, outs = self.scale.shape
        gram, cross = self.scale.new_zeros(outs, copies, copies), self.scale.new_zeros(outs, copies)
        for x, y in zip(inputs.split(32), targets.split(32), strict=True):
            features = fastfood.mix(x, self.gauss, self.signs, self.order, outs) * self.gain
            gram += torch.einsum("nco,nko->ock", features, features)
            cross += torch.einsum("nco,no->oc", features, y)
        energy = gram.diagonal(dim1=1, dim2=2)
        energy += _RIDGE * energy.mean(1, keepdim=True) + torch.finfo(energy.dtype).tiny
        self.scale.copy_(torch.linalg.solve(gram, cross).T)
