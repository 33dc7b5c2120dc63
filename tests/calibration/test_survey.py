from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.calibration.calls import Place
from compressnet.calibration.survey import Survey
from compressnet.plan import candidates, plan_layers
from compressnet.recipe import read_recipe


class Net(nn.Module):
    """Two convolutions and what is done with their outputs."""

    def __init__(self, behind: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(4, 6, 3, groups=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        nn.init.uniform_(self.norm.weight, -1, 1)
        nn.init.uniform_(self.norm.bias)
        nn.init.uniform_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var)
        self.behind = behind

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self, self.conv(x))


def survey(behind: Callable[[Net, Tensor], Tensor]) -> tuple[Net, Place, Survey]:
    net = Net(behind).eval()
    rule = {"match": "conv", "grouped": True, "method": "hashednet", "ratio": 2}
    (layer,) = plan_layers(read_recipe({"layers": [rule]}), candidates(net))
    place = Place(layer, net.conv.weight)
    with torch.no_grad():
        return net, place, Survey(net, {id(net.conv.weight): place}, torch.randn(1, 4, 5, 5))


GATED: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "a function": lambda net, y: F.relu(y),
    "in place": lambda net, y: y.relu_() + 1,
    "a module": lambda net, y: nn.ReLU(inplace=True)(y) + 1,
    "up to six": lambda net, y: F.relu6(y),
    "behind a norm": lambda net, y: torch.relu(net.norm(y)),
}
OPEN: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "nothing": lambda net, y: y,
    "a sum": lambda net, y: F.relu(y + 1),
    "a ReLU and more": lambda net, y: F.relu(y) + y,
    "a norm and a ReLU": lambda net, y: F.relu(net.norm(y)) + F.relu(y + 1),
    "half of it": lambda net, y: F.relu(y[:, :3]),
    "another function": lambda net, y: F.gelu(y),
    "a second time": lambda net, y: F.relu(y) + F.relu(net.conv(torch.ones(1, 4, 5, 5))),
}


@pytest.mark.parametrize("name", GATED)
def test_a_gate_is_what_stands_behind_a_layer(name: str) -> None:
    net, place, _ = survey(GATED[name])
    assert place.gate is not None
    y = torch.randn(7, 6)
    normed = net.norm(y[:, :, None, None])[:, :, 0, 0] if "norm" in name else y
    let_through = place.gate.through(y.view(7, 2, 3).transpose(0, 1)).transpose(0, 1).reshape(7, 6)
    torch.testing.assert_close(let_through, torch.relu(normed))


@pytest.mark.parametrize("name", OPEN)
def test_there_is_no_gate_where_outputs_go_elsewhere(name: str) -> None:
    assert survey(OPEN[name])[1].gate is None


def test_the_target_lets_through_what_is_wanted_and_no_output_is_nearer_to_the_given() -> None:
    _, place, _ = survey(GATED["behind a norm"])
    gate = place.gate
    assert gate is not None
    given, wanted = torch.randn(2, 500, 3), torch.randn(2, 500, 3)
    target = gate.target(given, wanted)
    torch.testing.assert_close(gate.through(target), gate.through(wanted), atol=1e-6, rtol=1e-5)
    step = 1e-3 * (given - target)  # nearer to the given outputs
    moved = (gate.through(target + step) - gate.through(wanted)).abs()
    assert ((moved > 0) | (step == 0) | (gate.scale * step).abs().lt(1e-6))[gate.through(wanted) > 0].all()


def test_sizes_are_those_of_the_largest_activation_from_a_layer_on() -> None:
    _, _, found = survey(lambda net, y: y.flatten(1).repeat(1, 3)[:, :10])
    assert found.rest == {"conv": 3 * 6 * 25 * 4}
    assert found.largest == 3 * 6 * 25 * 4
