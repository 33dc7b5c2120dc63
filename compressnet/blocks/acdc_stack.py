"""ACDC's own stack: fully connected layers become cosine-transform layers with bias, ReLU and permutations between.

Marcin Moczulski, Misha Denil, Jeremy Appleyard, Nando de Freitas: ACDC: A Structured Efficient Linear Layer, ICLR 2016,
https://arxiv.org/abs/1511.05946

| paper | here |
|---|---|
| A, D | ``spatial``, ``spectral``: the diagonals of all layers |
| the bias on D | ``bias`` |
| C | :func:`compressnet.maths.dct.dct`, orthonormal |
| the number of layers | ``depth`` |
| N | ``width``, the larger of inputs and features |
| the permutations between | ``order``, from the specified hash |
"""

from collections.abc import Iterator
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.block import Block, BlockConfig
from compressnet.maths.dct import dct, idct
from compressnet.maths.hashing import Purpose, derive, normal, permutation

_ROWS = 1024  # of the identity at a time


class ACDCStackConfig(BlockConfig):
    """``acdc_stack`` in a recipe.

    Args:
        depth: layers of the stack.
        features: outputs of the last layer that are used; by default as many as there are inputs.
        noise: standard deviation of the diagonals around 1 at the start.
    """

    depth: int = Field(default=12, ge=1, le=1000)
    features: int | None = Field(default=None, ge=1, le=1 << 22)
    noise: float = Field(default=0.061, ge=0, le=10)


class ACDCStack(Block):
    """Layers ReLU(A C D C⁻¹), each with a bias in the cosine domain, and a fixed permutation before all but the first.

        h ← ReLU((h Pₖ · Aₖ C · Dₖ + bₖ) C⁻¹)        for k = 1 … depth, without P₁        (C the orthonormal DCT-II)

    At the start it is the identity with noise, which passes what a ReLU gave: a deep stack of ordinary random diagonals
    does not train.

    Stored: (3 · depth − 1) · width + in floats, the width the larger of in and features; of A₁ only what meets an
    input.
    Re-made: the permutations, one int64 for each of (depth − 1) · width.
    Cost: 2 · depth cosine transforms by FFT, O(width log width) each.

    Source: Moczulski et al. 2016 (the structure, and the identity with noise to start from).

    Example:
        >>> block = ACDCStack(12, ACDCStackConfig(depth=2, features=10), seed=1)
        >>> block.numel, block(torch.ones(2, 12)).shape
        (72, torch.Size([2, 10]))
    """

    name = "acdc_stack"
    Config = ACDCStackConfig
    weight_decay = 0.0

    order: Tensor

    @classmethod
    def features(cls, ins: int, config: Any) -> int:
        """The config's, or as many as there are inputs."""
        return int(config.features or ins)

    @classmethod
    def macs_per_input(cls, ins: int, config: Any) -> int:
        """Two diagonals and two transforms a layer; a transform as n (log₂ n + 3), a radix-2 FFT and two twiddles."""
        width = max(ins, cls.features(ins, config))
        return config.depth * 2 * width * ((width - 1).bit_length() + 4)

    @classmethod
    def linear_shapes(cls, ins: int, config: Any) -> list[tuple[int, int]]:
        """One a layer, of the width; the first takes the inputs, the last gives the features."""
        features, depth = cls.features(ins, config), config.depth
        inner = [max(ins, features)] * (depth - 1)
        return list(zip([*inner, features], [ins, *inner], strict=True))

    def _allocate_(self, device: torch.device, dtype: torch.dtype) -> None:
        depth, self.width = self.config.depth, max(self.ins, self.outs)
        self.spatial = nn.Parameter(torch.empty(self.ins + (depth - 1) * self.width, device=device, dtype=dtype))
        self.spectral = nn.Parameter(torch.empty(depth, self.width, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(depth, self.width, device=device, dtype=dtype))

    @torch.no_grad()
    def draw_(self) -> None:
        """The identity with noise: every diagonal is normal around 1, from the specified hash; no bias."""
        for stream, diagonal in enumerate((self.spatial, self.spectral)):
            noise = normal(diagonal.numel(), self.seed, stream=stream).view_as(diagonal)
            diagonal.copy_(1 + self.config.noise * noise)
        self.bias.zero_()

    def remake_(self, device: torch.device | str) -> None:
        """Make the permutation before every layer but the first."""
        order = torch.empty((self.config.depth - 1, self.width), dtype=torch.int64, device=device)
        if order.device.type != "meta":
            for layer in range(self.config.depth - 1):
                part = permutation(self.width, derive(self.seed, layer), Purpose.ORDER)
                order[layer] = torch.from_numpy(part.astype("int64"))
        self.register_buffer("order", order, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (…, in) to (…, features), by fast transforms in single or double precision."""
        given = torch.promote_types(x.dtype, self.spatial.dtype)
        y = x.to(torch.promote_types(given, torch.float32))
        for layer, diagonal in enumerate(self._spatial()):
            y = F.relu(idct(self._spectrum(layer, diagonal, y) + self.bias[layer]))
        return y[..., : self.outs].to(given)

    def _spatial(self) -> tuple[Tensor, ...]:
        """A of every layer."""
        return self.spatial.split([self.ins] + [self.width] * (self.config.depth - 1))

    def _spectrum(self, layer: int, diagonal: Tensor, x: Tensor) -> Tensor:
        """x P · A C · D of a layer."""
        x = x.index_select(-1, self.order[layer - 1]) * diagonal if layer else x * diagonal
        return dct(F.pad(x, (0, self.width - x.shape[-1]))) * self.spectral[layer]

    def linear_maps(self) -> Iterator[tuple[Tensor, Tensor]]:
        """P A C D C⁻¹ of every layer by its products with the identity, and b C⁻¹."""
        dtype = torch.promote_types(self.spatial.dtype, torch.float32)
        for layer, diagonal in enumerate(self._spatial()):
            outs = self.outs if layer == self.config.depth - 1 else self.width
            units = torch.eye(len(diagonal), dtype=dtype, device=diagonal.device).split(_ROWS)
            columns = [idct(self._spectrum(layer, diagonal, rows))[:, :outs] for rows in units]
            bias = idct(self.bias[layer].to(dtype))[:outs]
            yield torch.cat(columns).T.to(self.spatial.dtype), bias.to(self.spatial.dtype)
