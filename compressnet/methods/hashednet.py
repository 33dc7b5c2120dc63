"""HashedNet: weights that share values by a hash of their position.

Wenlin Chen, James Wilson, Stephen Tyree, Kilian Weinberger, Yixin Chen: Compressing Neural Networks with the Hashing
Trick, ICML 2015, https://arxiv.org/abs/1504.04788

| paper | here |
|---|---|
| w, K | ``buckets``, their number |
| h(i, j) | the bucket in ``indices`` |
| ξ(i, j) | the sign in ``indices`` |
"""

from typing import Self

import torch
from pydantic import Field
from torch import Tensor, nn

from compressnet.maths.hashing import Hashing, signed_indices
from compressnet.maths.sharing import expand, signed_mean
from compressnet.structured import MethodConfig, StructuredWeight


class HashedNetConfig(MethodConfig):
    """``hashednet`` in a recipe.

    Args:
        ratio: dense numbers per stored number, at least 1.
        hashing: ``balanced``, or ``independent`` as in the paper.
    """

    sizes = ("ratio",)

    ratio: float = Field(ge=1, allow_inf_nan=False)
    hashing: Hashing = "balanced"


class HashedNetWeight(StructuredWeight):
    """A weight whose entries share values, chosen by a hash of their position and given a hashed sign.

        W[i] = sign[i] · buckets[index[i]]        for every position i of the flattened weight

    The least-squares projection is closed: each bucket is the signed mean of what reads it.

    Stored: numel / ratio floats.
    Re-made: index and sign, in one int32 a position.   Cost: one gather, then the dense product.

    Source: Chen et al. 2015, equations 3 to 5.

    Example:
        >>> weight = HashedNetWeight((4, 6), HashedNetConfig(ratio=3), seed=1)
        >>> weight.numel, weight.to_dense().shape
        (8, torch.Size([4, 6]))
    """

    name = "hashednet"
    Config = HashedNetConfig
    linear = True
    exact_projection = True
    runs = "dense"

    indices: Tensor

    def _allocate_(self, device: torch.device, dtype: torch.dtype) -> None:
        count = max(1, int(self.shape.numel() / self.config.ratio))
        self.buckets = nn.Parameter(torch.zeros(count, device=device, dtype=dtype))
        self.remake_(device)

    def remake_(self, device: torch.device | str) -> None:
        """Make the signed index of every position."""
        numel, count = self.shape.numel(), self.buckets.numel()
        if torch.device(device).type == "meta":
            indices = torch.empty(numel, dtype=torch.int32, device=device)
        else:
            indices = signed_indices(numel, count, self.seed, hashing=self.config.hashing).to(device)
        self.register_buffer("indices", indices, persistent=False)

    def to_dense(self) -> Tensor:
        """The dense weight."""
        return expand(self.buckets, self.indices).view(self.shape)

    @torch.no_grad()
    def project_(self, dense: Tensor, inputs: Tensor | None = None) -> Self:
        """Set each bucket to the signed mean of what reads it; ``inputs`` are not needed."""
        self.buckets.copy_(signed_mean(dense.to(self.buckets).flatten(), self.indices, self.buckets.numel()))
        return self
