"""The Walsh–Hadamard transform: by a compiled loop, or as two or three small dense products.

A core adds the numbers of a vector in its cache faster than torch copies them. Where no loop runs, H of size ab is the
Kronecker product H_a ⊗ H_b (natural order), so a vector seen as an a × b matrix X is transformed by ``H_a X H_b``: two
products of about √n columns each, or three of about ∛n for large n, which beat the log₂ n passes of the butterfly by
several times on the caches and matrix units there are.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compressnet.maths import compiled
from compressnet.maths.parallel import in_parts, parts

COMPILED_FROM = 512  # of the sizes of networks; what is smaller need not wait for a compiler
THREE_FROM = 2048  # measured: from this size on three products beat two in batches


def next_power_of_two(n: int) -> int:
    """The smallest power of two that is at least n ≥ 1."""
    return 1 << (n - 1).bit_length()


def hadamard_matrix(n: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
    """The orthonormal Hadamard matrix of natural (Sylvester) order, entries ±1/√n.

    Args:
        n: a power of two.
        dtype: of the result.
        device: of the result.

    Returns:
        shape (n, n), symmetric and its own inverse.
    """
    i = torch.arange(n, device=device)
    common = i[:, None] & i[None, :]
    parity = torch.zeros_like(common)
    while n > 1:
        n >>= 1
        parity ^= common & 1
        common = common >> 1
    return ((1 - 2 * parity).to(torch.float64) / len(i) ** 0.5).to(dtype)


def factors(n: int) -> tuple[int, ...]:
    """The two or three powers of two of the products that make up a transform of size n, the outermost first.

    Args:
        n: a power of two.
    """
    bits = n.bit_length() - 1
    if n < THREE_FROM:
        return 1 << bits // 2, 1 << (bits - bits // 2)
    outer, middle = bits // 3, (bits - bits // 3) // 2
    return 1 << outer, 1 << middle, 1 << (bits - outer - middle)


def macs(n: int, rows: int, columns: int) -> int:
    """Multiply–accumulates of a transform of so many columns to so many rows, as products."""
    outer, *others = factors(n)
    inner = n // outer
    used_out, used_in = -(-rows // inner), -(-columns // inner)
    return inner * (used_out * used_in + min(used_out, used_in) * sum(others))


def hadamard(x: Tensor, n: int, rows: int | None = None) -> Tensor:
    """The orthonormal Walsh–Hadamard transform of the last dimension.

    Args:
        x: shape (…, m) with m ≤ n, read as if padded by zeros to n.
        n: the size of the transform, a power of two.
        rows: how many leading outputs are wanted; all n by default.

    Returns:
        shape (…, rows), any number of times differentiable. Rows that are not wanted, and columns that are padding, are
        not computed, down to the granularity of the outermost factor.
    """
    rows = n if rows is None else rows
    matrix = x.reshape(-1, x.shape[-1])
    if n < COMPILED_FROM or not compiled.reads(x) or compiled.transformed():
        y = transform(matrix, n, rows)
    else:  # what ``apply`` does takes as long as a small transform
        y = (_Transform.apply if torch.is_grad_enabled() else _Transform.forward)(matrix, n, rows)
    return y.view(*x.shape[:-1], rows)


class _Transform(torch.autograd.Function):
    """By a compiled loop; it is its own transpose."""

    @staticmethod
    def forward(x: Tensor, n: int, rows: int) -> Tensor:
        from compressnet.maths.compiled.hadamard import transform

        y = x.new_empty(len(x), rows)
        out, vectors = y.numpy(), x.detach().contiguous().numpy()

        def work(_: int, part: slice) -> None:
            transform(out[part], vectors[part], n**-0.5)

        in_parts(work, len(x), parts(len(x) * n, x.device))
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, int], output: Tensor) -> None:
        x, ctx.n, _ = inputs
        ctx.columns = x.shape[1]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        return _Transform.apply(upstream, ctx.n, ctx.columns), None, None


def transform(x: Tensor, n: int, rows: int) -> Tensor:
    """:func:`hadamard` of the rows of a matrix, by dense products."""
    make = _matrices if torch.compiler.is_compiling() else _kept
    outermost, *middle, last = make(n, rows, x.shape[-1], x.dtype, x.device)
    used_out, used_in = outermost.shape
    inner = n // factors(n)[0]
    if x.shape[-1] < used_in * inner:
        x = F.pad(x, (0, used_in * inner - x.shape[-1]))
    if used_out < used_in:  # it comes where it leaves the others less to do
        x = outermost @ x.reshape(-1, used_in, inner)
    x = x.reshape(-1, len(last)) @ last
    for matrix in middle:
        x = matrix @ x.view(-1, len(matrix), len(last))
    if used_out >= used_in:
        x = outermost @ x.view(-1, used_in, inner)
    x = x.view(-1, used_out * inner)
    return x if x.shape[-1] == rows else x[:, :rows]


def _matrices(n: int, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """The Hadamard matrices of the factors; of the outermost, what so many rows and columns use."""
    outer, *others = factors(n)
    inner = n // outer
    used = hadamard_matrix(outer, dtype, device)[: -(-rows // inner), : -(-columns // inner)]
    return used, *(hadamard_matrix(size, dtype, device) for size in others)


@lru_cache(maxsize=256)
def _kept(n: int, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    # Making them anew costs more than the products. Born outside inference mode: a tensor from inside could never take
    # part in a later backward pass.
    with torch.inference_mode(False):
        return _matrices(n, rows, columns, dtype, device)
