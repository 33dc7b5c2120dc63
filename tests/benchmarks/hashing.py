"""What balanced hashing is for: no bucket is left unread, and caches hold what a tile reads.

    python -m tests.benchmarks.hashing

Needs 2.5 GB of memory. How long making the indices takes is in ``tests.benchmarks.speed``.
"""

import math
import os
from collections.abc import Iterator

import numpy as np
import torch

from compressnet.maths.hashing import Hashing
from compressnet.maths.indices import bucket_indices, signed_indices
from tests.benchmarks.accuracy import Row, markdown
from tests.benchmarks.speed.measure import Thunk, Times, interleaved, shown

MODES: tuple[Hashing, ...] = ("independent", "balanced")


def unread() -> Iterator[Row]:
    """The share of buckets that no position reads, of 2²⁰ positions; at N/K positions a bucket."""
    numel = 1 << 20
    for ratio in (1, 2, 4, 16):
        buckets = numel // ratio
        reads = {m: np.bincount(bucket_indices(numel, buckets, 1, hashing=m), minlength=buckets) for m in MODES}
        yield {"rate": f"1/{ratio}" if ratio > 1 else "1", "e^(−N/K)": f"{math.exp(-ratio):.6%}"} | {
            f"{mode}: {what}": value
            for mode, counts in reads.items()
            for what, value in (
                ("unread", f"{(counts == 0).mean():.6%}"),
                ("reads", f"{counts.min()} to {counts.max()}"),
            )
        }


def cache() -> Iterator[Row]:
    """VGG16's first fully connected layer, 25,088 × 4,096 weights at 1/16: one pass over all positions."""
    numel, buckets = 25_088 * 4_096, 25_088 * 4_096 // 16
    values, dense, out = torch.randn(buckets), torch.randn(numel), torch.empty(numel)
    sums = torch.zeros(buckets)
    runs: dict[str, Thunk] = {"copy": lambda: out.copy_(dense)}
    for mode in MODES:
        indices = signed_indices(numel, buckets, 1, hashing=mode) >> 1
        runs[f"gather {mode}"] = lambda i=indices: torch.index_select(values, 0, i, out=out)  # type: ignore[misc]
        runs[f"scatter {mode}"] = lambda i=indices: sums.zero_().index_add_(0, i, dense)  # type: ignore[misc]
    times = interleaved(runs, 7)
    for what in ("gather", "scatter"):
        yield {"what": what} | {mode: taken(times[f"{what} {mode}"]) for mode in MODES}
    yield {"what": "copy"} | {mode: taken(times["copy"]) for mode in MODES}


def taken(times: Times) -> str:
    """Time and noise."""
    return f"{shown(times.median, 's')} (±{times.spread:.0%})"


if __name__ == "__main__":
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} CPU cores")
    for part in (unread, cache):
        print(f"\n## {part.__name__}\n\n{part.__doc__}\n\n{markdown(list(part()))}", flush=True)
