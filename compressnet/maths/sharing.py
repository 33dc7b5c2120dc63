"""Positions that share signed values: expand values to positions, and its least-squares inverse.

Indices are those of :func:`compressnet.maths.hashing.signed_indices`: ``2 · bucket + (1 if the sign is −)``.
"""

import torch
from torch import Tensor

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
    sums = Sums(dense, buckets, len(dense))
    sums.add_(indices, dense)
    reads = torch.bincount(indices >> 1, minlength=buckets)
    return sums.total() / reads.clamp(min=1)


def gather_(out: Tensor, table: Tensor, indices: Tensor) -> None:
    """``out[i] = table[indices[i]]``, all of one dimension, by as many threads as are worth it."""

    def gather(_: int, part: slice) -> None:
        torch.index_select(table, 0, indices[part], out=out[part])

    in_parts(gather, len(indices), parts(len(indices), out.device))


class Sums:
    """The signed sum of what reads each value, gathered by threads that have a table each.

    Args:
        like: gives type and device.
        count: K.
        numel: positions in all; all tables together have at most a quarter as many numbers, or there is one.
    """

    def __init__(self, like: Tensor, count: int, numel: int) -> None:
        self.tables = like.new_zeros(max(1, min(parts(numel, like.device), numel // (8 * count))), 2 * count)

    def add_(self, indices: Tensor, dense: Tensor) -> None:
        """Add what some positions, of shape (n,), hold to the values that they read."""

        def add(number: int, part: slice) -> None:
            self.tables[number].index_add_(0, indices[part], dense[part])

        in_parts(add, len(indices), min(len(self.tables), parts(len(indices), dense.device)))

    def total(self) -> Tensor:
        """Of shape (K,)."""
        pairs = self.tables.sum(0) if len(self.tables) > 1 else self.tables[0]
        return pairs[::2] - pairs[1::2]
