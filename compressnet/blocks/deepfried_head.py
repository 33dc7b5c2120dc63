"""The Deep Fried Convnets' head: fully connected layers become one layer of ReLU(adaptive Fastfood) features.

Zichao Yang, Marcin Moczulski, Misha Denil, Nando de Freitas, Alex Smola, Le Song, Ziyu Wang: Deep Fried Convnets, ICCV
2015, https://arxiv.org/abs/1412.7149; Fastfood: Le, Sarlós, Smola, ICML 2013, https://arxiv.org/abs/1408.3060

| paper | here |
|---|---|
| S, G, B | ``scale``, ``gauss``, ``signs``: the diagonals, learned where ``adaptive`` |
| Π | ``order``, a permutation from the specified hash |
| H | :func:`compressnet.maths.hadamard.hadamard`, orthonormal: the paper's H is √d times ours |
| d | ``width``, the inputs padded to a power of two |
| n | ``outs``, the features: a multiple of d |
| σ | ``sigma`` |
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.block import Block, BlockConfig
from compressnet.maths import fastfood


class DeepFriedHeadConfig(BlockConfig):
    """``deepfried_head`` in a recipe.

    Args:
        features: n, a multiple of the inputs' next power of two.
        adaptive: learn S, G and B; otherwise they stay as drawn, the paper's fixed Fastfood.
        bias: add a learned bias, 0 at first, to what the ReLU gets.
        sigma: bandwidth of the draw, whose entries have standard deviation 1/σ; by default √(in / 2), He's choice.
    """

    features: int = Field(ge=1, le=1 << 22)
    adaptive: bool = True
    bias: bool = True
    sigma: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class DeepFriedHead(Block):
    """ReLU features of a Fastfood transform, learned or as drawn.

        h = ReLU(V x + b),    V = 1 / (σ √d) · S H G Π H B        (H with entries ±1)

    Stacked blocks of d rows give n features. As drawn they are random features of the arc-cosine kernel, on which a
    linear layer is fitted in closed form; training then adapts S, G and B.

    Stored: n (S) + n (G) + n / d · in (B) floats, and n of the bias; of B only the columns that are used.
    Re-made: Π, one int64 a feature.
    Cost: two Hadamard transforms for every d features.

    Source: Yang et al. 2015, sections 3 and 4; initial draw: Le et al. 2013.

    Example:
        >>> block = DeepFriedHead(6, DeepFriedHeadConfig(features=16, bias=False), seed=1)
        >>> block.numel, block(torch.ones(2, 6)).shape
        (44, torch.Size([2, 16]))
    """

    name = "deepfried_head"
    Config = DeepFriedHeadConfig

    scale: Tensor
    gauss: Tensor
    signs: Tensor
    order: Tensor

    @classmethod
    def features(cls, ins: int, config: Any) -> int:
        """The config's."""
        return int(config.features)

    @classmethod
    def rejects(cls, ins: int, config: Any) -> str | None:
        """Whole blocks only."""
        width = fastfood.layout(1, ins)[0]
        if config.features % width == 0:
            return None
        least = max(1, config.features // width) * width
        near = f"such as {least:,} or {least + width:,}"
        return (
            f"features {config.features:,} is no multiple of {width:,}, to which its {ins:,} inputs are padded; {near}"
        )

    @classmethod
    def macs_per_input(cls, ins: int, config: Any) -> int:
        """Three diagonals and two transforms a block, counted as products of small Hadamard matrices."""
        return fastfood.macs(config.features, ins)

    @classmethod
    def linear_shapes(cls, ins: int, config: Any) -> list[tuple[int, int]]:
        """V alone."""
        return [(config.features, ins)]

    def _allocate_(self, device: torch.device, dtype: torch.dtype) -> None:
        width, blocks = fastfood.layout(self.outs, self.ins)
        self.gain = fastfood.gain(width, self.config.sigma or math.sqrt(self.ins / 2))
        for name, shape in (("scale", (self.outs,)), ("gauss", (blocks, width)), ("signs", (blocks, self.ins))):
            diagonal = torch.empty(shape, device=device, dtype=dtype)
            if self.config.adaptive:
                self.register_parameter(name, nn.Parameter(diagonal))
            else:
                self.register_buffer(name, diagonal)
        self.bias = nn.Parameter(torch.empty(self.outs, device=device, dtype=dtype)) if self.config.bias else None

    @torch.no_grad()
    def draw_(self) -> None:
        """The paper's draw: B = ±1, G normal, S such that row norms are chi-distributed; no bias."""
        scale, gauss, signs = fastfood.draw(self.outs, self.ins, self.seed)
        for diagonal, value in ((self.scale, scale[0]), (self.gauss, gauss), (self.signs, signs)):
            diagonal.copy_(value)
        if self.bias is not None:
            self.bias.zero_()

    def remake_(self, device: torch.device | str) -> None:
        """Make the permutation of each block, as positions among all blocks."""
        self.register_buffer(
            "order", fastfood.orders(len(self.gauss), self.gauss.shape[1], self.seed, device), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shape (…, in) to (…, features), by fast transforms in the forward and the backward pass."""
        return F.relu(fastfood.multiply(x, self.scale[None], self.gauss, self.signs, self.order, self.gain, self.bias))

    def linear_maps(self) -> Iterator[tuple[Tensor, Tensor]]:
        """V and b, which is zero where there is none."""
        rows = fastfood.dense(self.gauss, self.signs, self.order, self.outs)[0]
        bias = self.scale.new_zeros(self.outs) if self.bias is None else self.bias
        yield rows * (self.scale * self.gain)[:, None], bias
