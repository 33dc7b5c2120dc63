from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.recipe import DistillSection, FinetuneSection
from compressnet.training.distillation import Teacher
from compressnet.training.objective import Objective
from compressnet.training.run import Run

IMAGES, LABELS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1, 1])


class Heads(nn.Module):
    """Logits, and those of two auxiliary heads, one of which is not there."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.aux = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, None]:
        return self.main(x), self.aux(x), None


def run(settings: FinetuneSection, **others: Any) -> Run:
    cpu = torch.device("cpu")
    return Run(settings, [], [], Path(), lambda *_: None, cpu, **others)  # type: ignore[arg-type]


def dense(**settings: Any) -> Teacher:
    torch.manual_seed(1)
    return Teacher(nn.Sequential(nn.Linear(6, 3)), DistillSection(temperature=2, **settings), torch.device("cpu"))


def test_auxiliary_heads_count_three_tenths() -> None:
    model = Heads()
    loss, logits = Objective(model, run(FinetuneSection(label_smoothing=0.1)))(model(IMAGES), IMAGES, LABELS, [])
    main, aux, _ = model(IMAGES)
    smooth = {"label_smoothing": 0.1}
    torch.testing.assert_close(
        loss, F.cross_entropy(main, LABELS, **smooth) + 0.3 * F.cross_entropy(aux, LABELS, **smooth)
    )
    torch.testing.assert_close(logits, main)


def test_without_labels_the_teacher_speaks_alone_and_to_every_head() -> None:
    model, teacher = Heads(), dense(weight=0.25)
    objective = Objective(model, run(FinetuneSection(), teacher=teacher, labels=False))
    loss, _ = objective(model(IMAGES), IMAGES, torch.full((4,), -1), [])
    p = (teacher.model(IMAGES) / 2).softmax(1)
    far = [4 * (p * (p / (head / 2).softmax(1)).log()).sum(1).mean() for head in model(IMAGES)[:2]]
    torch.testing.assert_close(loss, far[0] + 0.3 * far[1])


@pytest.mark.parametrize("labels", [True, False])
def test_what_layers_are_taught_is_added_and_reaches_their_weights(labels: bool) -> None:
    model, loss = nn.Sequential(nn.Linear(6, 3)), {}
    for weight in (0.0, 2.0):
        teacher = dense(features=("0",), feature_weight=weight)
        objective = Objective(model, run(FinetuneSection(), teacher=teacher, labels=labels))
        loss[weight], _ = objective(model(IMAGES), IMAGES, LABELS, [])
        objective.close()
    given, wanted = model(IMAGES), teacher.model(IMAGES)
    torch.testing.assert_close(loss[2.0] - loss[0.0], 2 * ((given - wanted) ** 2).mean() / (wanted**2).mean())
    (loss[2.0] - loss[0.0]).backward()
    assert model[0].weight.grad is not None
