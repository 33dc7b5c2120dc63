"""Numpy on more than one core: it lets go of the interpreter within each operation on a whole array."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import torch

Piece = TypeVar("Piece")


def on_threads(work: Callable[[Sequence[Piece]], None], pieces: Sequence[Piece]) -> None:
    """Do pieces of work that do not touch each other, on as many threads as torch has.

    Args:
        work: does a run of pieces.
        pieces: in the order of what they write to; each thread gets a run of them.
    """
    threads = min(torch.get_num_threads(), len(pieces))
    if threads < 2:
        work(pieces)
        return
    edges = [len(pieces) * thread // threads for thread in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, (pieces[a:b] for a, b in pairwise(edges))):
            pass
