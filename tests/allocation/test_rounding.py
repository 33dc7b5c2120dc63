"""Rounding in which errors make up for each other."""

import pytest
import torch
from torch import Tensor, nn

from compressnet.allocation import moments
from compressnet.allocation.moments import Moment, Moments
from compressnet.allocation.rounding import DAMPING, Compensation
from compressnet.allocation.thrift import PRICE, Thrift
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
    rounded = Compensation(torch.eye(70).expand(2, 70, 70)).round(matrix, Thrift(quantiser, None))
    assert torch.equal(rounded, quantiser(matrix))


@pytest.mark.parametrize(("groups", "outs", "ins"), [(1, 20, 30), (3, 4, 9), (1, 7, 150)])
def test_it_moves_outputs_less_than_the_nearest_numbers_do(groups: int, outs: int, ins: int) -> None:
    x = torch.stack([correlated(400, ins, seed) for seed in range(groups)])
    moment, quantiser = x.mT @ x / 400, Uniform(0.5)
    matrix = torch.randn(groups, outs, ins, generator=torch.Generator().manual_seed(9))
    rounded = Compensation(moment).round(matrix, Thrift(quantiser, None))
    assert torch.equal(quantiser(rounded), rounded)
    assert loss(matrix, rounded, moment) < 0.7 * loss(matrix, quantiser(matrix), moment)


def test_its_share_says_what_a_squared_error_costs_on_average() -> None:
    x = correlated(4000, 40, 1)
    moment, step = (x.T @ x / 4000)[None], 0.2
    made_up = Compensation(moment)
    matrix = torch.randn(1, 2000, 40, generator=torch.Generator().manual_seed(2))
    found = loss(matrix, made_up.round(matrix, Thrift(Uniform(step), None)), moment)
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
    return {name: moment.total for name, moment in found.found.items()}


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


@pytest.mark.parametrize("batches", [3, 30, 300])
def test_moments_of_few_images_are_drawn_toward_the_identity_and_come_nearer_to_those_of_all(batches: int) -> None:
    x = correlated(20_000, 24, 0)
    x = x / x.square().mean().sqrt()
    all_of_them = x.T @ x / len(x)
    few = Moment()
    for batch in x[: 4 * batches].split(4):
        few.add_([batch[:, None]])
    found = (few.shrunk()[0].float() - all_of_them).norm()
    assert found < (few.total[0] / (4 * batches) - all_of_them).norm()
    torch.testing.assert_close(few.shrunk()[0].trace().float(), few.total[0].trace() / (4 * batches))


def entropy(symbols: Tensor) -> float:
    counts = torch.unique(symbols, return_counts=True)[1].double()
    return -(counts * (counts / counts.sum()).log2()).sum().item() / symbols.numel()


def test_the_price_of_a_bit_is_what_a_larger_step_saves_at_it() -> None:
    numbers = torch.randn(400_000, generator=torch.Generator().manual_seed(0)).double().float()
    fine, coarse = Uniform(0.1), Uniform(0.11)
    errors = [(each(numbers) - numbers).double().square().mean().item() for each in (fine, coarse)]
    saved = entropy(fine.symbols(numbers)) - entropy(coarse.symbols(numbers))
    assert abs((errors[1] - errors[0]) / saved / (4 * PRICE * 0.105**2) - 1) < 0.05


@pytest.mark.parametrize(("step", "share"), [(1.0, 0.999), (2.0, 0.985), (3.0, 0.95)])
def test_at_few_bits_thrift_takes_fewer_of_them_at_equal_errors(step: float, share: float) -> None:
    drawn = torch.rand(50_000, 2, generator=torch.Generator().manual_seed(0)).log()
    numbers = drawn[:, 0] - drawn[:, 1]  # a Laplace distribution
    thrift = Thrift.of(numbers, Uniform(step))
    error = (thrift(numbers) - numbers).square().mean()
    larger = step
    while (Uniform(larger)(numbers) - numbers).square().mean() < error:
        larger *= 1.01
    assert entropy(thrift.symbols(numbers)) < share * entropy(Uniform(larger).symbols(numbers))


def test_where_codes_are_long_the_nearest_is_taken() -> None:
    numbers, quantiser = torch.randn(1000), Uniform(1e-5)
    assert torch.equal(Thrift.of(numbers, quantiser)(numbers), quantiser(numbers))
