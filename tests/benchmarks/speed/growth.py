"""What a HashedNet weight of some size costs, in a process of its own.

    python -m tests.benchmarks.speed.growth MILLIONS THREADS

Medians and spreads as JSON. The process is to get its memory from the system whatever the size, as ``IN_USE`` has it:
glibc keeps small arrays, of which each use after the first is cheaper, and a curve over sizes would have a step there.
"""

import json
import sys

import torch
from torch import Tensor

from compressnet.methods.hashednet import HashedNetConfig, HashedNetWeight
from tests.benchmarks.speed.measure import Thunk, interleaved

MILLION = 1_000_000


def costs(millions: int) -> dict[str, tuple[float, float]]:
    """Seconds of each operation, and how they scatter."""
    shape = (millions * 100, MILLION // 100)
    weight = HashedNetWeight(shape, HashedNetConfig(ratio=16), seed=1)
    dense = torch.empty(shape).uniform_()
    runs: dict[str, Thunk] = {
        "hash": lambda: weight.remake_("cpu"),
        "project": lambda: weight.project_(dense),
        "make dense": lambda: undifferentiated(weight),
        "forward and backward": lambda: weight.to_dense().backward(dense),
    }
    return {what: (times.median, times.spread) for what, times in interleaved(runs, 5).items()}


@torch.no_grad()
def undifferentiated(weight: HashedNetWeight) -> Tensor:
    """The dense weight, for inference."""
    return weight.to_dense()


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    print(json.dumps(costs(int(sys.argv[1]))))
