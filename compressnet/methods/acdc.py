"""ACDC: a fully connected weight as a cascade of diagonals, alternately before and behind a cosine transform.

Marcin Moczulski, Misha Denil, Jeremy Appleyard, Nando de Freitas: ACDC: A Structured Efficient Linear Layer, ICLR 2016,
https://arxiv.org/abs/1511.05946

| paper | here |
|---|---|
| A, D | ``spatial``, ``spectral``: the diagonals of all factors |
| C | :func:`compressnet.maths.dct.dct`, orthonormal |
| K | ``depth`` |
| N | ``width``, the larger of inputs and outputs |
| the permutations between the factors | ``order``, from the specified hash |
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.fitting import fit_
from compressnet.maths.dct import dct, idct
from compressnet.maths.hashing import Purpose, derive, normal, permutation
from compressnet.structured import ConvGeometry, MethodConfig, StructuredWeight


class ACDCConfig(MethodConfig):
    """``acdc`` in a recipe.

    Args:
        depth: factors A C D C⁻¹ of the cascade.
        init: ``fitted`` regresses the dense layer's outputs on its inputs; ``identity`` is the paper's start.
        noise: standard deviation of the diagonals around 1 at the start.
        steps: of the regression.
    """

    depth: int = Field(default=4, ge=1, le=1000)
    init: Literal["fitted", "identity"] = "fitted"
    noise: float = Field(default=0.061, ge=0, le=10)
    steps: int = Field(default=200, ge=1, le=100_000)


class ACDCWeight(StructuredWeight):
    """A weight of a fully connected layer, or 1×1 convolution, as a cascade of factors A C D C⁻¹.

    A row vector x passes through every factor, with a fixed permutation P between two:

        x Wᵀ = x · A₁ C D₁ C⁻¹ · P₁ · A₂ C D₂ C⁻¹ · P₂ ⋯        (C the orthonormal DCT-II)

    Inputs are padded by zeros to the width, the larger of in and out, and the first ``out`` outputs are taken. This is
    the linear form: the paper's has a bias on D, and a ReLU, between its factors.

    Stored: in + (2 · depth − 1) · width floats; of A₁ only what meets an input.
    Re-made: the permutations, one int64 for each of (depth − 1) · width.
    Cost: 2 · depth cosine transforms by FFT, O(width log width) each; the dense matrix is never formed.

    Source: Moczulski et al. 2016 (the structure, and the identity with noise to start from).

    Example:
        >>> weight = ACDCWeight((10, 12), ACDCConfig(depth=2), seed=1)
        >>> weight.numel, weight.matmul(torch.ones(2, 12)).shape
        (48, torch.Size([2, 10]))
    """

    name = "acdc"
    Config = ACDCConfig
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
            return f"acdc holds fully connected layers and 1×1 convolutions, not {kernel} kernels; use freshnet"
        outs, ins = shape[:2]
        stored = ins + (2 * config.depth - 1) * max(outs, ins)
        if stored >= outs * ins:
            return f"its {stored:,} numbers would not be fewer than the {outs * ins:,} of the dense weight"
        return None

    @classmethod
    def macs_per_input(cls, shape: Sequence[int], config: Any) -> int:
        """Two diagonals and two transforms a factor; a transform as n (log₂ n + 3), a radix-2 FFT and two twiddles."""
        width = max(shape[:2])
        return config.depth * 2 * width * ((width - 1).bit_length() + 4)

    def _allocate_(self, device: torch.device, dtype: torch.dtype) -> None:
        ins, depth = self.shape[1], self.config.depth
        self.width = max(self.shape[:2])
        self.spatial = nn.Parameter(torch.empty(ins + (depth - 1) * self.width, device=device, dtype=dtype))
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
        """Make the permutation behind every factor but the last."""
        order = torch.empty((self.config.depth - 1, self.width), dtype=torch.int64, device=device)
        if order.device.type != "meta":
            for factor in range(self.config.depth - 1):
                part = permutation(self.width, derive(self.seed, factor), Purpose.ORDER)
                order[factor] = torch.from_numpy(part.astype("int64"))
        self.register_buffer("order", order, persistent=False)

    @torch.no_grad()
    def scale_(self, factor: float) -> None:
        """Multiply the weight by a number: the last D takes it."""
        self.spectral[-1].mul_(factor)

    def matmul(self, x: Tensor) -> Tensor:
        """``x Wᵀ`` for x of shape (…, in), by fast transforms in single or double precision."""
        outs, ins = self.shape[:2]
        precise = torch.promote_types(torch.promote_types(x.dtype, self.spatial.dtype), torch.float32)
        first, *others = self.spatial.split([ins] + [self.width] * (self.config.depth - 1))
        y = F.pad(x.to(precise) * first, (0, self.width - ins))
        y = idct(dct(y) * self.spectral[0])
        for factor, diagonal in enumerate(others):
            y = y.index_select(-1, self.order[factor]) * diagonal
            y = idct(dct(y) * self.spectral[factor + 1])
        return y[..., :outs].to(torch.promote_types(x.dtype, self.spatial.dtype))

    def conv2d(self, x: Tensor, geometry: ConvGeometry) -> Tensor:
        """A 1×1 convolution is a product at every position; with groups, the dense weight is made."""
        if geometry.groups > 1:
            return geometry.convolve(x, self.to_dense())
        return self.matmul(geometry.sample(x)).permute(0, 3, 1, 2)

    def to_dense(self) -> Tensor:
        """The dense weight, by a product with the identity."""
        identity = torch.eye(self.shape[1], dtype=self.spatial.dtype, device=self.spatial.device)
        return torch.cat([self.matmul(rows) for rows in identity.split(1024)]).T.reshape(self.shape)

    def project_(self, dense: Tensor, inputs: Tensor | None = None) -> Self:
        """Regress the dense layer's outputs on its inputs, from the identity; see ``ACDCConfig.init``.

        Args:
            dense: shape ``shape``.
            inputs: shape (samples, in); standard normal vectors where there are none.
        """
        self.draw_()
        if self.config.init == "identity":
            return self
        if inputs is None:
            samples = 512
            inputs = normal(samples * self.shape[1], self.seed, stream=2).view(samples, -1)
        inputs = inputs.to(self.spatial)
        targets = F.linear(inputs, dense.detach().to(self.spatial).flatten(1))
        self._fit_scale_(inputs, targets)
        fit_(self, inputs, targets, steps=self.config.steps, lr=0.02)
        self._fit_scale_(inputs, targets)
        return self

    @torch.no_grad()
    def _fit_scale_(self, inputs: Tensor, targets: Tensor) -> None:
        """The best multiple of what the cascade gives goes into its last D."""
        outputs = torch.cat([self.matmul(x) for x in inputs.split(64)])
        energy = outputs.square().sum().clamp(min=torch.finfo(outputs.dtype).tiny)
        self.spectral[-1].mul_((outputs * targets).sum() / energy)
