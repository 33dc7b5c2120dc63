"""A layer in each of its ratios: the error of its outputs on samples that the fit leaves out."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressnet.methods import BY_NAME
from compressnet.plan import PlannedLayer
from compressnet.sizing.forms import FAR, NOISE, ROUNDED, forms
from compressnet.sizing.views import View, views


def planned(method: str | None, shape: tuple[int, ...] = (12, 16)) -> PlannedLayer:
    config = BY_NAME[method].Config(ratio=2).model_dump() if method else {}
    kind: Any = "linear" if len(shape) == 2 else "conv2d"
    return PlannedLayer("layer", kind, shape, method=method, config=config, seed=7 if method else None)


def view(samples: int = 400, centred: bool = True) -> View:
    draw = torch.Generator().manual_seed(0)
    mixed = torch.randn(16, 16, generator=draw) @ torch.diag(torch.linspace(0.1, 2, 16))
    inputs = torch.randn(samples, 1, 16, generator=draw) @ mixed + 0.5
    return View(inputs, inputs @ DENSE.T, centred)


DENSE = torch.randn(12, 16, generator=torch.Generator().manual_seed(1))


def configs(method: str, *ratios: float) -> list[Any]:
    return [BY_NAME[method].Config(ratio=ratio) for ratio in ratios]


@pytest.mark.parametrize("seen", [None, view()], ids=["weight", "images"])
@pytest.mark.parametrize("method", ["hashednet", "freshnet", "dropfilt", "lowrank"])
def test_a_larger_ratio_loses_more(method: str, seen: View | None) -> None:
    made = forms(planned(method), configs(method, 2.5, 4, 6), DENSE, seen)
    lost = [each.lost for each in made]
    assert len(lost) == 3
    assert lost == sorted(lost)
    assert lost[0] > 0


def test_a_ratio_that_leaves_nothing_ends_the_list() -> None:
    made = forms(planned("hashednet"), configs("hashednet", 2, 96, 192), DENSE)
    assert len(made) == 2
    assert made[-1].lost > 0.9


def test_answers_are_asked_until_they_are_far_off_and_once_about_noise() -> None:
    seen, asked = view(), []

    def moved(error: torch.Tensor, corrected: bool) -> float:
        asked.append(corrected)
        return FAR * len(asked) / 3

    made = forms(planned("hashednet"), configs("hashednet", 1.5, 2, 3, 4, 6), DENSE, seen, moved)
    assert asked == [False, True, True]
    lost = [each.lost for each in made]
    assert lost[:2] == [FAR * 2 / 3, FAR]
    assert lost == sorted(lost)
    assert made[0].noise == pytest.approx(FAR / 3 / NOISE**2)


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("cost", [None, "matrix", "diagonal"])
def test_a_loss_is_the_mean_of_the_charged_outputs_of_samples_left_out(cost: str | None, corrected: bool) -> None:
    seen, error = view(40), torch.randn(1, 12, 16, generator=torch.Generator().manual_seed(2))
    root = torch.randn(12, 12, generator=torch.Generator().manual_seed(3))
    charge = torch.eye(12)
    if cost == "matrix":
        charge = root @ root.T
        seen.cost = charge[None]
    elif cost == "diagonal":
        charge = torch.diag(root[0].square())
        seen.cost = root[0].square().view(1, 12, 1)
    rows = seen.inputs[:, 0]
    mean = torch.stack([row for place, row in enumerate(rows) if place % 4]).mean(0) if corrected else torch.zeros(16)
    outputs = [error[0] @ (row - mean) for row in rows[::4]]
    wanted = torch.stack([y @ charge @ y for y in outputs]).mean()
    assert seen.loss(error, corrected) == pytest.approx(wanted.item(), rel=1e-4)


def test_rounding_of_a_dense_weight_that_makes_up_for_itself_loses_less_than_noise() -> None:
    seen = view(2000)
    (made,) = forms(planned(None), [None], DENSE, seen, lambda error, corrected: seen.loss(error, corrected))
    draw = torch.Generator().manual_seed(5)
    drawn = [NOISE * DENSE.std(correction=0) * torch.randn(1, 12, 16, generator=draw) for _ in range(200)]
    wanted = sum(seen.loss(each, False) for each in drawn) / 200 / NOISE**2
    assert made.rounded is not None
    assert made.rounded.steps == ROUNDED
    for step, loss in zip(ROUNDED, made.rounded.losses, strict=True):
        assert 0.02 < loss / (wanted * step**2 / 12) < 1


def test_without_images_noise_of_a_dense_weight_is_relative_to_it() -> None:
    wide = torch.randn(200, 300, generator=torch.Generator().manual_seed(4))
    (made,) = forms(planned(None, (200, 300)), [None], wide)
    assert made.noise == pytest.approx(1, rel=0.02)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.fc = nn.Linear(4, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3)))  # type: ignore[no-any-return]


def test_views_hold_what_layers_see_and_give() -> None:
    torch.manual_seed(0)
    net = Net().eval()
    layers = [PlannedLayer("conv", "conv2d", (4, 3, 3, 3)), PlannedLayer("fc", "linear", (5, 4))]
    images = torch.randn(11, 3, 8, 8)
    seen = views(net, layers, images)
    assert seen["conv"].inputs.shape == (11 * 16, 1, 27)
    assert seen["fc"].inputs.shape == (11, 1, 4)
    assert seen["conv"].centred
    assert not seen["fc"].centred
    with torch.no_grad():
        given = seen["conv"].inputs @ net.conv.weight.flatten(1).T + net.conv.bias
        torch.testing.assert_close(given, seen["conv"].outputs)
        torch.testing.assert_close(seen["fc"].inputs @ net.fc.weight.T, seen["fc"].outputs)
    assert all(each.cost is not None for each in seen.values())
