"""Chains of operations on a few vectors at a time, so that what one hands the next stays in the cache."""

from collections.abc import Callable

import torch
from torch import Tensor

CACHED = 1 << 18  # numbers: 1 MiB in single precision, the second-level cache of a core


def in_cache(run: Callable[[Tensor], Tensor], x: Tensor, width: int) -> Tensor:
    """``run(x)``, on a CPU by so many rows of x at a time that what is between its operations stays in a core's cache.

    Args:
        run: from a row of x to a row of the result.
        x: of at least one dimension.
        width: the most numbers that are made of a row at once.
    """
    rows = max(1, CACHED // width)
    if x.device.type != "cpu" or torch.compiler.is_compiling() or len(x) <= rows:
        return run(x)
    return torch.cat([run(part) for part in x.split(rows)])
