"""Training steps of compressed models, and their memory, against those of the dense ones.

A step is forward, cross-entropy, backward, and SGD with momentum, in float32. Peak memory is what Linux says of a
process that only builds the model and trains it: that counts what torch, numpy and oneDNN take alike, which torch's
profiler does not. The allocator is told to give back at once what is freed, so that the peak is of what is in use.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import compressnet
from compressnet.hashed import HashedWeight
from compressnet.layers import CompressedLinear
from compressnet.methods.hashednet import HashedNetConfig, HashedNetWeight
from tests.benchmarks.speed import memory
from tests.benchmarks.speed.measure import Row, cost, interleaved, limit
from tests.benchmarks.speed.memory import IN_USE, resident, warm_up

RATIO = 16
WAYS = ("dense", "kept", "recompute")


def resnet18(dense: bool) -> nn.Module:
    """All layers by FreshNet, which of the last one is plain hashing."""
    model = torchvision.models.resnet18()
    return (
        model
        if dense
        else compressnet.compress(model, {"layers": [{"match": "*", "method": "freshnet", "ratio": RATIO}]})
    )


def vgg16_classifier(dense: bool) -> nn.Module:
    """123,633,664 weights, by HashedNet."""
    shapes = [(4096, 25_088), (4096, 4096), (1000, 4096)]
    if dense:
        layers: list[nn.Module] = [nn.Linear(columns, rows) for rows, columns in shapes]
    else:
        weights = [HashedNetWeight(shape, HashedNetConfig(ratio=RATIO), seed) for seed, shape in enumerate(shapes)]
        layers = [CompressedLinear(weight, torch.zeros(weight.shape[0])) for weight in weights]
        for weight in weights:
            nn.init.normal_(weight.buckets, std=0.01)
    first, second, last = layers
    return nn.Sequential(first, nn.ReLU(), nn.Dropout(), second, nn.ReLU(), nn.Dropout(), last)


@dataclass(frozen=True)
class Case:
    """A model and its batch, what its weights come to, and what is asked of its step against the dense one."""

    what: str
    model: Callable[[bool], nn.Module]
    batch: tuple[int, ...]
    weights: int
    largest: int
    most: float

    def step(self, way: str) -> Callable[[], None]:
        """A training step of the dense model, or of the compressed one with indices kept or recomputed."""
        torch.manual_seed(0)
        model = self.model(way == "dense").train()
        for module in model.modules():
            if way == "recompute" and isinstance(module, HashedWeight):
                module.recompute_()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        images, labels = torch.randn(self.batch), torch.randint(1000, self.batch[:1])

        def run() -> None:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()

        return run


CASES = (
    Case("FreshNet ResNet-18, 224 px, batch 32", resnet18, (32, 3, 224, 224), 11_678_912, 2_359_296, 1.02),
    Case("FreshNet ResNet-18, 224 px, batch 8", resnet18, (8, 3, 224, 224), 11_678_912, 2_359_296, 1.05),
    Case("HashedNet VGG16 classifier, batch 32", vgg16_classifier, (32, 25_088), 123_633_664, 102_760_448, 1.4),
)


def measure_step_time() -> Iterator[Row]:
    """A training step, indices kept, against the dense step."""
    for case in CASES:
        times = interleaved({"ours": case.step("kept"), "other": case.step("dense")}, 7, 10)
        yield cost(case.what, times, case.most)


def measure_recompute_time() -> Iterator[Row]:
    """A training step that makes its indices, against one that keeps them."""
    for case in CASES:
        times = interleaved({"ours": case.step("recompute"), "other": case.step("kept")}, 5, 10)
        yield cost(case.what, times, 1.3)


def measure_step_memory() -> Iterator[Row]:
    """Peak memory of a training step above the dense step's, in dense weights; Numba apart."""
    for case in CASES:
        peaks = {way: peak_of(case, way) / (4 * case.weights) for way in WAYS}
        for way, most in (("kept", 1.0), ("recompute", 0.1 + case.largest / case.weights)):
            note = f"{peaks[way]:.2f} in all, dense {peaks['dense']:.2f}"
            yield limit(f"{case.what}, {way}", peaks[way] - peaks["dense"], most, unit="", note=note)
    numba = int(subprocess.run([sys.executable, "-m", memory.__name__], check=True, capture_output=True).stdout)
    yield limit("Numba and compiled loops, once a process", numba / 1e6, None, unit="MB")


def peak_of(case: Case, way: str) -> int:
    """Bytes that a step takes at most, in a process of their own."""
    command = [sys.executable, "-m", __name__, str(CASES.index(case)), way]
    threads = str(torch.get_num_threads())
    environment = os.environ | IN_USE | {"OMP_NUM_THREADS": threads}
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    warm_up()
    chosen, before = CASES[int(sys.argv[1])], resident("VmRSS")
    run = chosen.step(sys.argv[2])
    run()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    run()
    print(resident("VmHWM") - before)
