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

from compressnet.hashed import HashedWeight
from compressnet.maths.assignment import Assignment
from compressnet.maths.hashing import Hashing
from compressnet.maths.sharing import signed_mean
from compressnet.maths.spreading import read, spread
from compressnet.structured import MethodConfig


class HashedNetConfig(MethodConfig):
    """``hashednet`` in a recipe.

    Args:
        ratio: dense numbers per stored number, at least 1.
        hashing: ``balanced``, or ``independent`` as in the paper.
    """

    sizes = ("ratio",)

    ratio: float = Field(ge=1, allow_inf_nan=False)
    hashing: Hashing = "balanced"


class HashedNetWeight(HashedWeight):
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

    def _allocate_(self, device: torch.device, dtype: torch.dtype) -> None:
        count = max(1, int(self.shape.numel() / self.config.ratio))
        self.buckets = nn.Parameter(torch.zeros(count, device=device, dtype=dtype))
        self.assignment = Assignment(self.shape.numel(), (0,), (count,), self.seed, self.config.hashing)
        self.remake_(device)

    def spread(self, values: Tensor) -> Tensor:
        """A value, with its sign, at every position."""
        return spread(values, self.reads).view(self.shape)

    @torch.no_grad()
    def project_(self, dense: Tensor, inputs: Tensor | None = None) -> Self:
        """Set each bucket to the signed mean of what reads it; ``inputs`` are not needed."""
        wanted = dense.to(self.buckets).flatten()
        self.buckets.copy_(signed_mean(wanted, read(self.reads, wanted.device), self.buckets.numel()))
        return self
