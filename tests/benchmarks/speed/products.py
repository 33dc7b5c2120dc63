"""Structured products against what they stand for."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from compressnet.layers import CompressedLinear
from compressnet.maths.hadamard import hadamard
from compressnet.methods import BY_NAME
from tests.benchmarks.speed.measure import Row, interleaved, speedup


def butterfly(x: Tensor) -> Tensor:
    """The textbook transform: log₂ n passes of sums and differences, then 1/√n."""
    n, half = x.shape[-1], 1
    while half < n:
        pairs = x.unflatten(-1, (n // (2 * half), 2, half))
        even, odd = pairs.unbind(-2)
        x = torch.stack((even + odd, even - odd), dim=-2).flatten(-3)
        half *= 2
    return x / n**0.5


def forward_and_backward(run: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """One forward and one backward pass, with gradients for the input and, of a module, for its parameters."""
    x = x.clone().requires_grad_()
    upstream = torch.randn_like(run(x))
    parameters = list(run.parameters()) if isinstance(run, nn.Module) else []

    def both() -> None:
        for tensor in (x, *parameters):
            tensor.grad = None
        run(x).backward(upstream)

    return both


def measure_hadamard() -> Iterator[Row]:
    """The orthonormal Walsh–Hadamard transform against a butterfly of torch additions."""
    for n in (512, 1024, 2048, 4096, 8192, 16_384):
        for batch in (1, 64, 256):
            x, target = torch.randn(batch, n), 3 if batch >= 64 else 1

            def ours(x: Tensor, n: int = n) -> Tensor:
                return hadamard(x, n)

            torch.testing.assert_close(ours(x), butterfly(x), atol=1e-4, rtol=1e-4)
            with torch.no_grad():
                forward = interleaved({"ours": lambda: ours(x), "other": lambda: butterfly(x)})  # noqa: B023
            yield speedup(f"{n}, batch {batch}, forward", forward, target)
            both = {"ours": forward_and_backward(ours, x), "other": forward_and_backward(butterfly, x)}
            yield speedup(f"{n}, batch {batch}, with backward", interleaved(both), target)


def layers(outs: int, ins: int, method: str, **keys: object) -> dict[str, nn.Module]:
    """``nn.Linear``, and the layer that a method puts in its place; of its numbers only how many there are matters."""
    linear, weight = nn.Linear(ins, outs), BY_NAME[method]
    config = weight.Config(**keys)
    return {"ours": CompressedLinear.like(linear, weight((outs, ins), config, seed=1)), "other": linear}


def against_linear(
    outs: int, ins: int, batch: int, method: str, targets: tuple[float, float], note: str = "", **keys: object
) -> Iterator[Row]:
    """Forward without gradients, and forward with backward."""
    competitors, x = layers(outs, ins, method, **keys), torch.randn(batch, ins)
    what = f"{method} {ins}→{outs}, batch {batch}"
    with torch.no_grad():
        forward = interleaved({name: partial(run, x) for name, run in competitors.items()})
    yield speedup(f"{what}, forward", forward, targets[0], note)
    both = interleaved({name: forward_and_backward(run, x) for name, run in competitors.items()})
    yield speedup(f"{what}, with backward", both, targets[1], note)


def measure_fastfood() -> Iterator[Row]:
    """Adaptive Fastfood layers against ``nn.Linear`` of their shape."""
    for ins, targets in (
        (4096, {1: (20, 20), 64: (12, 8), 256: (9, 6)}),
        (9216, {1: (20, 20), 64: (9, 9), 256: (5, 5)}),
    ):
        for batch, asked in targets.items():
            yield from against_linear(4096, ins, batch, "deepfried", asked)


def measure_structured() -> Iterator[Row]:
    """ACDC, Monarch and low-rank layers against ``nn.Linear``: half of what multiply–accumulates promise is asked."""
    for method, keys in (("acdc", {}), ("monarch", {}), ("lowrank", {"ratio": 16})):
        weight = BY_NAME[method]
        promised = 4096 * 4096 / weight.macs_per_input((4096, 4096), weight.Config(**keys))
        for batch in (1, 64, 256):
            half = (promised / 2, promised / 2)
            yield from against_linear(4096, 4096, batch, method, half, f"{promised:.3g}× promised", **keys)
