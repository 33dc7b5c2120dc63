import pytest
import torch

from compressnet.fitting import fit_
from compressnet.fitting.regression import squared_error
from compressnet.methods.deepfried import DeepFriedConfig, DeepFriedWeight


def problem() -> tuple[DeepFriedWeight, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 40, generator=generator)
    weight = DeepFriedWeight((32, 40), DeepFriedConfig(), seed=5)
    return weight, inputs, inputs @ torch.randn(40, 32, generator=generator)


def test_the_error_becomes_less() -> None:
    weight, inputs, targets = problem()
    before = squared_error(weight, inputs, targets)
    fit_(weight, inputs, targets, steps=50)
    assert squared_error(weight, inputs, targets) < 0.9 * before


@pytest.mark.parametrize("lr", [1e3, float("inf")])
def test_a_regression_that_only_makes_it_worse_is_taken_back(lr: float) -> None:
    weight, inputs, targets = problem()
    before = {name: tensor.clone() for name, tensor in weight.state_dict().items()}
    fit_(weight, inputs, targets, steps=3, lr=lr)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weight.state_dict().items())
