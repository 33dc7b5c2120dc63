"""Positions that share signed values: expand values to positions, and its least-squares inverse.

Indices are those of :func:`compressnet.maths.indices.signed_indices`: ``2 · bucket + (1 if the sign is −)``.
"""

import torch
from torch import Tensor

from compressnet.maths import compiled
from compressnet.maths.parallel import in_parts, parts


def signed(values: Tensor) -> Tensor:
    """Each value, followed by its negative: shape (K,) to (2 K,)."""
    return torch.stack((values, -values), dim=1).flatten()


def expand(values: Tensor, indices: Tensor) -> Tensor:
    """The signed value of every position, by one gather from a table of each value beside its negative.

    Args:
        values: shape (K,).
        indices: int32 of shape (N,).

    Returns:
        shape (N,), differentiable in ``values``.
    """
    return signed(values).index_select(0, indices)


def signed_mean(dense: Tensor, indices: Tensor, buckets: int) -> Tensor:
    """The least-squares values for given positions: each is the signed mean of what reads it, 0 where nothing does.

    Args:
        dense: shape (N,), what the positions should hold.
        indices: int32 of shape (N,).
        buckets: K.

    Returns:
        shape (K,).
    """
    counts = reads(indices, buckets).clamp_(min=1)
    sums = Sums(dense, buckets, len(dense))
    sums.add_(indices, dense)
    return sums.total().div_(counts)


def reads(indices: Tensor, buckets: int) -> Tensor:
    """How many positions read each value: integers of shape (K,)."""
    if not compiled.takes(len(indices), indices):
        return torch.bincount(indices >> 1, minlength=buckets)
    from compressnet.maths.compiled.sharing import count

    counts = _tables(indices, buckets, len(indices))
    places, tables, threads = indices.numpy(), counts.numpy(), len(counts)
    in_parts(lambda number, part: count(tables[number], places[part]), len(indices), threads)
    return counts.sum(0, dtype=counts.dtype)


class Reader:
    """Gathers signed values, as they are or as coefficients of kernels.

    Args:
        values: shape (K,).
        numel: positions in all.
        cosine: whether they are coefficients of the 3×3 kernels that are wanted; only where ``compiled.takes`` it.
    """

    def __init__(self, values: Tensor, numel: int, cosine: bool = False) -> None:
        self.cosine, self.compiled = cosine, compiled.takes(numel, values)
        self.table = values.detach().contiguous() if self.compiled else signed(values)

    def gather_(self, out: Tensor, indices: Tensor) -> None:
        """``out[i]`` becomes what position i reads, all of one dimension, by as many threads as are worth it."""
        if self.compiled:
            from compressnet.maths.compiled import sharing

            gather = sharing.gather_kernels if self.cosine else sharing.gather
            numbers, table, places = out.numpy(), self.table.numpy(), indices.numpy()

        def work(_: int, part: slice) -> None:
            if self.compiled:
                gather(numbers[part], table, places[part])
            else:
                torch.index_select(self.table, 0, indices[part], out=out[part])

        in_parts(work, len(indices), parts(len(indices), out.device), unit=9 if self.cosine else 1)


class Sums:
    """The signed sum of what reads each value, gathered by threads that have a table each.

    Args:
        like: gives type and device.
        count: K.
        numel: positions in all; all tables together have at most half as many numbers, or there is one.
        cosine: whether 3×3 kernels are given, whose coefficients are summed; only where ``compiled.takes`` it.
    """

    def __init__(self, like: Tensor, count: int, numel: int, cosine: bool = False) -> None:
        self.cosine, self.compiled = cosine, compiled.takes(numel, like)
        width = count if self.compiled else 2 * count
        self.tables = _tables(like, width, numel)

    def add_(self, indices: Tensor, dense: Tensor) -> None:
        """Add what some positions, of shape (n,), hold to the values that they read."""
        if self.compiled:
            from compressnet.maths.compiled import sharing

            add = sharing.add_kernels if self.cosine else sharing.add
            tables, numbers, places = self.tables.numpy(), dense.detach().contiguous().numpy(), indices.numpy()

        def work(number: int, part: slice) -> None:
            if self.compiled:
                add(tables[number], numbers[part], places[part])
            else:
                self.tables[number].index_add_(0, indices[part], dense[part])

        count = min(len(self.tables), parts(len(indices), dense.device))
        in_parts(work, len(indices), count, unit=9 if self.cosine else 1)

    def total(self) -> Tensor:
        """Of shape (K,)."""
        sums = self.tables.sum(0) if len(self.tables) > 1 else self.tables[0]
        return sums if self.compiled else sums[::2] - sums[1::2]


def _tables(like: Tensor, width: int, numel: int) -> Tensor:
    """A table of zeros for each thread, or one where all together would have over half as many numbers as positions."""
    return like.new_zeros(max(1, min(parts(numel, like.device), numel // (2 * width))), width)
