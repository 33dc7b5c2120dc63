"""DropFilt: fewer filters, the others are zero; the baseline that FreshNets compares with.

Wenlin Chen, James Wilson, Stephen Tyree, Kilian Weinberger, Yixin Chen: Compressing Convolutional Neural Networks in
the Frequency Domain, KDD 2016, https://arxiv.org/abs/1506.04449
"""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from compressnet.maths.bitmaps import pack, positions
from compressnet.structured import MethodConfig, StructuredWeight


class DropFiltConfig(MethodConfig):
    """``dropfilt`` in a recipe.

    Args:
        ratio: dense numbers per stored value, at least 1.
    """

    sizes = ("ratio",)

    ratio: float = Field(ge=1, allow_inf_nan=False)


class DropFiltWeight(StructuredWeight):
    """A weight of which the output filters of largest norm are kept and the others are zero.

        W[filters] = values,    0 elsewhere

    The projection chooses the filters and takes them as they are: the least-squares optimum over all weights with so
    many filters. Training moves the values; which filters there are stays.

    Stored: K = max(1, ⌊out / ratio⌋) filters of in·kh·kw floats, and a bitmap of ⌈out / 8⌉ bytes.
    Re-made: the indices of the filters from the bitmap.   Cost: one copy of the rows, then the dense product.

    Source: Chen et al. 2016, the baseline "DropFilt".

    Example:
        >>> weight = DropFiltWeight((4, 2), DropFiltConfig(ratio=2), seed=1)
        >>> weight.project_(torch.arange(8.0).view(4, 2)).values.tolist(), weight.bitmap.tolist()
        ([[4.0, 5.0], [6.0, 7.0]], [12])
    """

    name = "dropfilt"
    Config = DropFiltConfig
    linear = True
    exact_projection = True
    runs = "dense"

    bitmap: Tensor
    filters: Tensor

    @classmethod
    def rejects(cls, shape: Sequence[int], config: Any) -> str | None:
        """Values and bitmap are fewer than the dense weight's numbers."""
        numel, stored = math.prod(shape), _kept(shape, config) * math.prod(shape[1:]) + -(-shape[0] // 8)
        if stored >= numel:
            return f"with its bitmap its {stored:,} numbers would not be fewer than the {numel:,} of the dense weight"
        return None

    @classmethod
    def remark(cls, shape: Sequence[int], config: Any) -> str | None:
        """One filter is the least."""
        if config.ratio > shape[0]:
            return f"one filter is kept, 1/{shape[0]}: ratio {config.ratio:g} would leave none"
        return None

    def _allocate_(self, device: torch.device, dtype: torch.dtype) -> None:
        kept = _kept(self.shape, self.config)
        self.values = nn.Parameter(torch.zeros(kept, *self.shape[1:], device=device, dtype=dtype))
        self.register_buffer("bitmap", pack(torch.arange(self.shape[0], device=device) < kept))
        self.remake_(device)

    def remake_(self, device: torch.device | str) -> None:
        """Make the indices of the kept filters from the bitmap."""
        if torch.device(device).type == "meta" or self.bitmap.is_meta:
            kept = torch.empty(len(self.values), dtype=torch.int32, device="meta")
        else:
            kept = positions(self.bitmap, self.shape[0]).to(device)
        self.register_buffer("filters", kept, persistent=False)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.remake_(self.bitmap.device)

    def damage(self) -> str | None:
        """There is a bit for each filter."""
        kept = len(self.values)
        return None if len(self.filters) == kept else f"its bitmap does not mark {kept:,} of {self.shape[0]:,} filters"

    def to_dense(self) -> Tensor:
        """The dense weight."""
        return self.values.new_zeros(self.shape).index_add(0, self.filters, self.values)

    @torch.no_grad()
    def scale_rows_(self, factors: Tensor) -> bool:
        """The kept filters take theirs."""
        self.values.mul_(factors[self.filters].view(-1, *[1] * (self.values.dim() - 1)))
        return True

    @torch.no_grad()
    def project_(self, dense: Tensor, inputs: Tensor | None = None) -> Self:
        """Keep the filters of largest norm, of equal ones any; ``inputs`` are not needed."""
        filters = dense.to(self.values)
        kept = torch.zeros(self.shape[0], dtype=torch.bool, device=filters.device)
        kept[filters.flatten(1).norm(dim=1).topk(len(self.values)).indices] = True
        self.bitmap.copy_(pack(kept))
        self.remake_(filters.device)
        self.values.copy_(filters.index_select(0, self.filters))
        return self


def _kept(shape: Sequence[int], config: Any) -> int:
    return max(1, int(shape[0] / config.ratio))
