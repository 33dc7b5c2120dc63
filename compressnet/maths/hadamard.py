"""The Walsh–Hadamard transform as two or three small dense products.

H of size ab is the Kronecker product H_a ⊗ H_b (natural order), so a vector seen as an a × b matrix X is
transformed by ``H_a X H_b``: two matrix products of about √n columns each, or three of about ∛n for large n, which beat
the log₂ n passes of the butterfly by several times on the caches and matrix units there are.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

THREE_FROM = 2048  # measured: from this size on three products beat two in batches, and cost 7 µs more for one vector


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


@lru_cache(maxsize=64)
def _kept(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Born outside inference mode: a tensor from inside could never take part in a later backward pass.
    with torch.inference_mode(False):
        return hadamard_matrix(n, dtype, device)


def _factor(n: int, x: Tensor) -> Tensor:
    """The matrix of one factor; making it anew costs more than a product with it, so it is kept (not while tracing)."""
    make = hadamard_matrix if torch.compiler.is_compiling() else _kept
    return make(n, x.dtype, x.device)


def factors(n: int) -> tuple[int, int, int]:
    """The powers of two (a, b, c), abc = n, of the products that make up a transform; a = 1 where two are enough."""
    bits = n.bit_length() - 1
    first = bits // 3 if n >= THREE_FROM else 0
    second = (bits - first) // 2
    return 1 << first, 1 << second, 1 << (bits - first - second)


def hadamard(x: Tensor, n: int, rows: int | None = None) -> Tensor:
    """The orthonormal Walsh–Hadamard transform of the last dimension.

    Args:
        x: shape (…, m) with m ≤ n, read as if padded by zeros to n.
        n: the size of the transform, a power of two.
        rows: how many leading outputs are wanted; all n by default.

    Returns:
        shape (…, rows). Rows that are not wanted, and columns that are padding, are not computed, down to the
        granularity of the outermost factor.
    """
    a, b, c = factors(n)
    outer, inner = (b, c) if a == 1 else (a, b * c)
    rows = n if rows is None else rows
    used_in, used_out = -(-x.shape[-1] // inner), -(-rows // inner)
    shape = x.shape[:-1]
    if x.shape[-1] < used_in * inner:
        x = F.pad(x, (0, used_in * inner - x.shape[-1]))
    x = x.reshape(-1, c) @ _factor(c, x)
    if a > 1:
        x = _factor(b, x) @ x.view(-1, b, c)
    x = _factor(outer, x)[:used_out, :used_in] @ x.view(-1, used_in, inner)
    x = x.reshape(*shape, used_out * inner)
    return x if x.shape[-1] == rows else x[..., :rows]
