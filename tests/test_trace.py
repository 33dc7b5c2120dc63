import torch
from torch import nn

from compressnet.trace import parameter_macs


class Odd(nn.Module):
    """A layer used twice, one used by its weight alone, and one never used."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, groups=1)
        self.twice = nn.Linear(4, 4)
        self.by_weight = nn.Linear(4, 6)
        self.never = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x).mean((2, 3))
        return nn.functional.linear(self.twice(self.twice(x)), self.by_weight.weight)


def test_products_are_counted_by_the_parameter_they_read() -> None:
    macs = parameter_macs(Odd(), (2, 3, 9, 9))
    assert macs["conv.weight"] == 2 * 4 * 4 * 4 * 27
    assert macs["twice.weight"] == 2 * 2 * 16
    assert macs["by_weight.weight"] == 2 * 24
    assert macs["conv.bias"] == 0


def test_what_never_runs_is_not_listed() -> None:
    macs = parameter_macs(Odd(), (1, 3, 9, 9))
    assert not {"never.weight", "never.bias", "by_weight.bias"} & macs.keys()


def test_the_model_is_not_changed() -> None:
    model = Odd().train()
    parameter_macs(model, (1, 3, 9, 9))
    assert model.training
    assert model.conv.weight.device.type == "cpu"
