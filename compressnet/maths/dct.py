"""The orthonormal discrete cosine transform (type II): of small kernels by matrices, of long vectors by FFT."""

import math
from collections.abc import Sequence

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
    return (weight.reshape(-1, len(transform)) @ transform.T).flatten()


def kernels(coefficients: Tensor, transform: Tensor, shape: Sequence[int]) -> Tensor:
    """The weight of the given shape that has these coefficients: the inverse of :func:`coefficients`."""
    return (coefficients.view(-1, len(transform)) @ transform.to(coefficients.dtype)).view(*shape)


def dct(x: Tensor) -> Tensor:
    """The orthonormal DCT-II of the last dimension, by a Fourier transform of the same size: O(n log n).

    Source: Makhoul, A fast cosine transform in one and two dimensions, IEEE Transactions on Acoustics, Speech, and
    Signal Processing 28 (1980).

    Args:
        x: shape (…, n), of single or double precision.

    Returns:
        shape (…, n): ``dct_matrix(n) @ x`` for each vector.
    """
    n = x.shape[-1]
    turned = torch.fft.rfft(torch.cat((x[..., ::2], x[..., 1::2].flip(-1)), -1)) * _twiddle(n, x)
    upper = -turned.imag[..., 1 : n - n // 2].flip(-1)
    return torch.cat((turned.real, upper), -1) * _scale(n, x)


def idct(x: Tensor) -> Tensor:
    """The inverse of :func:`dct`: ``dct_matrix(n).T @ x`` for each vector of the last dimension."""
    n = x.shape[-1]
    x = x / _scale(n, x)
    real = x[..., : n // 2 + 1]
    imaginary = torch.cat((torch.zeros_like(x[..., :1]), -x[..., n - n // 2 :].flip(-1)), -1)
    y = torch.fft.irfft(torch.complex(real, imaginary) * _twiddle(n, x).conj(), n)
    odd = y[..., n - n // 2 :].flip(-1)
    pairs = torch.stack((y[..., : n // 2], odd), -1).flatten(-2)
    return torch.cat((pairs, y[..., n // 2 : n - n // 2]), -1)


def _twiddle(n: int, x: Tensor) -> Tensor:
    angle = torch.arange(n // 2 + 1, dtype=torch.float64, device=x.device) * (-math.pi / (2 * n))
    return torch.polar(torch.ones_like(angle), angle).to(torch.promote_types(x.dtype, torch.complex32))


def _scale(n: int, x: Tensor) -> Tensor:
    scale = torch.full((n,), math.sqrt(2 / n), dtype=x.dtype, device=x.device)
    scale[0] = math.sqrt(1 / n)
    return scale
