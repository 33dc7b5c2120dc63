"""Pruned: the largest entries of a weight, and where they are.

Song Han, Jeff Pool, John Tran, William Dally: Learning both Weights and Connections for Efficient Neural Networks, NIPS
2015, https://arxiv.org/abs/1506.02626; the first stage of Deep Compression: Han, Mao, Dally, ICLR 2016,
https://arxiv.org/abs/1510.00149
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from compressnet.maths import bitmaps, gaps
from compressnet.structured import MethodConfig, StructuredWeight


class PrunedConfig(MethodConfig):
    """``pruned`` in a recipe.

    Args:
        density: share of the entries that is kept, above 0 and at most 1.
    """

    sizes = ("density",)

    density: float = Field(gt=0, le=1)


class PackedConfig(PrunedConfig):
    """``pruned`` in an exported file where gaps take fewer bytes than the bitmap.

    Args:
        bits: of a gap's code.
        codes: how many there are, fillers included.
    """

    bits: int = Field(ge=gaps.BITS.start, lt=gaps.BITS.stop)
    codes: int = Field(ge=1)

    @property
    def nbytes(self) -> int:
        """Of the codes."""
        return -(-self.codes * self.bits // 8)


class PrunedWeight(StructuredWeight):
    """A weight of which the entries of largest magnitude are kept and the others are zero.

        W.flat[positions] = values,    0 elsewhere

    The projection chooses the positions and takes the entries there: the least-squares optimum over all weights with so
    many entries. Training moves the values; the positions stay.

    Stored: K = round(density · numel) floats by rising position, and a bitmap of ⌈numel / 8⌉ bytes; once packed, the
    gaps between the positions in place of the bitmap, where they take less.
    Re-made: the positions from them, one int32 a value.   Cost: one scatter, then the dense product.

    Source: Han et al. 2015, one round of pruning; the gaps, Han et al. 2016, section 2.

    Example:
        >>> weight = PrunedWeight((4, 4), PrunedConfig(density=0.25), seed=1)
        >>> weight.project_(torch.arange(16.0).view(4, 4)).values.tolist(), weight.bitmap.tolist()
        ([12.0, 13.0, 14.0, 15.0], [0, 240])
    """

    name = "pruned"
    Config = PrunedConfig
    linear = True
    exact_projection = True
    runs = "dense"

    bitmap: Tensor
    gaps: Tensor
    positions: Tensor

    @classmethod
    def rejects(cls, shape: Sequence[int], config: Any) -> str | None:
        """Values and bitmap are fewer than the entries; gaps are enough codes, and fewer bytes than the bitmap."""
        numel = math.prod(shape)
        kept, nbytes = _kept(shape, config), -(-numel // 8)
        if kept + nbytes >= numel:
            return f"its {kept:,} values and {nbytes:,} bytes of bitmap would not be fewer than {numel:,} numbers"
        if isinstance(config, PackedConfig) and not (config.codes >= kept and config.nbytes < nbytes):
            return f"its {config.codes:,} gaps are not those of {kept:,} values"
        return None

    @classmethod
    def read_config(cls, keys: Mapping[str, Any]) -> PrunedConfig:
        """Of a weight with a bitmap, or of a packed one."""
        return PackedConfig(**keys) if "bits" in keys else PrunedConfig(**keys)

    @classmethod
    def config_near(cls, shape: Sequence[int], ratio: float) -> PrunedConfig:
        """The values are 1/ratio of the entries; the bitmap comes on top."""
        return PrunedConfig(density=1 / ratio)

    def _allocate_(self, device: torch.device, dtype: torch.dtype) -> None:
        kept = _kept(self.shape, self.config)
        self.values = nn.Parameter(torch.zeros(kept, device=device, dtype=dtype))
        if isinstance(self.config, PackedConfig):
            fillers = torch.arange(self.config.codes, device=device) >= kept
            codes = fillers * (2**self.config.bits - 1)
            self.register_buffer("gaps", gaps.pack_codes(codes, self.config.bits))
        else:
            self.register_buffer("bitmap", bitmaps.pack(torch.arange(self.shape.numel(), device=device) < kept))
        self.remake_(device)

    def remake_(self, device: torch.device | str) -> None:
        """Make the positions from the bitmap, or from the gaps."""
        if torch.device(device).type == "meta" or self._index.is_meta:
            kept = torch.empty(self.values.shape, dtype=torch.int32, device="meta")
        elif isinstance(self.config, PackedConfig):
            kept = gaps.positions(self.gaps, self.config.bits, self.config.codes)
            kept = kept.clamp(max=self.shape.numel()).int().to(device)
        else:
            kept = bitmaps.positions(self.bitmap, self.shape.numel()).to(device)
        self.register_buffer("positions", kept, persistent=False)

    @property
    def _index(self) -> Tensor:
        """What the positions are stored as."""
        return self.gaps if isinstance(self.config, PackedConfig) else self.bitmap

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.remake_(self._index.device)

    def damage(self) -> str | None:
        """There is a position for each value, and it is in the weight."""
        count, numel = len(self.values), self.shape.numel()
        if len(self.positions) != count or int(self.positions[-1]) >= numel:
            return f"its positions are not {count:,} of {numel:,}"
        return None

    @torch.no_grad()
    def packed(self) -> "PrunedWeight":
        """With gaps in place of the bitmap, where these take fewer bytes."""
        bits, codes = gaps.fewest(self.positions)
        config = PackedConfig(density=self.config.density, bits=bits, codes=codes)
        if isinstance(self.config, PackedConfig) or config.nbytes >= len(self.bitmap):
            return self
        weight = PrunedWeight(self.shape, config, self.seed, device=self.values.device, dtype=self.values.dtype)
        weight.values.copy_(self.values)
        weight.gaps.copy_(gaps.pack_codes(gaps.encode(self.positions, bits), bits))
        weight.remake_(self.positions.device)
        return weight.train(self.training)

    def to_dense(self) -> Tensor:
        """The dense weight."""
        zeros = self.values.new_zeros(self.shape.numel())
        return zeros.index_add(0, self.positions, self.values).view(self.shape)

    @torch.no_grad()
    def scale_rows_(self, factors: Tensor) -> bool:
        """The kept entries take those of their rows."""
        self.values.mul_(factors[self.positions // self.shape[1:].numel()])
        return True

    @torch.no_grad()
    def project_(self, dense: Tensor, inputs: Tensor | None = None) -> Self:
        """Keep the entries of largest magnitude, of equal ones any; a packed weight takes those at its positions.

        ``inputs`` are not needed.
        """
        entries = dense.to(self.values).flatten()
        if not isinstance(self.config, PackedConfig):
            kept = torch.zeros(entries.shape, dtype=torch.bool, device=entries.device)
            kept[entries.abs().topk(self.values.numel(), sorted=False).indices] = True
            self.bitmap.copy_(bitmaps.pack(kept))
            self.remake_(entries.device)
        self.values.copy_(entries.index_select(0, self.positions))
        return self


def _kept(shape: Sequence[int], config: Any) -> int:
    return max(1, round(math.prod(shape) * config.density))
