"""How fast symbols become bits and come back on one core, and how long a ResNet-50 file takes to export and to load.

python tests/benchmarks/coding.py --repeats 9
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import compressnet
from compressnet.coding.entropy import decode_range, encode_range
from compressnet.coding.models import fitting

SYMBOLS = 8_000_000
SPREADS = (0.5, 2.0, 8.0, 40.0)
LOAD = "import sys, time, torch, compressnet.checkpoint as c; torch.set_num_threads(1); s = time.perf_counter(); \
c.load(sys.argv[1]); print(time.perf_counter() - s)"


def symbols_a_second(repeats: int) -> None:
    """Of normal symbols of several spreads; beside them a copy of the bytes, which says how busy the machine is."""
    columns = ["spread", "kinds", "entropy, bits", "bits written", "encode, M/s", "decode, M/s", "copy, M/s"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for spread in SPREADS:
        values = np.round(np.random.default_rng(0).normal(0, spread, SYMBOLS)).astype(np.int32)
        places = values - values.min()
        counts = np.bincount(places)
        weights = fitting(int(values.min()), counts).weights()
        times: dict[str, list[float]] = {"encode": [], "decode": [], "copy": []}
        for _ in range(repeats):
            times["encode"].append(_seconds(partial(encode_range, places, weights)))
            stream = encode_range(places, weights)
            times["decode"].append(_seconds(partial(decode_range, stream, weights, SYMBOLS)))
            times["copy"].append(_seconds(places.copy))
        shares = counts[counts > 0] / SYMBOLS
        entropy, written = -(shares * np.log2(shares)).sum(), 8 * len(stream) / SYMBOLS
        rates = [f"{SYMBOLS / statistics.median(each) / 1e6:.0f}" for each in times.values()]
        print(f"| {spread} | {len(counts)} | {entropy:.4f} | {written:.4f} | {' | '.join(rates)} |")


def resnet50(repeats: int) -> None:
    """Export at 5 bits and load, each in a process or call of its own."""
    recipe = {"model": {"name": "resnet50"}, "layers": []}
    with tempfile.TemporaryDirectory() as folder:
        dense, coded = Path(folder, "dense.safetensors"), Path(folder, "coded.safetensors")
        compressnet.convert(recipe, dense)
        exports = [
            _seconds(partial(compressnet.export, dense, coded, force=True, overrides=["export.bits=5"]))
            for _ in range(max(1, repeats // 3))
        ]
        loads = {
            path: [float(subprocess.check_output([sys.executable, "-c", LOAD, str(path)])) for _ in range(repeats)]
            for path in (dense, coded)
        }
        print(f"ResNet-50 at 5 bits: {coded.stat().st_size:,} bytes of {dense.stat().st_size:,}")
        print(f"export {statistics.median(exports):.1f} s; load {statistics.median(loads[coded]):.2f} s, ", end="")
        print(f"of the dense file {statistics.median(loads[dense]):.2f} s")


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    symbols_a_second(repeats)
    resnet50(repeats)
