"""One vector through two factors, whose numbers are each read once: calls take longer than what they compute."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from compressnet.maths import compiled

_LIKE = {torch.float32: np.float32(0), torch.float64: np.float64(0)}


def runs(x: Tensor, first: Tensor, second: Tensor, bias: Tensor | None) -> bool:
    """Whether a compiled loop takes x through two matrices: one vector, for which no gradient is wanted."""
    return (
        not torch.is_grad_enabled()
        and x.numel() == x.shape[-1] == first.shape[1]
        and first.numel() + second.numel() >= compiled.FROM
        and (compiled.reads(x, first, second) if bias is None else compiled.reads(x, first, second, bias))
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
        shape (…, O · S).
    """
    y = torch.empty(*x.shape[:-1], len(second), dtype=x.dtype)
    added = torch.zeros(len(second), dtype=x.dtype) if bias is None else bias
    tensors = [each.contiguous() for each in (y, x, first, second, added)]
    shapes = [(each.shape[0], each.shape[1]) for each in (first, second)]
    _loop()(tuple([each.data_ptr() for each in tensors]), *shapes, parts, _LIKE[x.dtype])
    return y


@cache
def _loop() -> Callable[..., None]:
    from compressnet.maths.compiled.vectors import through

    return through
