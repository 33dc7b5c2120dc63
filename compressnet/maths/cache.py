"""Chains of operations on a few vectors at a time, so that what one hands the next stays in the cache."""

from collections.abc import Callable

import torch
from torch import Tensor

from compressnet.maths.parallel import in_parts, parts

CACHED = 1 << 18  # numbers: 1 MiB in single precision, the second-level cache of a core


def in_cache(run: Callable[[Tensor], Tensor], x: Tensor, width: int) -> Tensor:
    """``run(x)``, on a CPU by so many rows of x at a time that what is between its operations stays in a core's cache.

    Without gradients, each thread takes some rows through all operations: one by one they are too short to be shared.

    Args:
        run: from a row of x to a row of the result.
        x: of at least one dimension.
        width: the most numbers that are made of a row at once.
    """
    rows = max(1, CACHED // width)
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return run(x)
    threads = 1 if torch.is_grad_enabled() else max(1, min(len(x), parts(len(x) * width, x.device)))
    if threads == 1:
        return torch.cat([run(part) for part in x.split(rows)]) if len(x) > rows else run(x)
    made: list[list[Tensor]] = [[] for _ in range(threads)]

    def work(thread: int, part: slice) -> None:
        with torch.no_grad():  # a thread's own
            made[thread] = [run(some) for some in x[part].split(rows)]

    in_parts(work, len(x), threads)
    return torch.cat([each for own in made for each in own])
