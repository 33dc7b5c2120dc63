import pytest
import torch
from torch import nn

from compressnet.fitting import fit_head_
from compressnet.fitting.head import RIDGES


def problem(samples: int, features: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(samples, features, generator=generator, dtype=torch.float64) + 1
    y = h @ torch.randn(features, 3, generator=generator, dtype=torch.float64)
    return h, y + 2 * torch.randn(samples, 3, generator=generator, dtype=torch.float64)


def solved(h: torch.Tensor, y: torch.Tensor, ridge: float, biased: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias by the normal equations."""
    means = (h.mean(0), y.mean(0)) if biased else (0 * h[0], 0 * y[0])
    h, y = h - means[0], y - means[1]
    weight = torch.linalg.solve(h.T @ h + ridge * torch.eye(h.shape[1], dtype=h.dtype), h.T @ y).T
    return weight, means[1] - weight @ means[0]


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("samples", "features"), [(60, 7), (20, 45)])
def test_the_head_is_the_ridge_solution_whose_error_on_left_out_samples_is_least(
    samples: int, features: int, biased: bool
) -> None:
    h, y = problem(samples, features)
    head = nn.Linear(features, 3, biased, dtype=torch.float64)
    error = fit_head_(head, h, y)
    centred = h - h.mean(0) if biased else h
    scale = centred.square().sum() / min(samples, features)
    found = []
    for ridge in (RIDGES * scale).tolist():
        wrong = 0.0
        for left in range(samples):
            rest = [i for i in range(samples) if i != left]
            weight, bias = solved(h[rest], y[rest], ridge, biased)
            wrong += (h[left] @ weight.T + bias - y[left]).square().sum().item()
        found.append(((wrong**0.5 / y.norm()).item(), ridge))
    least, ridge = min(found)
    assert error == pytest.approx(least, rel=1e-6)
    weight, bias = solved(h, y, ridge, biased)
    torch.testing.assert_close(head.weight, weight)
    if biased:
        torch.testing.assert_close(head.bias, bias)


def test_what_is_linear_in_the_features_is_found() -> None:
    h, _ = problem(80, 12)
    source, head = nn.Linear(12, 4, dtype=torch.float64), nn.Linear(12, 4, dtype=torch.float64)
    assert fit_head_(head, h, source(h).detach()) < 1e-5
    torch.testing.assert_close(head(h), source(h), rtol=1e-4, atol=1e-5)


def test_samples_that_are_all_alike_give_their_output() -> None:
    head = nn.Linear(5, 2)
    assert fit_head_(head, torch.ones(6, 5), torch.ones(6, 2)) < 1e-6
    torch.testing.assert_close(head(torch.ones(1, 5)), torch.ones(1, 2))
