"""Which of N positions are kept, as a bitmap: eight positions a byte, the first in the lowest bit."""

import torch
from torch import Tensor


def pack(kept: Tensor) -> Tensor:
    """The bitmap of a mask.

    Args:
        kept: bool of shape (N,).

    Returns:
        uint8 of shape (⌈N / 8⌉,); bits beyond N are 0.

    >>> pack(torch.tensor([True, False, True, False, False, False, False, False, True])).tolist()
    [5, 1]
    """
    padded = torch.zeros(-(-len(kept) // 8) * 8, dtype=torch.uint8, device=kept.device)
    padded[: len(kept)] = kept
    bits = padded.view(-1, 8)
    packed = bits[:, 0].clone()
    for place in range(1, 8):
        packed |= bits[:, place] << place
    return packed


def unpack(bitmap: Tensor, numel: int) -> Tensor:
    """The bits of a bitmap.

    Args:
        bitmap: uint8 of shape (⌈N / 8⌉,).
        numel: N.

    Returns:
        uint8 of shape (N,), each 0 or 1.

    >>> unpack(torch.tensor([5, 1], dtype=torch.uint8), 9).tolist()
    [1, 0, 1, 0, 0, 0, 0, 0, 1]
    """
    places = torch.arange(8, dtype=torch.uint8, device=bitmap.device)
    return ((bitmap[:, None] >> places) & 1).flatten()[:numel]


def positions(bitmap: Tensor, numel: int) -> Tensor:
    """The positions whose bit is set, rising.

    Args:
        bitmap: uint8 of shape (⌈N / 8⌉,).
        numel: N.

    Returns:
        int32 of shape (K,).

    >>> positions(torch.tensor([5, 1], dtype=torch.uint8), 9).tolist()
    [0, 2, 8]
    """
    return unpack(bitmap, numel).nonzero().flatten().int()
