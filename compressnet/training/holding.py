"""Other numbers in the place of a model's own, for a while."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def holding(tensors: Sequence[Tensor], numbers: Sequence[Tensor]) -> Iterator[None]:
    """Within it tensors hold other numbers, to be evaluated or saved; then their own again, bit for bit."""
    kept = [tensor.detach().clone() for tensor in tensors]
    _copy_(tensors, numbers)
    try:
        yield
    finally:
        _copy_(tensors, kept)


@torch.no_grad()
def _copy_(tensors: Sequence[Tensor], numbers: Sequence[Tensor]) -> None:
    for tensor, number in zip(tensors, numbers, strict=True):
        tensor.copy_(number)
