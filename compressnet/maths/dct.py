"""The orthonormal discrete cosine transform (type II): of small kernels by matrices, of long vectors by FFT."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


def dct_matrix(n: int) -> Tensor:
    """The orthonormal DCT-II of size n: ``C[j, i] = s_j cos(π (2i + 1) j / 2n)``, s_0 = √(1/n), else √(2/n).

    ``C Cᵀ = I``; the transform of a column v is ``C v``, its inverse ``Cᵀ V``.

    Returns:
        float64 of shape (n, n), on the CPU.
    """
    i = torch.arange(n, dtype=torch.float64)
    C = torch.cos(torch.outer(i, 2 * i + 1) * (math.pi / (2 * n))) * math.sqrt(2 / n)
    C[0] = math.sqrt(1 / n)
    return C


def dct2_matrix(height: int, width: int) -> Tensor:
    """The two-dimensional DCT of flattened kernels as one matrix: row (a, b), column (p, q) of ``C_h ⊗ C_w``.

    Returns:
        float64 of shape (height · width, height · width), orthonormal, on the CPU.
    """
    return torch.kron(dct_matrix(height), dct_matrix(width))


def bands(height: int, width: int) -> Tensor:
    """The frequency band j = a + b of every coefficient (a, b) of a flattened kernel.

    Returns:
        int64 of shape (height · width,), from 0 to height + width − 2.
    """
    return (torch.arange(height)[:, None] + torch.arange(width)[None, :]).flatten()


def kernel(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of a weight's kernels; those of a fully connected layer are 1×1."""
    return (shape[2], shape[3]) if len(shape) == 4 else (1, 1)


def band_numels(shape: Sequence[int]) -> list[int]:
    """How many coefficients of a weight are in each of its bands."""
    filters = shape[0] * shape[1]
    return [filters * int(cells) for cells in torch.bincount(bands(*kernel(shape)))]


def coefficients(weight: Tensor, transform: Tensor) -> Tensor:
    """All coefficients of a weight's kernels, kernel by kernel.

    Args:
        weight: shape (out, in) or (out, in, kh, kw).
        transform: :func:`dct2_matrix` of its kernels.

    Returns:
        shape (out · in · kh · kw,).
    """
    return _rowwise(weight.reshape(-1, len(transform)), transform.T).flatten()


def kernels(coefficients: Tensor, transform: Tensor, shape: Sequence[int]) -> Tensor:
    """The weight of the given shape that has these coefficients: the inverse of :func:`coefficients`."""
    return _rowwise(coefficients.view(-1, len(transform)), transform.to(coefficients.dtype)).view(*shape)


def _rowwise(rows: Tensor, matrix: Tensor) -> Tensor:
    """``rows @ matrix``; of small kernels, two rows beside each other are one.

    A product of nine columns leaves vector units idle, and twice as many multiplications take half the time.
    """
    if len(matrix) == 1:
        return rows * matrix
    if len(matrix) < 16 and len(rows) % 2 == 0:
        matrix = torch.block_diag(matrix, matrix)
    return (rows.reshape(-1, len(matrix)) @ matrix).view_as(rows)


def dct(x: Tensor) -> Tensor:
    """The orthonormal DCT-II of the last dimension, by a Fourier transform of the same size: O(n log n).

    Source: Makhoul, A fast cosine transform in one and two dimensions, IEEE Transactions on Acoustics, Speech, and
    Signal Processing 28 (1980).

    Args:
        x: shape (…, n), of single or double precision.

    Returns:
        shape (…, n): ``dct_matrix(n) @ x`` for each vector.
    """
    n, tables = x.shape[-1], _tables(x)
    turned = torch.fft.rfft(x.index_select(-1, tables.order)) * tables.twiddle
    upper = -turned.imag[..., 1 : n - n // 2].flip(-1)
    return torch.cat((turned.real, upper), -1) * tables.scale


def idct(x: Tensor) -> Tensor:
    """The inverse of :func:`dct`: ``dct_matrix(n).T @ x`` for each vector of the last dimension."""
    n, tables = x.shape[-1], _tables(x)
    x = x / tables.scale
    real = x[..., : n // 2 + 1]
    imaginary = torch.cat((torch.zeros_like(x[..., :1]), -x[..., n - n // 2 :].flip(-1)), -1)
    y = torch.fft.irfft(torch.complex(real, imaginary) * tables.back, n)
    return y.index_select(-1, tables.inverse)


def cosine_filter(x: Tensor, gains: Tensor) -> Tensor:
    """The inverse DCT of the DCT times gains, of vectors in the order of :func:`even_then_odd`, and in that order.

    Scales and signs of the two transforms cancel, and their reorderings meet those of the caller.

    Args:
        x: shape (…, n), of single or double precision.
        gains: shape (n,), one for each coefficient.

    Returns:
        shape (…, n).
    """
    n, tables = x.shape[-1], _tables(x)
    spectrum = torch.view_as_real(torch.fft.rfft(x) * tables.twiddle) * gains.index_select(0, tables.pairs).view(-1, 2)
    return torch.fft.irfft(torch.view_as_complex(spectrum) * tables.back, n)


def even_then_odd(n: int, device: torch.device | str | None = None) -> Tensor:
    """Makhoul's order 0, 2, 4, …, 5, 3, 1: of its positions, those that n numbers stand at in order."""
    i = torch.arange(n, device=device)
    return torch.cat((i[::2], i[1::2].flip(0)))


class _Tables(NamedTuple):
    """Of transforms of size n, but for :func:`even_then_odd`'s ``order`` and ``inverse`` functions of frequency.

    A real spectrum holds coefficient k and, as its imaginary part, coefficient n − k: ``pairs``.
    """

    order: Tensor
    inverse: Tensor
    pairs: Tensor
    twiddle: Tensor
    back: Tensor
    scale: Tensor


def _tables(x: Tensor) -> _Tables:
    make = _made if torch.compiler.is_compiling() else _kept
    return make(x.shape[-1], x.dtype, x.device)


def _made(n: int, dtype: torch.dtype, device: torch.device) -> _Tables:
    order, k = even_then_odd(n, device), torch.arange(n // 2 + 1, device=device)
    angle = k.double() * (-math.pi / (2 * n))
    twiddle = torch.polar(torch.ones_like(angle), angle).to(torch.promote_types(dtype, torch.complex32))
    scale = torch.full((n,), math.sqrt(2 / n), dtype=dtype, device=device)
    scale[0] = math.sqrt(1 / n)
    pairs = torch.stack((k, (n - k) % n), -1).view(-1)
    return _Tables(order, order.argsort(), pairs, twiddle, twiddle.conj().resolve_conj(), scale)


@lru_cache(maxsize=8)
def _kept(n: int, dtype: torch.dtype, device: torch.device) -> _Tables:
    # Born outside inference mode: a tensor from inside could never take part in a later backward pass.
    with torch.inference_mode(False):
        return _made(n, dtype, device)
