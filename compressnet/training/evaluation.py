"""Accuracy and loss of a model on a part of a data set."""

from dataclasses import asdict, dataclass

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
