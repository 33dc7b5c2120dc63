"""Parts of an array at a time, one thread each, for operations that take one thread by themselves.

The threads are those of torch, where its OpenMP library lets others use them (GNU's, and what is compatible): between
products they spin for milliseconds, and threads of our own would share the processors with them.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import torch

LEAST = 1 << 17
"""Positions that are worth a thread."""

_Region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def parts(numel: int, device: torch.device) -> int:
    """How many threads share so many positions: as many as torch takes, fewer of few positions, one on a GPU."""
    if numel < 2 * LEAST or device.type != "cpu":
        return 1
    return min(torch.get_num_threads(), numel // LEAST)


def in_parts(work: Callable[[int, slice], object], numel: int, count: int, unit: int = 1) -> None:
    """Do ``work(number, positions)`` for each of ``count`` equal parts of so many positions, all at once.

    What it calls must let go of Python while it computes, as torch, numpy and compiled loops do.

    Args:
        work: on a part.
        numel: positions.
        count: parts.
        unit: positions that no two parts share out between them; ``numel`` is a multiple.
    """
    if count == 1:
        work(0, slice(0, numel))
        return
    edges = [numel // unit * part // count * unit for part in range(count + 1)]
    cut = [slice(first, end) for first, end in pairwise(edges)]
    if openmp := _openmp():
        _in_region(openmp, work, cut)
    else:
        waiting = [_pool(os.getpid(), count).submit(work, number, cut[number]) for number in range(1, count)]
        work(0, cut[0])
        for each in waiting:
            each.result()


def _in_region(openmp: ctypes.CDLL, work: Callable[[int, slice], object], cut: list[slice]) -> None:
    """By a parallel region, whose threads call back; it may have fewer than are wanted."""
    failures: list[BaseException] = []

    def run(_: object) -> None:
        try:
            for number in range(openmp.omp_get_thread_num(), len(cut), openmp.omp_get_num_threads()):
                work(number, cut[number])
        except BaseException as failure:
            failures.append(failure)

    openmp.GOMP_parallel(_Region(run), None, len(cut), 0)
    for failure in failures:
        raise failure


@cache
def _openmp() -> ctypes.CDLL | None:
    """The OpenMP library that torch has loaded, where it has the entry point of GNU's."""
    try:
        library = ctypes.CDLL(None)
        library.GOMP_parallel.argtypes = (_Region, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        library.GOMP_parallel.restype = None
        library.omp_get_thread_num, library.omp_get_num_threads  # noqa: B018 - looked up
    except (AttributeError, OSError, TypeError):
        return None
    return library


@cache
def _pool(process: int, count: int) -> ThreadPoolExecutor:
    """Of one process: threads do not come along when it forks."""
    return ThreadPoolExecutor(count - 1, thread_name_prefix="compressnet")
