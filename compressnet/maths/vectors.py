"""One vector through two factors, whose numbers are each read once: calls take longer than what they compute."""

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from compressnet.maths import compiled
from compressnet.maths.compiled import LIKE


def runs(x: Tensor, first: Tensor, second: Tensor, bias: Tensor | None) -> bool:
    """Whether compiled loops take x through two matrices: one vector, and derivatives are of the backward pass."""
    given = (x, first, second) if bias is None else (x, first, second, bias)
    return (
        x.numel() == x.shape[-1] == first.shape[1]
        and compiled.takes(first.numel() + second.numel(), *given)
        and not compiled.transformed()
    )


def through(x: Tensor, first: Tensor, second: Tensor, bias: Tensor | None, parts: int) -> Tensor:
    """``bias + second · (first · x)``, products of as many parts, of each of which a row knows one.

        y[r, s] = Σ_t first[r, s T + t] x[s T + t]                  S parts of T inputs
        z[o, p] = Σ_q second[o P + p, q] y[p Q + q] + bias[o P + p]   S parts of the R · S numbers between

    Args:
        x: shape (…, S · T), of one vector.
        first: shape (R, S · T).
        second: shape (O · S, R): R is S where there are several parts.
        bias: shape (O · S,), or None.
        parts: S; 1 for ordinary products.

    Returns:
        shape (…, O · S), any number of times differentiable.
    """
    if not torch.is_grad_enabled():
        return _through(x, first, second, bias, parts)
    y: Tensor = _Through.apply(x, first, second, bias, parts)
    return y


def product(x: Tensor, first: Tensor, second: Tensor, parts: int) -> Tensor:
    """The same without a bias, by operations of torch."""
    between = (first.view(len(first), parts, -1) * x.view(parts, -1)).sum(-1)
    return (second.view(-1, parts, second.shape[1]) * between.view(parts, -1)).sum(-1).view(*x.shape[:-1], -1)


def _through(x: Tensor, first: Tensor, second: Tensor, bias: Tensor | None, parts: int) -> Tensor:
    y = x.new_empty(*x.shape[:-1], len(second))
    added = x.new_zeros(len(second)) if bias is None else bias
    _run(_loops().through, first, second, x, y, added, parts=parts)
    return y


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, first: Tensor, second: Tensor, bias: Tensor | None, parts: int) -> Tensor:
        ctx.save_for_backward(x, first, second)
        ctx.parts = parts
        return _through(x, first, second, bias, parts)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        *wanted, biased, _ = ctx.needs_input_grad
        make = _differentiable if torch.is_grad_enabled() else _gradients
        made = make(upstream, ctx.saved_tensors, wanted, ctx.parts) if any(wanted) else (None, None, None)
        return *made, upstream.flatten() if biased else None, None


def _differentiable(
    upstream: Tensor, given: tuple[Tensor, ...], wanted: list[bool], parts: int
) -> tuple[Tensor | None, ...]:
    """Gradients of which derivatives are wanted: torch's."""
    x, first, second = given
    of = [each for each, want in zip(given, wanted, strict=True) if want]
    made = iter(torch.autograd.grad(product(x, first, second, parts), of, upstream, create_graph=True))
    return tuple([next(made) if want else None for want in wanted])


def _gradients(
    upstream: Tensor, given: tuple[Tensor, ...], wanted: list[bool], parts: int
) -> tuple[Tensor | None, ...]:
    x, first, second = given
    made = [each.new_empty(each.shape) if want else None for each, want in zip(given, wanted, strict=True)]
    _run(_loops().backward, first, second, x, upstream, *made, parts=parts)
    return tuple(made)


def _run(loop: Callable[..., None], first: Tensor, second: Tensor, *others: Tensor | None, parts: int) -> None:
    """Those that a loop writes to are contiguous."""
    tensors = [None if each is None else each.contiguous() for each in (first, second, *others)]
    addresses = tuple([0 if each is None else each.data_ptr() for each in tensors])
    shapes = [(each.shape[0], each.shape[1]) for each in (first, second)]
    loop(addresses, *shapes, parts, LIKE[first.dtype])


@cache
def _loops() -> ModuleType:
    from compressnet.maths.compiled import vectors

    return vectors
