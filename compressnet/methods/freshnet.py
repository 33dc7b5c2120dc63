"""FreshNet: convolution filters that share values in the frequency domain.

Wenlin Chen, James Wilson, Stephen Tyree, Kilian Weinberger, Yixin Chen: Compressing Convolutional Neural Networks in
the Frequency Domain, KDD 2016, https://arxiv.org/abs/1506.04449

| paper | here |
|---|---|
| V, v | coefficients, filter |
| j = j₁ + j₂ | band |
| w^j, K_j | the slice of ``buckets`` of band j, its length |
| N_j | how many coefficients of the layer are in band j |
| g_j, ξ | the bucket and the sign in ``indices`` |
| α, β | ``alpha``, ``beta`` of the Beta density that allots the buckets to the bands |
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from compressnet.hashed import HashedWeight
from compressnet.maths.allocation import beta_rates, share_out
from compressnet.maths.assignment import Assignment
from compressnet.maths.dct import band_numels, bands, coefficients, dct2_matrix, kernel
from compressnet.maths.hashing import Hashing
from compressnet.maths.sharing import signed_mean
from compressnet.maths.spreading import read, spread_kernels
from compressnet.structured import MethodConfig


class FreshNetConfig(MethodConfig):
    """``freshnet`` in a recipe.

    Args:
        ratio: dense numbers per stored number, at least 1.
        alpha: first shape of the Beta density over the bands; below 1 favours low frequencies.
        beta: second shape; above 1 favours low frequencies, and α = β = 1 treats all bands alike.
        hashing: ``balanced``, or ``independent`` as in the paper.
    """

    sizes = ("ratio",)

    ratio: float = Field(ge=1, allow_inf_nan=False)
    alpha: float = Field(default=0.2, gt=0, le=100)
    beta: float = Field(default=2.5, gt=0, le=100)
    hashing: Hashing = "balanced"


class FreshNetWeight(HashedWeight):
    """A convolution weight whose DCT coefficients share values within their frequency band.

    A coefficient V[o, i, a, b] of band j = a + b reads one of the K_j values of its band, chosen by a hash of its
    position and given a hashed sign:

        V[o, i, a, b] = sign · buckets[index],    W[o, i] = C_khᵀ V[o, i] C_kw

    C is the orthonormal DCT-II; as it is orthonormal and no two bands share a bucket, the least-squares projection is
    closed: each bucket is the signed mean of the coefficients that read it.

    Stored: Σ_j K_j ≈ out·in·kh·kw / ratio floats, at least one per band.
    Re-made: index and sign, in one int32 a position.   Cost: one gather and one kh·kw × kh·kw product.

    A 1×1 kernel, or the weight of a fully connected layer, has a single coefficient: plain hashing.

    Source: Chen et al. 2016, sections 3 and 4 (frequency hashing; buckets by band).

    Example:
        >>> weight = FreshNetWeight((8, 4, 3, 3), FreshNetConfig(ratio=4), seed=1)
        >>> weight.numel, weight.to_dense().shape
        (72, torch.Size([8, 4, 3, 3]))
    """

    name = "freshnet"
    Config = FreshNetConfig

    transform: Tensor

    @classmethod
    def remark(cls, shape: Sequence[int], config: Any) -> str | None:
        """A kernel of one coefficient has no frequencies."""
        return "one coefficient a kernel: plain hashing" if kernel(shape) == (1, 1) else None

    def band_buckets(self) -> list[int]:
        """K_j, the values of each band."""
        numels = band_numels(self.shape)
        total = max(len(numels), int(self.shape.numel() / self.config.ratio))
        return share_out(total, numels, beta_rates(len(numels), self.config.alpha, self.config.beta))

    def _allocate_(self, device: torch.device, dtype: torch.dtype) -> None:
        counts, cells = self.band_buckets(), bands(*kernel(self.shape)).tolist()
        self.buckets = nn.Parameter(torch.zeros(sum(counts), device=device, dtype=dtype))
        filters = self.shape[0] * self.shape[1]
        self.assignment = Assignment(filters, tuple(cells), tuple(counts), self.seed, self.config.hashing)
        self.remake_(device)

    def remake_(self, device: torch.device | str) -> None:
        """Make the signed index of every coefficient, and the transform."""
        super().remake_(device)
        transform = dct2_matrix(*kernel(self.shape)).to(device, self.buckets.dtype)
        self.register_buffer("transform", transform, persistent=False)

    def spread(self, values: Tensor) -> Tensor:
        """The kernels whose coefficients are these values, each with its sign."""
        return spread_kernels(values, self.reads, self.transform, self.shape)

    @torch.no_grad()
    def project_(self, dense: Tensor, inputs: Tensor | None = None) -> Self:
        """Set each bucket to the signed mean of the coefficients that read it; ``inputs`` are not needed."""
        wanted = coefficients(dense.to(self.buckets), self.transform)
        self.buckets.copy_(signed_mean(wanted, read(self.reads, wanted.device), self.buckets.numel()))
        return self
