"""Parts of an array at a time, one thread each, for operations of torch that take one thread by themselves."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import torch

LEAST = 1 << 17
"""Positions that are worth a thread."""


def parts(numel: int, device: torch.device) -> int:
    """How many threads share so many positions: as many as torch takes, fewer of few positions, one on a GPU."""
    return max(1, min(torch.get_num_threads(), numel // LEAST)) if device.type == "cpu" else 1


def in_parts(work: Callable[[int, slice], object], numel: int, count: int, unit: int = 1) -> None:
    """Do ``work(number, positions)`` for each of ``count`` equal parts of so many positions, all at once.

    What it calls must let go of Python while it computes, as torch and numpy do.

    Args:
        work: on a part.
        numel: positions.
        count: parts.
        unit: positions that no two parts share out between them; ``numel`` is a multiple.
    """
    edges = [numel // unit * part // count * unit for part in range(count + 1)]
    own, *others = (slice(first, end) for first, end in pairwise(edges))
    waiting = [_pool(os.getpid(), count).submit(work, number, part) for number, part in enumerate(others, 1)]
    work(0, own)
    for each in waiting:
        each.result()


@cache
def _pool(process: int, count: int) -> ThreadPoolExecutor:
    """Of one process: threads do not come along when it forks."""
    return ThreadPoolExecutor(count - 1, thread_name_prefix="compressnet")
