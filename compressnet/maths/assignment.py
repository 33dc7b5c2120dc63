"""Which signed value every position of a weight reads, as the few integers that say so."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from compressnet.maths import compiled
from compressnet.maths.hashing import Hashing
from compressnet.maths.indices import ALL, signed_indices
from compressnet.maths.parallel import in_parts, parts


@dataclass(frozen=True)
class Assignment:
    """Positions that read values: cells of kernels, kernel by kernel.

    Cells of a band share the values of that band, which follow those of the bands before. The hash knows a position by
    its number within its band, where it is counted kernel by kernel too.

    Args:
        kernels: how many.
        bands: the band of each cell of a kernel; a kernel of one cell, ``(0,)``, is plain hashing.
        buckets: how many values each band has.
        seed: of the layer.
        hashing: ``balanced`` or ``independent``.
    """

    kernels: int
    bands: tuple[int, ...]
    buckets: tuple[int, ...]
    seed: int
    hashing: Hashing = "balanced"

    @property
    def numel(self) -> int:
        """Positions in all."""
        return self.kernels * len(self.bands)

    @cached_property
    def firsts(self) -> tuple[int, ...]:
        """The first value of each band."""
        return tuple(sum(self.buckets[:band]) for band in range(len(self.buckets)))

    def cells(self, band: int) -> list[int]:
        """Those of a band."""
        return [cell for cell, its in enumerate(self.bands) if its == band]

    def signed_indices(self, part: slice = ALL) -> Tensor:
        """``2 · value + (1 if the sign is − else 0)`` of every position, or of some: int32 on the CPU."""
        if len(self.buckets) == 1:
            return signed_indices(self.numel, self.buckets[0], self.seed, 0, self.hashing, part)
        indices = torch.empty((self.kernels, len(self.bands)), dtype=torch.int32)
        for band, (first, count) in enumerate(zip(self.firsts, self.buckets, strict=True)):
            cells = self.cells(band)
            made = signed_indices(self.kernels * len(cells), count, self.seed, band, self.hashing)
            _interleave(indices, made.view(self.kernels, -1), cells, first)
        return indices.view(-1)[part]


def _interleave(indices: Tensor, made: Tensor, cells: list[int], first: int) -> None:
    """Those of a band take their columns."""
    if not compiled.takes(made.numel(), made):
        for cell, column in zip(cells, made.unbind(1), strict=True):
            torch.add(column, 2 * first, out=indices[:, cell])  # far faster than by a mask of columns
        return
    from compressnet.maths.compiled.sharing import interleave

    out, numbers, columns = indices.numpy(), made.numpy(), np.array(cells, np.int32)
    threads = parts(made.numel(), made.device)
    in_parts(lambda _, part: interleave(out[part], numbers[part], columns, first), len(made), threads)
