"""Positions that share signed values: expand values to positions, and its least-squares inverse.

Indices are those of :func:`compressnet.maths.hashing.signed_indices`: ``2 · bucket + (1 if the sign is −)``.
"""

import torch
from torch import Tensor


def expand(values: Tensor, indices: Tensor) -> Tensor:
    """The signed value of every position, by one gather from a table of each value beside its negative.

    Args:
        values: shape (K,).
        indices: int32 of shape (N,).

    Returns:
        shape (N,), differentiable in ``values``.
    """
    return torch.stack((values, -values), dim=1).flatten().index_select(0, indices)


def signed_mean(dense: Tensor, indices: Tensor, buckets: int) -> Tensor:
    """The least-squares values for given positions: each is the signed mean of what reads it, 0 where nothing does.

    Args:
        dense: shape (N,), what the positions should hold.
        indices: int32 of shape (N,).
        buckets: K.

    Returns:
        shape (K,).
    """
    sums = dense.new_zeros(2 * buckets).index_add_(0, indices, dense).view(buckets, 2)
    reads = torch.bincount(indices >> 1, minlength=buckets)
    return (sums[:, 0] - sums[:, 1]) / reads.clamp(min=1)
