"""Structured products against what they stand for."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from compressnet.maths.hadamard import hadamard
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
    """One forward and one backward pass, with a gradient for the input."""
    x = x.clone().requires_grad_()
    upstream = torch.randn_like(run(x))

    def both() -> None:
        x.grad = None
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
