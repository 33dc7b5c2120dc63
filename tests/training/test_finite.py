"""Numbers that are not finite: a step with them is skipped, several in a row stop, and none is saved."""

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressnet
from compressnet.errors import TrainingError
from compressnet.recipe import TrainSection
from compressnet.training import stage
from compressnet.training.descent import Descent
from compressnet.training.finite import LIMIT, check_finite


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()


def descent_of(model: nn.Module, scale: float = 0.0, clip_norm: float | None = None) -> Descent:
    """With losses scaled where a scale is given."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale > 0)
    return Descent(model, TrainSection(lr=0.1, clip_norm=clip_norm), [], scaler)


def step(model: nn.Module, descent: Descent, images: Tensor, factor: float = 1.0) -> bool:
    descent.begin(0.1)
    loss = (model(images) * factor).square().mean()
    return descent.step(loss, loss.item())


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("scale", [0.0, 1.0])
@pytest.mark.parametrize(
    ("images", "factor"),
    [(torch.full((8, 4), math.nan), 1.0), (torch.randn(8, 4), math.inf), (torch.randn(8, 4) * 1e-3, 1e19)],
    ids=["no number", "infinite loss", "infinite gradient"],
)
def test_a_step_that_is_not_finite_changes_nothing(
    images: Tensor, factor: float, scale: float, clip_norm: float | None
) -> None:
    model = network()
    descent = descent_of(model, scale, clip_norm)
    assert step(model, descent, torch.randn(8, 4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    assert not step(model, descent, images, factor)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())
    assert step(model, descent, torch.randn(8, 4))
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_a_gradient_that_overflows_for_its_scale_is_the_scalers_affair() -> None:
    model = network()
    descent = descent_of(model, scale=2.0**127)
    before = model[2].weight.detach().clone()
    assert step(model, descent, torch.randn(8, 4), factor=1e3)
    assert torch.equal(model[2].weight, before)
    assert descent.scaler.get_scale() == 2.0**126


def test_a_clipped_gradient_is_that_of_torch() -> None:
    images, ours, theirs = torch.randn(8, 4), network(), network()
    assert step(ours, descent_of(ours, clip_norm=1e-3), images)
    descent = descent_of(theirs)
    descent.begin(0.1)
    theirs(images).square().mean().backward()
    nn.utils.clip_grad_norm_(theirs.parameters(), 1e-3)
    descent.optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_numbers_that_are_not_finite_are_named() -> None:
    model = network()
    check_finite(model, "epoch 1, step 1", "cure")
    model[1].running_var[2] = math.inf  # type: ignore[index, operator]
    with pytest.raises(TrainingError, match=r"not finite at epoch 1, step 1: 1\.running_var\n  cure"):
        check_finite(model, "epoch 1, step 1", "cure")


class Spoiling:
    """Makes the images of some steps no numbers, as an augmentation that divides by zero would."""

    def __init__(self, spoiled: set[int]) -> None:
        self.spoiled, self.steps = spoiled, itertools.count()

    def __call__(self, images: Tensor) -> Tensor:
        return images * math.nan if next(self.steps) in self.spoiled else images


@pytest.fixture
def converted(lenet: dict[str, Any], tmp_path: Path) -> Iterator[Path]:
    compressnet.convert(lenet, tmp_path / "converted.safetensors")
    return tmp_path / "converted.safetensors"


AFFINE = ["data.augment=affine", "finetune.epochs=2"]


def test_skipped_steps_are_counted(converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "random_affine", Spoiling({0, 5, 6, 7, 8, 25}))
    trained = compressnet.finetune(converted, tmp_path / "out", overrides=AFFINE)
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped"] for line in lines[1:]] == [5, 1]
    assert trained.best.loss < trained.before.loss


@pytest.mark.filterwarnings("ignore:overflow")
def test_many_in_a_row_stop_with_the_last_good_files(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "random_affine", Spoiling(set(range(10, 10 + LIMIT))))
    with pytest.raises(
        TrainingError, match=r"not finite in 5 steps in a row, .* epoch 1, step 15\n.*lower finetune\.lr"
    ):
        compressnet.finetune(converted, tmp_path / "out", overrides=[*AFFINE, "finetune.save_every=7"])
    state = torch.load(tmp_path / "out" / "last.pt", weights_only=True)
    assert (state["standing"]["epoch"], state["standing"]["batch"]) == (0, 14)
    assert all(tensor.isfinite().all() for tensor in state["model"].values() if tensor.is_floating_point())
    compressnet.load(tmp_path / "out" / "best.safetensors")
