"""What each parameter learns by: groups against updates written out by hand, learning rates against torch's."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from compressnet.layers import CompressedLinear
from compressnet.plan import PlannedLayer
from compressnet.recipe import TrainSection
from compressnet.training.schedule import learning_rate, make_optimizer

LR, DECAY = 0.1, 0.5


def model_of(**rule: Any) -> tuple[nn.Sequential, PlannedLayer]:
    """A layer that is held as ACDC, and a dense one."""
    torch.manual_seed(0)
    layer = PlannedLayer("0", "linear", (8, 8), method="acdc", config={"depth": 2}, seed=1, **rule)
    return nn.Sequential(CompressedLinear(layer.build(), torch.ones(8)), nn.Linear(8, 4)), layer


def moved(**rule: Any) -> dict[str, Tensor]:
    """How far a step of plain gradient descent moves each parameter, by a gradient of 1 everywhere."""
    model, layer = model_of(**rule)
    settings = TrainSection(lr=LR, optimizer="sgd", momentum=0, weight_decay=DECAY)
    optimizer = make_optimizer(model, settings, [layer])
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    after = dict(model.named_parameters())
    return {name: (before[name] - after[name].detach()) for name in before} | {"held": before["0.structured.spatial"]}


@pytest.mark.parametrize(
    ("rule", "spatial", "spectral", "decay"),
    [
        ({}, 1, 1, DECAY),
        ({"lr_scale": 3.0}, 3, 3, DECAY),
        ({"lr_scale": {"spatial": 24.0, "spectral": 12.0}, "weight_decay": 0.0}, 24, 12, 0),
        ({"lr_scale": {"spectral": 0.0}, "weight_decay": 0.25}, 1, 0, 0.25),
    ],
)
def test_what_is_stored_for_a_weight_moves_by_the_rates_of_its_rule(
    rule: dict[str, Any], spatial: float, spectral: float, decay: float
) -> None:
    steps = moved(**rule)
    torch.testing.assert_close(steps["0.structured.spatial"], LR * spatial * (1 + decay * steps["held"]))
    assert (steps["0.structured.spectral"] == 0).all() == (spectral == 0)
    ratio = steps["0.structured.spectral"].mean() / steps["0.structured.spatial"].mean()
    assert ratio.item() == pytest.approx(spectral / spatial, rel=0.1)


def test_biases_and_other_layers_are_left_alone_by_a_rule() -> None:
    usual, ruled = moved(), moved(lr_scale=7.0, weight_decay=0.0)
    torch.testing.assert_close(ruled["0.bias"], torch.full((8,), LR))
    assert all(torch.equal(usual[name], ruled[name]) for name in ("0.bias", "1.weight", "1.bias"))


def test_every_parameter_is_in_one_group() -> None:
    model, layer = model_of(lr_scale={"spatial": 2.0}, weight_decay=0.1)
    optimizer = make_optimizer(model, TrainSection(weight_decay=DECAY), [layer])
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(grouped) == len({id(parameter) for parameter in grouped}) == len(list(model.parameters()))
    assert {(group["lr_scale"], group["weight_decay"]) for group in optimizer.param_groups} == {
        (1, DECAY),
        (1, 0),
        (2, 0.1),
        (1, 0.1),
    }


EPOCHS, STEPS = 6, 7


def given_by_torch(schedule: str, warmup: int) -> list[float]:
    """The learning rate of every step, by a scheduler of torch's that goes from state to state."""
    total = EPOCHS * STEPS
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR)
    if schedule == "one_cycle":
        scheduler: Any = lr_scheduler.OneCycleLR(
            optimizer, LR, total_steps=total, pct_start=warmup / total, cycle_momentum=False
        )
    else:
        scheduler = {
            "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, total - warmup),
            "constant": lambda: lr_scheduler.ConstantLR(optimizer, 1.0),
            "step": lambda: lr_scheduler.StepLR(optimizer, 2 * STEPS, 0.3),
        }[schedule]()
        if warmup:
            rising = lr_scheduler.LinearLR(optimizer, 1 / warmup, total_iters=warmup - 1)
            scheduler = lr_scheduler.SequentialLR(optimizer, [rising, scheduler], [warmup])
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("warmup_epochs", [0, 1, 1.5])
@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "constant", "step"])
@pytest.mark.filterwarnings("ignore:The epoch parameter in")  # SequentialLR's own
def test_learning_rates_are_those_of_torchs_schedulers(schedule: Any, warmup_epochs: float) -> None:
    if schedule == "one_cycle" and not warmup_epochs:
        pytest.skip("torch's one cycle needs a rise")
    settings = TrainSection(
        epochs=EPOCHS, lr=LR, schedule=schedule, warmup_epochs=warmup_epochs, step_epochs=2, gamma=0.3
    )
    warmup = round(warmup_epochs * STEPS)
    expected = given_by_torch(schedule, warmup)
    if schedule == "step":  # torch counts the epochs of the fall from the end of the warm-up
        plain = given_by_torch("step", 0)
        expected = [LR * (step + 1) / warmup if step < warmup else plain[step] for step in range(EPOCHS * STEPS)]
    given = [learning_rate(settings, step, STEPS) for step in range(EPOCHS * STEPS)]
    assert given == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "constant", "step"])
@pytest.mark.parametrize("warmup_epochs", [0, 9])
def test_a_warm_up_may_be_none_or_longer_than_the_training(schedule: Any, warmup_epochs: float) -> None:
    settings = TrainSection(epochs=1, lr=LR, schedule=schedule, warmup_epochs=warmup_epochs)
    rates = [learning_rate(settings, step, STEPS) for step in range(STEPS)]
    assert all(0 < rate < LR * (1 + 1e-9) for rate in rates)
    assert max(rates) == pytest.approx(LR)
    assert learning_rate(settings, 0, 1) > 0, "a run of one step"
