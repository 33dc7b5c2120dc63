"""Deep-Fried: a fully connected weight as adaptive Fastfood, three diagonals between Hadamard transforms.

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
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.fitting import fit_
from compressnet.maths import fastfood
from compressnet.maths.hashing import normal
from compressnet.structured import ConvGeometry, MethodConfig, StructuredWeight


class DeepFriedConfig(MethodConfig):
    """``deepfried`` in a recipe.

    Args:
        init: ``fitted`` regresses the dense layer's outputs on its inputs; ``random`` is the paper's Fastfood draw.
        sigma: bandwidth of the draw, whose entries have standard deviation 1/σ; by default √(in / 2), He's choice.
        steps: of the regression.
    """

    init: Literal["fitted", "random"] = "fitted"
    sigma: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    steps: int = Field(default=200, ge=1, le=100_000)


class DeepFriedWeight(StructuredWeight):
    """A weight of a fully connected layer, or 1×1 convolution, as stacked adaptive Fastfood transforms.

    Each block of d rows is a product of diagonals, a permutation and two Walsh–Hadamard transforms:

        V = 1 / (σ √d) · S H G Π H B        (H with entries ±1)

    As H H = d · I, every row of a fresh draw has the norm and every entry the variance of a Gaussian matrix, while
    3 d numbers hold d² and a product costs O(d log d) in principle, about d^(4/3) as executed by small dense factors.

    Inputs are padded to d = 2^p by zeros, blocks are stacked until they give ``out`` rows; S is held only for rows, and
    B only for columns, that are used.

    Stored: out (S) + blocks · d (G) + blocks · in (B) floats.
    Re-made: Π, one int64 for each of blocks · d.
    Cost: two Hadamard transforms a block; the dense matrix is never formed.

    Source: Yang et al. 2015, section 3 (equations 4 to 7); initial draw: Le et al. 2013.

    Example:
        >>> weight = DeepFriedWeight((10, 6), DeepFriedConfig(), seed=1)
        >>> weight.numel, weight.matmul(torch.ones(2, 6)).shape
        (38, torch.Size([2, 10]))
    """

    name = "deepfried"
    Config = DeepFriedConfig
    linear = False
    exact_projection = False
    runs = "product"
    uses_inputs = True

    order: Tensor

    @classmethod
    def rejects(cls, shape: Sequence[int], config: Any) -> str | None:
        """It holds matrices, in fewer numbers than they have."""
        if len(shape) == 4 and tuple(shape[2:]) != (1, 1):
            kernel = f"{shape[2]}×{shape[3]}"
            return f"deepfried holds fully connected layers and 1×1 convolutions, not {kernel} kernels; use freshnet"
        width, blocks = fastfood.layout(shape[0], shape[1])
        stored = shape[0] + blocks * (width + shape[1])
        if stored >= shape[0] * shape[1]:
            return f"its {stored:,} numbers would not be fewer than the {shape[0] * shape[1]:,} of the dense weight"
        return None

    @classmethod
    def macs_per_input(cls, shape: Sequence[int], config: Any) -> int:
        """Three diagonals and two transforms a block, each a few products of small Hadamard matrices."""
        return fastfood.macs(shape[0], shape[1])

    @property
    def gain(self) -> float:
        """√d / σ: the paper's 1 / (σ √d) for a Hadamard matrix of entries ±1/√d."""
        sigma = self.config.sigma or math.sqrt(self.shape[1] / 2)
        return fastfood.gain(self.width, sigma)

    def _allocate_(self, device: torch.device, dtype: torch.dtype) -> None:
        outs, ins = self.shape[:2]
        self.width, self.blocks = fastfood.layout(self.shape[0], self.shape[1])
        self.scale = nn.Parameter(torch.empty(outs, device=device, dtype=dtype))
        self.gauss = nn.Parameter(torch.empty(self.blocks, self.width, device=device, dtype=dtype))
        self.signs = nn.Parameter(torch.empty(self.blocks, ins, device=device, dtype=dtype))
        self.remake_(device)
        if device.type != "meta":
            self.draw_()

    @torch.no_grad()
    def draw_(self) -> None:
        """The paper's draw, from the specified hash: B = ±1, G normal, S such that row norms are chi-distributed."""
        scale, gauss, signs = fastfood.draw(self.shape[0], self.shape[1], self.seed)
        self.scale.copy_(scale)
        self.gauss.copy_(gauss)
        self.signs.copy_(signs)

    def remake_(self, device: torch.device | str) -> None:
        """Make the permutation of each block, as positions among all blocks."""
        order = fastfood.orders(self.shape[0], self.shape[1], self.seed, device)
        self.register_buffer("order", order, persistent=False)

    @torch.no_grad()
    def scale_(self, factor: float) -> None:
        """Multiply the weight by a number: S takes it."""
        self.scale.mul_(factor)

    def matmul(self, x: Tensor) -> Tensor:
        """``x Vᵀ`` for x of shape (…, in), by fast transforms in the forward and the backward pass."""
        return self._features(x) * (self.scale * self.gain)

    def _features(self, x: Tensor) -> Tensor:
        return fastfood.mix(x, self.gauss, self.signs, self.order, self.shape[0])

    def conv2d(self, x: Tensor, geometry: ConvGeometry) -> Tensor:
        """A 1×1 convolution is a product at every position; with groups, the dense weight is made."""
        if geometry.groups > 1:
            return geometry.convolve(x, self.to_dense())
        return self.matmul(geometry.sample(x)).permute(0, 3, 1, 2)

    def to_dense(self) -> Tensor:
        """The dense weight, by a product with the identity."""
        identity = torch.eye(self.shape[1], dtype=self.signs.dtype, device=self.signs.device)
        return torch.cat([self.matmul(rows) for rows in identity.split(1024)]).T.reshape(self.shape)

    def project_(self, dense: Tensor, inputs: Tensor | None = None) -> Self:
        """Regress the dense layer's outputs on its inputs, from the random draw; see ``DeepFriedConfig.init``.

        Args:
            dense: shape ``shape``.
            inputs: shape (samples, in); standard normal vectors where there are none.
        """
        self.draw_()
        if self.config.init == "random":
            return self
        matrix = dense.detach().to(self.signs).flatten(1)
        if inputs is None:
            samples = 512
            inputs = normal(samples * self.shape[1], self.seed, stream=3).view(samples, -1)
        inputs = inputs.to(self.signs)
        targets = F.linear(inputs, matrix)
        self._fit_scale_(inputs, targets)
        fit_(self, inputs, targets, steps=self.config.steps, lr=0.02)
        self._fit_scale_(inputs, targets)
        return self

    @torch.no_grad()
    def _fit_scale_(self, inputs: Tensor, targets: Tensor) -> None:
        """The outputs are linear in S: its least-squares value is closed, row by row."""
        features = torch.cat([self._features(x) for x in inputs.split(64)]) * self.gain
        energy = features.square().sum(0)
        self.scale.copy_((features * targets).sum(0) / energy.clamp(min=torch.finfo(energy.dtype).tiny))
