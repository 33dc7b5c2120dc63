"""Fourier transforms of sixteen vectors side by side and of one, against numpy's."""

import numpy as np
import pytest
from numpy.typing import NDArray

from compressnet.maths import fourier


def rows(complex_numbers: NDArray[np.complex128], kind: type) -> NDArray[np.floating]:
    """Sixteen real parts, sixteen imaginary parts, and so on."""
    return np.stack((complex_numbers.real, complex_numbers.imag), 1).astype(kind).ravel()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("n", [2, 4, 8, 32, 128, 256, 2048, 8192])
def test_sixteen_vectors_are_transformed_and_come_back(n: int, kind: type) -> None:
    from compressnet.maths.compiled.fourier import back, forth

    real, imaginary = np.random.default_rng(n).standard_normal((2, n, 16))
    numbers = real + 1j * imaginary
    made, twiddles = rows(numbers, kind), fourier.twiddles(n).astype(kind)
    forth(made, 0, n, twiddles)
    places, wanted = fourier.addresses(n), np.fft.fft(numbers, axis=0)
    got = np.stack([made[places + lane] + 1j * made[places + 16 + lane] for lane in range(16)], 1)
    exact = 1e-5 if kind is np.float32 else 1e-13
    np.testing.assert_allclose(got, wanted, rtol=0, atol=exact * np.abs(wanted).max())
    back(made, 0, n, twiddles)
    np.testing.assert_allclose(made / n, rows(numbers, kind), rtol=0, atol=10 * exact)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("n", [256, 512, 2048, 4096])
def test_a_vector_alone_is_transformed_and_comes_back(n: int, kind: type) -> None:
    from compressnet.maths.compiled.fourier import back_alone, forth_alone

    real, imaginary = np.random.default_rng(n).standard_normal((2, n))
    numbers = real + 1j * imaginary
    made = rows(numbers.reshape(-1, 16), kind)
    twiddles = tuple([fourier.twiddles(size).astype(kind) for size in (n // 16, 16)])
    phases = fourier.phases(n).astype(kind).ravel()
    forth_alone(made, n, twiddles, phases)
    places, wanted = fourier.addresses_alone(n), np.fft.fft(numbers)
    exact = 1e-5 if kind is np.float32 else 1e-13
    np.testing.assert_allclose(made[places] + 1j * made[places + 16], wanted, rtol=0, atol=exact * np.abs(wanted).max())
    back_alone(made, n, twiddles, phases)
    np.testing.assert_allclose(made / n, rows(numbers.reshape(-1, 16), kind), rtol=0, atol=10 * exact)
