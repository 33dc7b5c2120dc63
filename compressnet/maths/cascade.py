"""Cascades of diagonals and cosine filters, by compiled loops: of widths that are powers of two, on the CPU."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from compressnet.maths import compiled, fourier
from compressnet.maths.compiled import LANES, LIKE
from compressnet.maths.parallel import in_parts, parts

LEAST = 512
"""The smallest width: a vector alone has rows and columns of sixteen complex numbers."""
ALONE = 6
"""Vectors up to so many go one by one."""


def runs(x: Tensor, spatial: Tensor, spectral: Tensor, bias: Tensor | None) -> bool:
    """Whether a compiled loop takes vectors of the last dimension of x through a cascade."""
    width = spectral.shape[1]
    return (
        width >= LEAST
        and width & (width - 1) == 0
        and x.numel() > 0
        and not compiled.transformed()
        and (compiled.reads(x, spatial, spectral) if bias is None else compiled.reads(x, spatial, spectral, bias))
    )


class Routes(NamedTuple):
    """Of numbers through a cascade; the order of :func:`compressnet.maths.dct.even_then_odd` has slots.

    Args:
        slots: of each number, shape (width,), int32.
        order: which number has each slot, likewise.
        between: the slot that each slot reads before each filter but the first, shape (depth − 1, width), likewise.
    """

    slots: Tensor
    order: Tensor
    between: Tensor


def multiply(
    x: Tensor, spatial: Tensor, spectral: Tensor, routes: Routes, rows: int, bias: Tensor | None = None
) -> Tensor:
    """``x A₁ C D₁ C⁻¹ · P₁ · A₂ C D₂ C⁻¹ · P₂ ⋯ + bias``, differentiable once.

    Args:
        x: shape (…, columns).
        spatial: the diagonals A, the first of x alone, shape (columns + (depth − 1) · width,).
        spectral: the diagonals D, shape (depth, width).
        routes: the permutations P, of numbers in the order of filters.
        rows: of the result.
        bias: shape (rows,).

    Returns:
        shape (…, rows).
    """
    if not torch.is_grad_enabled():
        return _multiplied(x, spatial, spectral, bias, routes, rows)
    made: Tensor = _Multiply.apply(x, spatial, spectral, bias, routes, rows)
    return made


def _multiplied(x: Tensor, spatial: Tensor, spectral: Tensor, bias: Tensor | None, routes: Routes, rows: int) -> Tensor:
    (depth, width), columns = spectral.shape, x.shape[-1]
    batch = x.numel() // columns
    whole, alone, threads = _cut(batch, spectral)
    given = x if whole == batch else _padded(x, whole)
    y = torch.empty(*x.shape[:-1], rows, dtype=x.dtype) if whole == batch else x.new_empty(whole, rows)
    added = torch.zeros(rows, dtype=x.dtype) if bias is None else bias
    tensors = [each.contiguous() for each in (y, given, added, spatial, spectral, *routes)]
    addresses, (loop, _), made = tuple([each.data_ptr() for each in tensors]), _loops(), tables(width, x.dtype, alone)

    def work(_: int, part: slice) -> None:
        space = _space(width * (1 if alone else LANES), x.dtype)
        loop(addresses, (rows, columns, depth), LIKE[x.dtype], made, space, (part.start, part.stop), alone)
        _spare.append(space)

    in_parts(work, whole, threads, 1 if alone else LANES)
    return y if whole == batch else y[:batch].view(*x.shape[:-1], rows)


def _cut(batch: int, spectral: Tensor) -> tuple[int, bool, int]:
    """How many vectors are computed, some of them zeros; whether they go alone; and threads for them."""
    alone = batch <= ALONE
    whole = batch if alone else batch + -batch % LANES
    groups = whole if alone else whole // LANES
    return whole, alone, min(groups, parts(whole * spectral.numel(), spectral.device))


def _padded(x: Tensor, rows: int) -> Tensor:
    """The vectors, and zeros behind them."""
    vectors = x.reshape(-1, x.shape[-1])
    return F.pad(vectors, (0, 0, 0, rows - len(vectors)))


_spare: list[NDArray[Any]] = []
"""Memory that loops have worked in, a piece for each thread: to ask the system takes as long as to use it."""


def _space(size: int, dtype: torch.dtype) -> NDArray[Any]:
    kind = type(LIKE[dtype])
    with suppress(IndexError):
        space = _spare.pop()
        if space.shape == (2, size) and space.dtype == kind:
            return space
    return np.empty((2, size), kind)


class _Multiply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        x, spatial, spectral, bias, ctx.routes, _ = given
        ctx.biased = bias is not None
        ctx.save_for_backward(x, spatial, spectral)
        return _multiplied(*given)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, spatial, spectral = ctx.saved_tensors
        batch, rows = x.numel() // x.shape[-1], upstream.shape[-1]
        whole, alone, threads = _cut(batch, spectral)
        given, above = (_padded(each, whole) for each in (x, upstream))
        to_x = torch.empty_like(given, memory_format=torch.contiguous_format)
        (_, loop), made = _loops(), tables(spectral.shape[1], x.dtype, alone)
        sums = [each.new_zeros(threads, *each.shape) for each in (spatial, spectral)]
        (to_spatial, to_spectral), below = _arrays(*sums), to_x.numpy()
        arrays, routes = _arrays(above, given, spatial, spectral), _arrays(*ctx.routes)

        def work(thread: int, part: slice) -> None:
            gradients = below, to_spatial[thread], to_spectral[thread]
            loop(gradients, *arrays, routes, made, (part.start, part.stop), alone)

        in_parts(work, whole, threads, 1 if alone else LANES)
        to_bias = upstream.reshape(-1, rows).sum(0) if ctx.biased else None
        of_diagonals = [each.sum(0) if threads > 1 else each[0] for each in sums]
        return to_x[:batch].view(x.shape), *of_diagonals, to_bias, None, None


def _arrays(*tensors: Tensor) -> tuple[NDArray[Any], ...]:
    return tuple([each.detach().contiguous().numpy() for each in tensors])


@lru_cache(maxsize=8)
def tables(width: int, dtype: torch.dtype, alone: bool) -> tuple[Any, ...]:
    """What the compiled loops read, for vectors alone or side by side.

    Returns:
        addresses of frequencies, shape (n,) of n = width / 2 complex numbers; by what frequencies turn between the
        transforms, shape (n / 2 + 1, 4), flat; twiddles for n, n / 16 and 16 numbers; phases of columns; and the same
        by rows of sixteen: see :func:`_by_rows`.
    """
    n, real = width // 2, torch.empty(0, dtype=dtype).numpy().dtype
    addresses = fourier.addresses_alone(n) if alone else fourier.addresses(n)
    twiddles = tuple([fourier.twiddles(size).astype(real) for size in (n, n // LANES, LANES)])
    return (
        addresses.astype(np.int32),
        _turns(np.arange(n // 2 + 1), width).astype(real).ravel(),
        twiddles,
        fourier.phases(n).astype(real).ravel(),
        _by_rows(n, real),
    )


def _turns(k: NDArray[Any], width: int) -> NDArray[np.float64]:
    """Of frequencies: what the order of a filter's numbers shifts them by, and that and what odd numbers are late."""
    return np.concatenate((fourier.turns(k / (4 * width)), fourier.turns(k / (4 * width) + k / width)), -1)


def _by_rows(n: int, real: Any) -> tuple[NDArray[Any], ...]:
    """Where a vector alone has frequencies.

    Returns:
        which row has the frequencies n − k of those k of a row, from its end, or 0 where none has; frequencies by rows;
        their turns, each component of a row by itself; and the frequencies that go pair by pair, up to n / 2.
    """
    k, addresses = np.arange(n), fourier.addresses_alone(n)
    rows, lanes = addresses // (2 * LANES), addresses % (2 * LANES)
    frequencies, others = np.empty((n // LANES, LANES), np.int32), np.empty(n // LANES, np.int32)
    frequencies[rows, lanes] = k
    others[rows] = rows[(n - k) % n]
    alone = np.any(frequencies[others, ::-1] != n - frequencies, axis=1)
    others[alone] = 0
    turns = _turns(frequencies, 2 * n).transpose(0, 2, 1)
    return others, frequencies.ravel(), turns.astype(real).ravel(), k[alone[rows] & (k <= n // 2)]


@cache
def _loops() -> tuple[Callable[..., None], Callable[..., None]]:
    from compressnet.maths.compiled.cosine import cascade, cascade_back

    return cascade, cascade_back
