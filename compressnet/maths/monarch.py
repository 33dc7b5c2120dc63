"""Vectors through the two factors of a Monarch matrix.

y[s, o, j] = Σ_k left[o, j, k] · Σ_i right[j, k, i] · x[s, k, i] + bias[o, j]
"""

from functools import cache, partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from compressnet.maths import compiled
from compressnet.maths.cache import in_cache
from compressnet.maths.compiled import LANES, LIKE
from compressnet.maths.parallel import in_parts, parts

_ROOM = 1 << 21  # numbers between the factors that are made at a time


def multiply(x: Tensor, right: Tensor, left: Tensor, bias: Tensor | None = None) -> Tensor:
    """Each vector of a batch through both factors, by compiled loops where they can, and else by products of torch.

    Args:
        x: shape (batch, b · ins).
        right: shape (b, b, ins): group j, block k, input i.
        left: shape (outs, b, b): output o, group j, block k.
        bias: is added; shape (outs · b,).

    Returns:
        shape (batch, outs · b), any number of times differentiable. For the backward pass, loops keep nothing but what
        they are given.
    """
    if not runs(x, right, left, bias):
        y = in_cache(partial(product, right=right, left=left), x, len(right) * max(len(left), right.shape[2]))
        return y if bias is None else y + bias.to(y.dtype)
    if not torch.is_grad_enabled():
        return _through(x, right, left, bias)
    made: Tensor = _Through.apply(x, right, left, bias)
    return made


def runs(x: Tensor, right: Tensor, left: Tensor, bias: Tensor | None) -> bool:
    """Whether loops take x through the factors: j and i fill registers, and derivatives are of the backward pass."""
    given = (x, right, left) if bias is None else (x, right, left, bias)
    return (
        min(right.shape) >= LANES
        and compiled.takes(right.numel() + left.numel(), *given)
        and not compiled.transformed()
    )


def product(x: Tensor, right: Tensor, left: Tensor) -> Tensor:
    """By operations of torch. In between samples come last: factors are read as they stand."""
    blocks, ins = right.shape[1:]
    if len(x) == 1:  # each number is read once: in the order in which it stands
        return (left * (right * x.view(blocks, ins)).sum(-1)).sum(-1).view(1, -1)
    mixed = right.transpose(0, 1) @ x.T.contiguous().view(blocks, ins, len(x))
    y = left.transpose(0, 1) @ mixed.transpose(0, 1)
    return y.transpose(0, 1).flatten(0, 1).T.contiguous()


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, right: Tensor, left: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, right, left)
        return _through(x, right, left, bias)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        *wanted, biased = ctx.needs_input_grad
        make = _differentiable if torch.is_grad_enabled() else _gradients
        made = make(upstream, ctx.saved_tensors, wanted) if any(wanted) else (None, None, None)
        return *made, upstream.sum(0) if biased else None


def _differentiable(upstream: Tensor, given: tuple[Tensor, ...], wanted: list[bool]) -> tuple[Tensor | None, ...]:
    """Gradients of which derivatives are wanted: torch's."""
    of = [each for each, want in zip(given, wanted, strict=True) if want]
    made = iter(torch.autograd.grad(product(*given), of, upstream, create_graph=True))
    return tuple([next(made) if want else None for want in wanted])


def _through(x: Tensor, right: Tensor, left: Tensor, bias: Tensor | None) -> Tensor:
    batch, b, outs, like = len(x), len(right), len(left), LIKE[x.dtype]
    y = x.new_empty(batch, outs * b)
    added = x.new_zeros(outs * b) if bias is None else bias.contiguous()
    x, right, left, sizes = x.contiguous(), right.contiguous(), left.contiguous(), _sizes(right, left, b)
    threads = max(1, min(_threads(batch, right, left), batch // 4))
    chunk = _chunk(-(-batch // threads), b, sizes)
    groups = -(-b // LANES)
    needed = groups * chunk * sizes[3], _loops().FEW * sizes[1] * groups * LANES, outs * b * LANES
    rooms = [[x.new_empty(size) for size in needed] for _ in range(threads)]
    given = _addresses(right, left, x, y, added)

    def work(thread: int, part: slice) -> None:
        addresses = (*given, *_addresses(*rooms[thread]))
        _loops().through(addresses, part.start, part.stop, chunk, sizes, like)

    in_parts(work, batch, threads)
    return y


def _gradients(upstream: Tensor, given: tuple[Tensor, ...], wanted: list[bool]) -> tuple[Tensor | None, ...]:
    """Those of x, right and left that are wanted: each thread makes what belongs to some k."""
    (x, right, left), (of_x, of_right, of_left) = given, wanted
    batch, b, like = len(x), len(right), LIKE[x.dtype]
    rights, lefts = _turned(right, left)
    x, right, upstream = x.contiguous(), right.contiguous(), upstream.contiguous()
    to_x = torch.empty_like(x) if of_x else None
    sums = [torch.zeros_like(rights) if of_right else None, torch.zeros_like(lefts) if of_left else None]
    threads = min(_threads(batch, right, left), b // 4)
    sizes = _sizes(right, left, -(-b // threads))
    chunk = _chunk(batch, b, sizes)
    middle = -(-b // LANES) * chunk * sizes[3]
    rooms = x.new_empty(threads, middle + _loops().NEAR * sizes[4])
    numbers, gradients = _addresses(rights, lefts, x, upstream, right), _addresses(to_x, *sums)

    def work(thread: int, part: slice) -> None:
        addresses = (*numbers, *_addresses(rooms[thread], rooms[thread, middle:]), *gradients)
        _loops().backward(addresses, part.start, part.stop, batch, chunk, sizes, like)

    in_parts(work, b, threads)
    made = [x.new_empty(right.shape) if of_right else None, x.new_empty(left.shape) if of_left else None]
    _turn(_addresses(*sums, *made), right, left, back=True)
    return to_x, *made


def _turned(right: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """The factors in the order in which loops read them."""
    right, left, lanes = right.contiguous(), left.contiguous(), -(-len(right) // LANES) * LANES
    rights, lefts = (each.new_empty(each.numel() // len(right) * lanes) for each in (right, left))
    _turn(_addresses(rights, lefts, right, left), right, left)
    return rights, lefts


def _turn(addresses: tuple[int, ...], right: Tensor, left: Tensor, back: bool = False) -> None:
    """A number that changes its place is a quarter of a position: memory is what it waits for."""
    sizes, like = _sizes(right, left, 0), LIKE[right.dtype]

    def work(_: int, part: slice) -> None:
        _loops().turn(addresses, part.start, part.stop, back, sizes, like)

    in_parts(work, len(right) + len(left), parts((right.numel() + left.numel()) // 4, right.device))


def _sizes(right: Tensor, left: Tensor, ks: int) -> tuple[int, int, int, int, int]:
    """What loops ask for, of so many k at a time: rows are an odd multiple of four registers."""
    outs = len(left)
    pitch, high = ((count + 3) // 8 * 8 + 4 for count in (ks, outs))
    return len(right), right.shape[2], outs, pitch * LANES, high * LANES


def _chunk(batch: int, b: int, sizes: tuple[int, ...]) -> int:
    """How many vectors there is room for."""
    return max(4, min(batch, _ROOM // (b * sizes[3] // LANES)))


def _threads(batch: int, right: Tensor, left: Tensor) -> int:
    """A multiply–accumulate is a small part of a position."""
    return parts(batch * (right.numel() + left.numel()) // LANES, right.device)


def _addresses(*tensors: Tensor | None) -> tuple[int, ...]:
    return tuple([0 if each is None else each.data_ptr() for each in tensors])


@cache
def _loops() -> ModuleType:
    from compressnet.maths.compiled import monarch

    return monarch
