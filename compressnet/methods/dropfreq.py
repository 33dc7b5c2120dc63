"""DropFreq: convolution filters of low frequencies only; the baseline that FreshNets compares with.

Wenlin Chen, James Wilson, Stephen Tyree, Kilian Weinberger, Yixin Chen: Compressing Convolutional Neural Networks in
the Frequency Domain, KDD 2016, https://arxiv.org/abs/1506.04449

| paper | here |
|---|---|
| V, v | coefficients, filter |
| j = j₁ + j₂ | band |
| N_j | how many coefficients of the layer are in band j |
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from compressnet.maths.dct import band_numels, bands, coefficients, dct2_matrix, kernel, kernels
from compressnet.maths.hashing import Purpose, permutation
from compressnet.structured import MethodConfig, StructuredWeight


class DropFreqConfig(MethodConfig):
    """``dropfreq`` in a recipe.

    Args:
        ratio: dense numbers per stored number, at least 1.
    """

    sizes = ("ratio",)

    ratio: float = Field(ge=1, allow_inf_nan=False)


class DropFreqWeight(StructuredWeight):
    """A convolution weight that keeps its lowest DCT coefficients; the others are zero.

    Whole bands j = a + b are kept from the lowest on while the budget lasts. Of the band in which it ends, those
    coefficients are kept that a keyed permutation puts first:

        V[o, i, a, b] = values[…] where it is kept, else 0,    W[o, i] = C_khᵀ V[o, i] C_kw

    C is the orthonormal DCT-II, so the least-squares projection is closed: the coefficients of the dense weight.

    Stored: out·in·kh·kw / ratio floats, by band, then by position.
    Re-made: the positions, one int32 a stored number.   Cost: one scatter and one kh·kw × kh·kw product.

    Source: Chen et al. 2016, the baseline "DropFreq".

    Example:
        >>> weight = DropFreqWeight((8, 4, 3, 3), DropFreqConfig(ratio=4), seed=1)
        >>> weight.numel, weight.band_kept()
        (72, [32, 40, 0, 0, 0])
    """

    name = "dropfreq"
    Config = DropFreqConfig
    linear = True
    exact_projection = True
    runs = "dense"

    positions: Tensor
    transform: Tensor

    @classmethod
    def rejects(cls, shape: Sequence[int], config: Any) -> str | None:
        """A ratio of 1 keeps everything, as the dense weight does."""
        numel = torch.Size(shape).numel()
        return f"ratio {config.ratio:g} keeps all {numel:,} numbers" if _kept(shape, config) == numel else None

    @classmethod
    def remark(cls, shape: Sequence[int], config: Any) -> str | None:
        """A kernel of one coefficient has no frequencies."""
        return "one coefficient a kernel: which are kept is hashed" if kernel(shape) == (1, 1) else None

    def band_kept(self) -> list[int]:
        """How many coefficients of each band are kept."""
        rest, kept = _kept(self.shape, self.config), []
        for numel in band_numels(self.shape):
            kept.append(min(rest, numel))
            rest -= kept[-1]
        return kept

    def _allocate_(self, device: torch.device, dtype: torch.dtype) -> None:
        self.values = nn.Parameter(torch.zeros(_kept(self.shape, self.config), device=device, dtype=dtype))
        self.remake_(device)

    def remake_(self, device: torch.device | str) -> None:
        """Make the position of every stored coefficient, and the transform."""
        positions = torch.empty(self.values.numel(), dtype=torch.int32, device=device)
        if positions.device.type != "meta":
            positions.copy_(self._positions())
        self.register_buffer("positions", positions, persistent=False)
        transform = dct2_matrix(*kernel(self.shape)).to(device, self.values.dtype)
        self.register_buffer("transform", transform, persistent=False)

    def _positions(self) -> Tensor:
        band_of_cell = bands(*kernel(self.shape)).numpy()
        cells, parts = len(band_of_cell), []
        for band, (numel, kept) in enumerate(zip(band_numels(self.shape), self.band_kept(), strict=True)):
            within = np.arange(numel, dtype=np.int64)
            if kept < numel:
                within = (
                    np.flatnonzero(permutation(numel, self.seed, Purpose.ORDER, band) < kept) if kept else within[:0]
                )
            own = np.flatnonzero(band_of_cell == band)
            parts.append(within // len(own) * cells + own[within % len(own)])
        return torch.from_numpy(np.concatenate(parts).astype(np.int32))

    def to_dense(self) -> Tensor:
        """The dense weight."""
        zeros = self.values.new_zeros(self.shape.numel())
        return kernels(zeros.index_add(0, self.positions, self.values), self.transform, self.shape)

    @torch.no_grad()
    def scale_rows_(self, factors: Tensor) -> bool:
        """The kept coefficients take those of their rows."""
        self.values.mul_(factors[self.positions // self.shape[1:].numel()])
        return True

    @torch.no_grad()
    def project_(self, dense: Tensor, inputs: Tensor | None = None) -> Self:
        """Take the kept coefficients of the dense weight; ``inputs`` are not needed."""
        self.values.copy_(coefficients(dense.to(self.values), self.transform).index_select(0, self.positions))
        return self


def _kept(shape: Sequence[int], config: Any) -> int:
    return max(1, int(torch.Size(shape).numel() / config.ratio))
