"""What compressed layers cost on a CUDA device, within ten minutes of one.

Times are of calls one behind the other, until the device has done them all. Kernels are short there, and what Python
takes to start them counts; rows that say ``graph`` replay them by a CUDA graph, which takes next to nothing.

Bandwidth is that of a copy within the device, measured in the same run. A roofline row says how many bytes have to be
moved, if each is moved once and what is shared stays in the cache, per second that it takes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import compressnet
from compressnet.data.layout import channels_last
from compressnet.hashed import HashedWeight, recomputing
from compressnet.layers import CompressedLinear
from compressnet.maths import cuda
from compressnet.maths.assignment import Assignment
from compressnet.maths.sharing import expand
from compressnet.maths.spreading import read, spread
from compressnet.training.precision import float32_products
from tests.benchmarks.speed import measure
from tests.benchmarks.speed.measure import Row, Thunk, Times, cost, limit, speedup
from tests.benchmarks.speed.products import forward_and_backward, layers

RATIO = 16
THREE = (0, 1, 2, 1, 2, 3, 2, 3, 4)


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Args:
        weights: of plain hashing.
        kernels: 3×3, of a convolution.
        widths: of Fastfood.
        batches: of Fastfood.
        images: a training step.
        side: of an image, pixels.
        copied: bytes, to measure bandwidth.
        repetitions: at least.
        seconds: at least.
        calls: in a repetition, of what is short.
    """

    weights: tuple[int, ...] = (1_000_000, 16_777_216, 102_760_448)
    kernels: int = 512 * 512
    widths: tuple[int, ...] = (4096, 16_384)
    batches: tuple[int, ...] = (1, 64, 256, 4096)
    images: int = 256
    side: int = 224
    copied: int = 1 << 30
    repetitions: int = 15
    seconds: float = 1.0
    calls: int = 10


TINY = Scale((5000,), 64, (256,), (1, 4), 2, 64, 1 << 20, 2, 0.0, 1)
scale, device = Scale(), torch.device("cuda")


def prepare(wanted: torch.device, tiny: bool) -> None:
    """Choose a device, and how much is measured on it."""
    global scale, device
    device, scale = wanted, TINY if tiny else Scale()
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
        if not tiny and torch.cuda.get_device_properties(device).total_memory < 40e9:
            scale = replace(scale, images=64)
        print(f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}")
    kernels = cuda.runs(Assignment(1, (0,), (1,), 0), device)
    print(f"kernels by Triton: {'yes' if kernels else 'no, indices come from the CPU'}")


def timed(competitors: dict[str, Thunk], calls: int | None = None) -> dict[str, Times]:
    """Competitors take turns on the device."""
    wait: Thunk = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    return measure.interleaved(competitors, scale.repetitions, scale.seconds, calls or scale.calls, wait)


@cache
def bandwidth() -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.ones(scale.copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * scale.copied / timed({"copy": lambda: target.copy_(source)})["copy"].median


def roofline(what: str, nbytes: float, times: Times) -> Row:
    """What of the bandwidth is reached."""
    rate = nbytes / times.median
    note = f"{rate / bandwidth():.0%} of a copy's {bandwidth() / 1e9:.4g} GB/s"
    return limit(f"{what}, roofline", rate / 1e9, None, times.spread, "GB/s", note)


def assignments() -> dict[str, Assignment]:
    """Weights whose positions are hashed."""
    found = {f"hashednet {count:,}": Assignment(count, (0,), (count // RATIO,), 1) for count in scale.weights}
    independent = Assignment(max(scale.weights), (0,), (max(scale.weights) // RATIO,), 1, "independent")
    found[f"hashednet {independent.numel:,}, independent"] = independent
    counts = tuple(scale.kernels * THREE.count(band) // RATIO for band in range(5))
    return found | {f"freshnet 3×3 {9 * scale.kernels:,}": Assignment(scale.kernels, THREE, counts, 1)}


def measure_cuda_indices() -> Iterator[Row]:
    """Indices made on the device against indices made on the host and copied; they are the same bits."""
    for what, assignment in assignments().items():
        different = int((read(assignment, device).cpu() != assignment.signed_indices()).sum())
        yield limit(f"{what}, indices that differ", different, 0, unit="")
        there: Thunk = lambda a=assignment: read(a, device)  # type: ignore[misc]  # noqa: E731
        here: Thunk = lambda a=assignment: a.signed_indices().to(device)  # type: ignore[misc]  # noqa: E731
        times = timed({"ours": there, "other": here}, calls=1)
        yield speedup(what, times, None)
        yield roofline(what, 4 * assignment.numel, times["ours"])


def measure_cuda_weights() -> Iterator[Row]:
    """Values at their positions: made without indices, gathered by kept ones, and a copy of what is made; gradients."""
    for what, assignment in assignments().items():
        indices = read(assignment, device)
        values = torch.randn(sum(assignment.buckets), device=device, requires_grad=True)
        dense, upstream = torch.randn(2, assignment.numel, device=device)
        with torch.no_grad():
            made = timed(
                {
                    "fused": lambda: spread(values, assignment),  # noqa: B023
                    "kept": lambda: expand(values, indices),  # noqa: B023
                    "copy": lambda: dense.copy_(upstream),  # noqa: B023
                }
            )
        yield from beside(f"{what}, made", made, assignment.numel)
        both = timed(
            {
                "fused": lambda: torch.autograd.grad(spread(values, assignment), values, upstream),  # noqa: B023
                "kept": lambda: torch.autograd.grad(expand(values, indices), values, upstream),  # noqa: B023
                "copy": lambda: dense.copy_(upstream).copy_(upstream),  # noqa: B023
            }
        )
        yield from beside(f"{what}, with gradients", both, 2 * assignment.numel)


def beside(what: str, times: dict[str, Times], numbers: int) -> Iterator[Row]:
    """Fused and kept against each other and against a copy; so many numbers have to be written or read."""
    yield cost(f"{what}: fused against kept", {"ours": times["fused"], "other": times["kept"]}, None)
    for way, nbytes in (("fused", 4), ("kept", 8)):
        yield cost(f"{what}: {way} against a copy", {"ours": times[way], "other": times["copy"]}, None)
        yield roofline(f"{what}: {way}", nbytes * numbers, times[way])


def measure_cuda_blocks() -> Iterator[Row]:
    """Positions of one program: values at their positions, made without indices."""
    assignment, usual = max(assignments().values(), key=lambda each: each.numel), cuda.BLOCK
    values = torch.randn(sum(assignment.buckets), device=device)
    for block in (256, 512, 1024, 2048, 4096):
        cuda.BLOCK = block
        times = timed({"ours": lambda: spread(values, assignment)})["ours"]
        note = "as it is" if block == usual else ""
        yield limit(f"{block} of {assignment.numel:,}", times.median, None, times.spread, note=note)
    cuda.BLOCK = usual


def measure_cuda_fastfood() -> Iterator[Row]:
    """Adaptive Fastfood in bfloat16 against cuBLAS's ``nn.Linear`` in bfloat16."""
    for width in scale.widths:
        competitors = {
            name: layer.to(device, torch.bfloat16) for name, layer in layers(width, width, "deepfried").items()
        }
        for batch in scale.batches:
            x, what = torch.randn(batch, width, device=device, dtype=torch.bfloat16), f"{width}, batch {batch}"
            with torch.no_grad():
                runs = {name: partial(layer, x) for name, layer in competitors.items()}
                yield speedup(f"{what}, forward", timed(runs), None)
                if device.type == "cuda":
                    graphs = {name: graph(run) for name, run in runs.items()}
                    yield speedup(f"{what}, forward, graph", timed(graphs), None)
            both = {name: forward_and_backward(layer, x) for name, layer in competitors.items()}
            yield speedup(f"{what}, with backward", timed(both), None)


def graph(run: Callable[[], Tensor]) -> Thunk:
    """The same, started at once."""
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream(device).wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        run()
    return captured.replay


def resnet50(way: str) -> nn.Module:
    """Dense, or all layers by FreshNet with indices kept or recomputed, in the layout of the images."""
    model = torchvision.models.resnet50()
    if way != "dense":
        model = compressnet.compress(model, {"layers": [{"match": "*", "method": "freshnet", "ratio": RATIO}]})
    model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    for weight in hashed(model):
        weight.recompute_(way == "recompute")
    return model


def hashed(model: nn.Module) -> list[HashedWeight]:
    """The weights that a hash shares out."""
    return [module for module in model.modules() if isinstance(module, HashedWeight)]


def stepper(model: nn.Module) -> Thunk:
    """A training step of random images on the device, in mixed precision."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)
    images = channels_last(torch.randn(scale.images, 3, scale.side, scale.side, device=device))
    labels = torch.randint(1000, (scale.images,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return step


def measure_cuda_resnet50() -> Iterator[Row]:
    """Training images a second, bfloat16 and channels_last: FreshNet at 1/16 against dense."""
    steps = {way: stepper(resnet50(way)) for way in ("dense", "kept", "recompute")}
    with float32_products(fast=True):
        times = timed(steps, calls=max(1, scale.calls // 5))
    rates = {way: f"{scale.images / taken.median:.0f}" for way, taken in times.items()}
    for way in ("kept", "recompute"):
        note = f"{rates[way]} images/s, dense {rates['dense']}"
        pair = {"ours": times[way], "other": times["dense"]}
        yield speedup(f"ResNet-50, batch {scale.images}, {way}", pair, 0.95, note)


def measure_cuda_memory() -> Iterator[Row]:
    """Peak memory of that step, above the dense step's, in dense weights of 4 bytes."""
    if device.type != "cuda":
        return
    weights = sum(parameter.numel() for parameter in torchvision.models.resnet50().parameters())
    peaks = {way: peak(way) / (4 * weights) for way in ("dense", "kept", "recompute")}
    for way, most in (("kept", 1.0), ("recompute", 0.1 + 512 * 512 * 9 / weights)):
        note = f"{peaks[way]:.2f} in all, dense {peaks['dense']:.2f}"
        yield limit(f"ResNet-50, {way}", peaks[way] - peaks["dense"], most, unit="", note=note)


def peak(way: str) -> int:
    """Bytes of the second step, with those of the model."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    step = stepper(resnet50(way))
    step()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def measure_cuda_roofline() -> Iterator[Row]:
    """All dense weights of that model made once; of kept indices, 3×3 kernels are written and read once more."""
    model = resnet50("kept")
    weights = hashed(model)
    numel = sum(weight.shape.numel() for weight in weights)
    transformed = sum(weight.shape.numel() for weight in weights if weight.shape[2:] == (3, 3))
    for way, nbytes in (("kept", 8 * numel + 8 * transformed), ("recompute", 4 * numel)):
        with torch.no_grad(), recomputing(model, way == "recompute"):
            times = timed({way: lambda: [weight.to_dense() for weight in weights]})[way]
        yield limit(f"{len(weights)} layers, {way}", times.median, None, times.spread)
        yield roofline(f"{len(weights)} layers, {way}", nbytes, times)


def measure_cuda_classifier() -> Iterator[Row]:
    """A step of a HashedNet layer of 4096 × 25088 at batch 32, float32 by TF32, against the dense one's."""
    rows, columns = (4096, 25_088) if scale is not TINY else (32, 48)
    dense = layers(rows, columns, "hashednet", ratio=RATIO)
    ours = dense["ours"].to(device)
    assert isinstance(ours, CompressedLinear)
    assert isinstance(ours.structured, HashedWeight)
    nn.init.normal_(ours.structured.buckets, std=0.01)
    x = torch.randn(32, columns, device=device)
    with float32_products(fast=True):
        other = forward_and_backward(dense["other"].to(device), x)
        kept = timed({"ours": forward_and_backward(ours, x), "other": other})
        with recomputing(ours):
            recompute = timed({"ours": forward_and_backward(ours, x), "other": other})
    yield cost("indices kept", kept, None)
    yield cost("indices recomputed", recompute, None)
