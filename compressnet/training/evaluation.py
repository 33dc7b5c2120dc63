"""How a model does on a part of a data set, by its labels or by what the dense model says."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from compressnet.data.layout import channels_last
from compressnet.data.loading import ahead
from compressnet.progress import SILENT, Progress
from compressnet.training import distributed


@dataclass(frozen=True)
class Metrics:
    """How a model does on a number of images.

    Args:
        count: images.
        top1: per cent whose label is the most likely class.
        top5: per cent whose label is among the five most likely classes (or all, where there are fewer).
        loss: mean cross-entropy, in nats.
    """

    count: int
    top1: float
    top5: float
    loss: float

    def to_json(self) -> dict[str, float | int]:
        """As written to files and printed by ``--json``."""
        return asdict(self)

    @property
    def rank(self) -> tuple[float, ...]:
        """What is compared to find the best epoch: the accuracy, of equal ones the loss; the larger, the better."""
        return self.top1, -self.loss

    @property
    def lost(self) -> float:
        """What training lowers, in nats an image."""
        return self.loss

    def __str__(self) -> str:
        return f"{self.top1:.2f} %"


@dataclass(frozen=True)
class Divergence:
    """How far a model is from the dense one on a number of images, whose labels nobody looks at.

    Args:
        count: images.
        divergence: KL(dense ‖ model), a mean over images, in nats.
    """

    count: int
    divergence: float

    def to_json(self) -> dict[str, float | int]:
        """As written to files and printed by ``--json``."""
        return asdict(self)

    @property
    def rank(self) -> tuple[float, ...]:
        """The larger, the better."""
        return (-self.divergence,)

    @property
    def lost(self) -> float:
        """What training lowers, in nats an image."""
        return self.divergence

    def __str__(self) -> str:
        return f"divergence {self.divergence:.4f}"


def from_json(figures: Mapping[str, Any]) -> Metrics | Divergence:
    """The inverse of both ``to_json``."""
    return Divergence(**figures) if "divergence" in figures else Metrics(**figures)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: DataLoader,
    device: torch.device,
    *,
    half: torch.dtype | None = None,
    progress: Progress = SILENT,
    title: str = "evaluating",
) -> Metrics:
    """Evaluate a model; it is left in the mode it was in.

    Args:
        model: on the device.
        loader: of the images; of this process's share, where there are several.
        device: to evaluate on.
        half: the type of autocast, or None.
        progress: is told.
        title: of the task.

    Returns:
        of the images of all processes.
    """
    was_training = model.training
    model.eval()
    top1 = top5 = count = 0
    loss = 0.0
    with progress.task(title, len(loader)) as advance:
        for images, labels in ahead(loader, device):
            with torch.autocast(device.type, dtype=half, enabled=half is not None):
                logits = model(channels_last(images))
            logits = logits.float()
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            right = _ranked(logits) == labels[:, None]
            top1 += int(right[:, 0].sum())
            top5 += int(right.sum())
            count += len(labels)
            advance(1, top1=100 * top1 / count)
    model.train(was_training)
    right1, right5, every, loss = distributed.total(top1, top5, count, loss)
    return Metrics(int(every), 100 * right1 / every, 100 * right5 / every, loss / every)


def _ranked(logits: Tensor) -> Tensor:
    return logits.topk(min(5, logits.shape[1]), dim=1).indices
