"""The memory of a process, and what it takes once: torch, Numba, their machine code and threads.

    python -m tests.benchmarks.speed.memory

Prints the bytes that Numba and the compiled loops take of a process that has imported torch and compressnet.
"""

import ctypes
import gc
from pathlib import Path
from typing import Any

import torch
from torch import nn

import compressnet

IN_USE = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Environment of a process whose peak memory is of what is in use: glibc gives back at once what is freed."""

RULES: list[dict[str, Any]] = [
    {"match": {"type": "conv2d"}, "method": "freshnet", "ratio": 16},
    {"match": "2", "method": "hashednet", "ratio": 8},
]


def resident(key: str) -> int:
    """Bytes of this process's memory: ``VmRSS``, now, or ``VmHWM``, the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def warm_up() -> None:
    """Imports, compiled loops and threads; what this takes besides is given back."""
    small = nn.Sequential(nn.Conv2d(128, 256, 3), nn.Flatten(), nn.Linear(256, 1024))
    compressed = compressnet.compress(small, {"layers": RULES}).train()
    compressed(torch.randn(1, 128, 3, 3)).sum().backward()
    del small, compressed
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    compressnet.compress(nn.Sequential(nn.Conv2d(4, 8, 3)), {"layers": RULES[:1]})  # what is imported late
    before = resident("VmRSS")
    warm_up()
    print(resident("VmRSS") - before)
