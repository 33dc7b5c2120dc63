"""Rounding in which errors make up for each other."""

import pytest
import torch
from torch import Tensor, nn

from compressnet.allocation import moments
from compressnet.allocation.moments import Moments
from compressnet.allocation.rounding import DAMPING, Compensation
from compressnet.coding.quantisers import Uniform
from compressnet.plan import candidates, plan_layers
from compressnet.recipe import read_recipe


def correlated(samples: int, inputs: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, inputs, generator=generator) @ torch.randn(inputs, inputs, generator=generator)


def loss(matrix: Tensor, rounded: Tensor, moment: Tensor) -> float:
    error = (matrix - rounded).double()
    return torch.einsum("goi,gij,goj->", error, moment.double(), error).item()


def test_without_correlation_every_number_goes_to_the_nearest() -> None:
    matrix, quantiser = torch.randn(2, 5, 70), Uniform(0.3)
    rounded = Compensation(torch.eye(70).expand(2, 70, 70)).round(matrix, quantiser)
    assert torch.equal(rounded, quantiser(matrix))


@pytest.mark.parametrize(("groups", "outs", "ins"), [(1, 20, 30), (3, 4, 9), (1, 7, 150)])
def test_it_moves_outputs_less_than_the_nearest_numbers_do(groups: int, outs: int, ins: int) -> None:
    x = torch.stack([correlated(400, ins, seed) for seed in range(groups)])
    moment, quantiser = x.mT @ x / 400, Uniform(0.5)
    matrix = torch.randn(groups, outs, ins, generator=torch.Generator().manual_seed(9))
    rounded = Compensation(moment).round(matrix, quantiser)
    assert torch.equal(quantiser(rounded), rounded)
    assert loss(matrix, rounded, moment) < 0.7 * loss(matrix, quantiser(matrix), moment)


def test_its_share_says_what_a_squared_error_costs_on_average() -> None:
    x = correlated(4000, 40, 1)
    moment, step = (x.T @ x / 4000)[None], 0.2
    made_up = Compensation(moment)
    matrix = torch.randn(1, 2000, 40, generator=torch.Generator().manual_seed(2))
    found = loss(matrix, made_up.round(matrix, Uniform(step)), moment)
    alone = matrix.numel() * step**2 / 12 * moment.diagonal(dim1=1, dim2=2).mean().item()
    assert 0 < made_up.share < 1
    assert abs(found / alone / made_up.share - 1) < 0.1 + DAMPING


class Layers(nn.Module):
    """A grouped convolution with another stride than height, and a linear layer after it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), groups=2)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().mean((2, 3)))


def measured(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    layers = plan_layers(read_recipe({"layers": []}), candidates(model))
    found = Moments(model, layers)
    found.measure_(images, 4)
    return found.sums


def test_moments_are_those_of_the_patches_that_each_group_sees() -> None:
    model, images = Layers(), torch.randn(10, 4, 7, 6)
    found = measured(model, images)
    patches = nn.functional.unfold(images, (3, 2), padding=(1, 0), stride=(2, 1)).transpose(1, 2)
    groups = patches.reshape(-1, 2, 12).transpose(0, 1)
    torch.testing.assert_close(found["conv"], groups.mT @ groups, rtol=1e-4, atol=1e-3)
    seen = model.conv(images).relu().mean((2, 3)).detach()
    torch.testing.assert_close(found["head"][0], seen.T @ seen, rtol=1e-4, atol=1e-3)


def test_a_wide_layer_is_taken_as_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "WIDEST", 4)
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.randn(9, 12)
    halves = images.view(9, 3, 4).transpose(0, 1)
    torch.testing.assert_close(measured(model, images)["1"], halves.mT @ halves, rtol=1e-4, atol=1e-4)
