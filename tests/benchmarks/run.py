"""Timings and balance of the parts that everything rests on, as markdown tables.

    python tests/benchmarks/run.py [unread] [cache] [--json FILE]

All parts by default. Competitors take turns, repetition by repetition, so that a noisy machine disturbs all of them
alike; a time is the median, and the noise the median's relative distance from the 25th to the 75th percentile.
``cache`` needs 2.5 GB of memory.
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch

from compressnet.maths.hashing import Hashing
from compressnet.maths.indices import bucket_indices

Row = dict[str, str | int | float]
MODES: tuple[Hashing, ...] = ("independent", "balanced")


def interleaved(competitors: dict[str, Callable[[], object]], repetitions: int = 15) -> dict[str, tuple[float, float]]:
    """Median milliseconds of each competitor, and their relative interquartile distance; one warm-up round.

    There are at least so many repetitions, and more for one second.
    """
    times: dict[str, list[float]] = {name: [] for name in competitors}
    begin, rounds = time.perf_counter(), 0
    while rounds <= repetitions or time.perf_counter() - begin < 1:
        for name, run in competitors.items():
            start = time.perf_counter()
            run()
            if rounds:
                times[name].append(1000 * (time.perf_counter() - start))
        rounds += 1
    quartiles = {name: statistics.quantiles(taken, n=4) for name, taken in times.items()}
    return {name: (middle, (high - low) / middle) for name, (low, middle, high) in quartiles.items()}


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
    """VGG16's first fully connected layer, 25,088 × 4,096 weights at 1/16: seconds for one pass over all positions."""
    numel, buckets = 25_088 * 4_096, 25_088 * 4_096 // 16
    values, dense, out = torch.randn(buckets), torch.randn(numel), torch.empty(numel)
    sums = torch.zeros(buckets)
    competitors: dict[str, Callable[[], object]] = {"copy": lambda: out.copy_(dense)}
    making = interleaved({m: lambda m=m: bucket_indices(numel, buckets, 1, hashing=m) for m in MODES}, 3)  # type: ignore[misc]
    for mode in MODES:
        indices = torch.from_numpy(bucket_indices(numel, buckets, 1, hashing=mode).view(np.int32))
        competitors[f"gather {mode}"] = lambda i=indices: torch.index_select(values, 0, i, out=out)  # type: ignore[misc]
        competitors[f"scatter {mode}"] = lambda i=indices: sums.zero_().index_add_(0, i, dense)  # type: ignore[misc]
    times = interleaved(competitors, 7)
    yield {"what": "copy", "seconds": seconds(times["copy"])}
    for what in ("gather", "scatter"):
        yield {"what": what} | {mode: seconds(times[f"{what} {mode}"]) for mode in MODES}
    yield {"what": "making the indices"} | {mode: seconds(making[mode]) for mode in MODES}


def seconds(taken: tuple[float, float]) -> str:
    """Time and noise."""
    return f"{taken[0] / 1000:.3f} (±{taken[1] / 2:.0%})"


PARTS = {"unread": unread, "cache": cache}


def markdown(rows: list[Row]) -> str:
    """A table whose columns are the keys of all rows, in the order they first appear."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns)] + [[str(row.get(column, "")) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=cast(str, __doc__).splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="|".join(PARTS), help="all by default")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} CPU cores")
    results = {}
    for part in arguments.parts or PARTS:
        rows = list(PARTS[part]())
        results[part] = rows
        print(f"\n## {part}\n\n{cast(str, PARTS[part].__doc__).strip()}\n\n{markdown(rows)}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
