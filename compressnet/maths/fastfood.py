"""Fastfood: blocks of diagonals between Walsh–Hadamard transforms, as functions of tensors.

Le, Sarlós, Smola: Fastfood – approximating kernel expansions in loglinear time, ICML 2013, https://arxiv.org/abs/1408.3060

    V = 1 / (σ √d) · S H G Π H B        (H with entries ±1; ours, orthonormal, is 1/√d times that)

One block has d rows, d the inputs padded to a power of two; blocks are stacked until they give enough rows. S is held
only for rows, and B only for columns, that are used. Independent copies of all that may stand side by side.
"""

import math
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from compressnet.maths import compiled
from compressnet.maths.hadamard import COMPILED_FROM, hadamard, next_power_of_two
from compressnet.maths.hadamard import macs as transform_macs
from compressnet.maths.hashing import Purpose, derive, normal, permutation, uniform
from compressnet.maths.parallel import in_parts, parts

_ROWS = 1024  # of a block that are made dense at a time


def layout(rows: int, ins: int) -> tuple[int, int]:
    """The width d of a block and how many are stacked."""
    width = next_power_of_two(ins)
    return width, -(-rows // width)


def macs(rows: int, ins: int) -> int:
    """Multiply–accumulates of one input: three diagonals and two transforms a block, those as dense factors."""
    width, blocks = layout(rows, ins)
    transforms = transform_macs(width, width, ins) + transform_macs(width, min(width, rows), width)
    return blocks * (ins + width + transforms) + rows


def gain(width: int, sigma: float) -> float:
    """√d / σ: the paper's 1 / (σ √d) for a Hadamard matrix of entries ±1/√d."""
    return math.sqrt(width) / sigma


def draw(rows: int, ins: int, seed: int, copies: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """The paper's draw, from the specified hash: B = ±1, G normal, S such that row norms are chi-distributed.

    Returns:
        S of shape (copies, rows), G of shape (copies · blocks, d) and B of shape (copies · blocks, ins), in float64.
    """
    width, blocks = layout(rows, ins)
    gauss = normal(copies * blocks * width, seed, stream=0).view(-1, width)
    signs = (uniform(copies * blocks * ins, seed, stream=1).view(-1, ins) < 0.5).double()
    # a chi variable of d ≥ 16 degrees is normal with mean √(d − ½) and variance ½, to a per cent
    chi = math.sqrt(width - 0.5) + normal(copies * rows, seed, stream=2).view(copies, rows) * math.sqrt(0.5)
    norms = gauss.norm(dim=1).repeat_interleave(width).view(copies, -1)[:, :rows]
    return chi.clamp(min=0.1) / norms, gauss, 2 * signs - 1


def orders(blocks: int, width: int, seed: int, device: torch.device | str) -> Tensor:
    """Π of each block, as positions among all blocks: int64 of shape (blocks · d,); on ``meta`` the shape alone."""
    order = torch.empty((blocks, width), dtype=torch.int64, device=device)
    if order.device.type != "meta":
        for block in range(blocks):
            part = permutation(width, derive(seed, block), Purpose.ORDER)
            order[block] = torch.from_numpy(part.astype("int64")) + block * width
    return order.view(-1)


def multiply(
    x: Tensor, scale: Tensor, gauss: Tensor, signs: Tensor, order: Tensor, gain: float, bias: Tensor | None = None
) -> Tensor:
    """``gain · S H G Π H B x``, the sum over copies, with orthonormal H.

    Args:
        x: shape (…, ins).
        scale: S, shape (copies, rows).
        gauss: G, shape (copies · blocks, d).
        signs: B, shape (copies · blocks, ins).
        order: Π of each block; see :func:`orders`.
        gain: a number.
        bias: is added; shape (rows,).

    Returns:
        shape (…, rows). On a CPU one loop makes it, and is differentiable once; for the backward pass it keeps nothing
        but what it is given.
    """
    given = (x, scale, gauss, signs) if bias is None else (x, scale, gauss, signs, bias)
    small = gauss.shape[1] < COMPILED_FROM or x.shape[-1] != signs.shape[1]
    if small or not compiled.reads(*given) or compiled.transformed():
        y = (mix(x, gauss, signs, order, scale.shape[1]) * (scale * gain)).sum(-2)
        return y if bias is None else y + bias.to(y.dtype)
    if not torch.is_grad_enabled():
        return _multiplied(x, scale, gauss, signs, order, gain, bias)
    made: Tensor = _Multiply.apply(x, scale, gauss, signs, order, gain, bias)
    return made


def mix(x: Tensor, gauss: Tensor, signs: Tensor, order: Tensor, rows: int) -> Tensor:
    """What S scales, of every copy: ``H G Π H B x``, as operations of torch.

    Args:
        x: shape (…, ins).
        gauss: G.
        signs: B.
        order: Π.
        rows: how many outputs a copy gives.

    Returns:
        shape (…, copies, rows).
    """
    count, width = gauss.shape
    blocks = -(-rows // width)
    mixed = hadamard(x.unsqueeze(-2) * signs, width)
    mixed = mixed.flatten(-2).index_select(-1, order).unflatten(-1, (count, width)) * gauss
    made = hadamard(mixed, width, min(width, rows))
    return made.unflatten(-2, (count // blocks, blocks)).flatten(-2)[..., :rows]


def _multiplied(
    x: Tensor, scale: Tensor, gauss: Tensor, signs: Tensor, order: Tensor, gain: float, bias: Tensor | None
) -> Tensor:
    (copies, rows), (count, width), ins = scale.shape, gauss.shape, signs.shape[1]
    y = torch.empty(*x.shape[:-1], rows, dtype=x.dtype)
    added = torch.zeros(rows, dtype=x.dtype) if bias is None else bias
    tensors = [each.contiguous() for each in (y, x, scale, gauss, signs, order, added)]
    addresses = tuple([each.data_ptr() for each in tensors])
    loop, factor, batch = _loop(), _real(gain / width, x.dtype), x.numel() // ins

    def work(_: int, part: slice) -> None:
        loop(addresses, part.start, part.stop, (rows, ins, copies, count, width), factor)

    in_parts(work, batch, parts(batch * gauss.numel(), x.device))
    return y


# The product of one vector waits longer for Python than for numbers: an import takes a tenth of it.


@cache
def _loop() -> Callable[..., None]:
    from compressnet.maths.compiled.hadamard import fastfood

    return fastfood


@lru_cache(maxsize=256)
def _real(value: float, dtype: torch.dtype) -> np.floating[Any]:
    return np.float32(value) if dtype is torch.float32 else np.float64(value)


class _Multiply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        *tensors, ctx.gain, bias = given
        ctx.biased = bias is not None
        ctx.save_for_backward(*tensors)
        return _multiplied(*given)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        from compressnet.maths.compiled.hadamard import fastfood_backward

        x, scale, gauss, signs, order = ctx.saved_tensors
        above, vectors = _rows(upstream), _rows(x)
        threads = parts(len(vectors) * gauss.numel(), x.device)
        to_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        sums = [each.new_zeros(threads, *each.shape) for each in (scale, gauss, signs)]
        below, of_threads = _rows(to_x), [each.numpy() for each in sums]
        numbers = _numbers(scale, gauss, signs, order)

        def work(thread: int, part: slice) -> None:
            gradients = (below[part], *(each[thread] for each in of_threads))
            fastfood_backward(gradients, above[part], (vectors[part], *numbers), ctx.gain / gauss.shape[1])

        in_parts(work, len(vectors), threads)
        to_bias = upstream.reshape(-1, scale.shape[1]).sum(0) if ctx.biased else None
        return to_x, *(each.sum(0) if threads > 1 else each[0] for each in sums), None, None, to_bias


def _rows(x: Tensor) -> NDArray[Any]:
    """The vectors of the last dimension, as loops read them."""
    return x.detach().reshape(-1, x.shape[-1]).contiguous().numpy()


def _numbers(*tensors: Tensor) -> list[NDArray[Any]]:
    return [each.detach().contiguous().numpy() for each in tensors]


def dense(gauss: Tensor, signs: Tensor, order: Tensor, rows: int) -> Tensor:
    """The matrix of :func:`mix`, of shape (copies, rows, ins): row m of a block is B H Πᵀ G on row m of H."""
    width = gauss.shape[1]
    places = order.view_as(gauss) % width
    identity = torch.eye(min(width, rows), dtype=gauss.dtype, device=gauss.device)
    made = []
    for units in identity.split(_ROWS):
        mixed = hadamard(units, width)[:, None] * gauss
        mixed = torch.zeros_like(mixed).scatter(-1, places.expand_as(mixed), mixed)
        made.append(hadamard(mixed, width, signs.shape[1]) * signs)
    blocks = -(-rows // width)
    return torch.cat(made).unflatten(1, (-1, blocks)).permute(1, 2, 0, 3).flatten(1, 2)[:, :rows]
