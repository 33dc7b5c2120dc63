from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.fft import dct

from compressnet.maths.hashing import Purpose, derive, permutation
from compressnet.methods.acdc import ACDCConfig, ACDCWeight
from tests.methods.contract import Contract


class TestACDC(Contract):
    weight = ACDCWeight
    config: ClassVar = {"depth": 2, "steps": 20}


class TestACDCOfOneFactor(Contract):
    weight = ACDCWeight
    config: ClassVar = {"depth": 1, "steps": 20}
    seeded = False


@pytest.mark.parametrize(("outs", "ins"), [(16, 16), (24, 17), (13, 40)])
@pytest.mark.parametrize("depth", [1, 3])
def test_the_dense_weight_is_the_papers_product(outs: int, ins: int, depth: int) -> None:
    weight = ACDCWeight((outs, ins), ACDCConfig(depth=depth), seed=5, dtype=torch.float64)
    n = max(outs, ins)
    with torch.no_grad():
        weight.spatial.normal_()
        weight.spectral.normal_()
    C = dct(np.eye(n), norm="ortho", axis=1)  # x C is the transform of a row
    rest = weight.spatial.detach().numpy()
    row = np.eye(ins, n)
    for factor in range(depth):
        used = ins if factor == 0 else n
        A, rest = np.diag(np.pad(rest[:used], (0, n - used))), rest[used:]
        if factor:
            row = row[:, permutation(n, derive(5, factor - 1), Purpose.ORDER)]
        row = row @ A @ C @ np.diag(weight.spectral[factor].detach().numpy()) @ C.T
    np.testing.assert_allclose(weight.to_dense().detach().numpy(), row[:, :outs].T, atol=1e-12)


def test_it_starts_near_the_identity_up_to_its_permutations() -> None:
    weight = ACDCWeight((64, 64), ACDCConfig(depth=1, noise=0), seed=5, dtype=torch.float64)
    torch.testing.assert_close(weight.to_dense(), torch.eye(64, dtype=torch.float64))
    deep = ACDCWeight((64, 64), ACDCConfig(depth=4, noise=0), seed=5, dtype=torch.float64).to_dense()
    torch.testing.assert_close(deep @ deep.T, torch.eye(64, dtype=torch.float64))
    noisy = ACDCWeight((512, 512), ACDCConfig(noise=0.1), seed=5)
    assert noisy.spectral.std().item() == pytest.approx(0.1, rel=0.1)
    assert noisy.spatial.mean().item() == pytest.approx(1, abs=0.02)


def test_the_regression_beats_the_start_and_the_zero_weight_on_outputs() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, 8, generator=generator) @ torch.randn(8, 96, generator=generator)
    dense = torch.randn(64, 96, generator=generator) / 10
    targets = inputs @ dense.T
    start = ACDCWeight((64, 96), ACDCConfig(init="identity"), seed=5).project_(dense, inputs)
    fitted = ACDCWeight((64, 96), ACDCConfig(), seed=5).project_(dense, inputs)
    error = (fitted.matmul(inputs) - targets).norm()
    assert error < 0.9 * targets.norm()
    assert error < (start.matmul(inputs) - targets).norm()


def test_a_weight_that_is_a_diagonal_in_the_cosine_domain_is_found() -> None:
    config = ACDCConfig(depth=1, noise=0, steps=400)
    made = ACDCWeight((32, 32), config, seed=5)
    with torch.no_grad():
        made.spectral.copy_(torch.linspace(0.3, 1.5, 32)[None])
    fitted = ACDCWeight((32, 32), config, seed=5).project_(made.to_dense().detach())
    assert (fitted.to_dense() - made.to_dense()).norm() < 0.02 * made.to_dense().norm()


def test_only_what_meets_an_input_is_stored() -> None:
    weight = ACDCWeight((4096, 9216), ACDCConfig(depth=12), seed=5, device="meta")
    assert weight.numel == 24 * 9216
    assert ACDCWeight((4096, 1000), ACDCConfig(depth=1), seed=5, device="meta").numel == 5096


def test_the_dense_matrix_is_never_formed_in_a_product() -> None:
    weight = ACDCWeight((1 << 16, 1 << 16), ACDCConfig(depth=2), seed=5)
    x = torch.randn(2, 1 << 16, requires_grad=True)
    weight.matmul(x).sum().backward()  # the dense matrix would take 16 GiB
    assert x.grad is not None


def test_what_would_not_be_smaller_is_refused_with_the_reason() -> None:
    assert "its 160 numbers would not be fewer than the 120" in str(ACDCWeight.rejects((6, 20), ACDCConfig()))
    assert (
        ACDCWeight.rejects((8, 8, 3, 3), ACDCConfig())
        == "its 576 numbers would not be fewer than the 576 of the dense weight"
    )
