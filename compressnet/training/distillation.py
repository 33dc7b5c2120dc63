"""Learning from the dense model's logits beside the labels.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, https://arxiv.org/abs/1503.02531
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from compressnet.progress import SILENT, Progress
from compressnet.recipe import DistillSection


class Teacher:
    """The dense model and how much its word counts.

    The loss is ``(1 − weight) · labels' + weight · T² · KL(teacher ‖ student)`` at temperature T.

    Args:
        model: dense; in evaluation mode, and without gradients.
        settings: temperature and weight.
        device: it runs on.
    """

    def __init__(self, model: nn.Module, settings: DistillSection, device: torch.device) -> None:
        self.model, self.settings, self.device = model.to(device).eval(), settings, device
        self.kept: Tensor | None = None

    @torch.no_grad()
    def keep(self, loader: DataLoader, progress: Progress = SILENT) -> None:
        """Ask once for every training image, in its order; right where images are neither augmented nor mixed."""
        parts = []
        with progress.task("asking the dense model", len(loader)) as advance:
            for images, _ in loader:
                parts.append(self.model(images.to(self.device)))
                advance()
        self.kept = torch.cat(parts)
        self.model.cpu()

    @torch.no_grad()
    def logits(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """What the dense model says of training images, given with their places in the training part."""
        return self.model(images) if self.kept is None else self.kept[indices]

    def loss(self, labelled: Tensor, logits: Tensor, taught: Tensor) -> Tensor:
        """The labels' loss and the teacher's.

        Args:
            labelled: the loss of the labels.
            logits: the student's, shape (N, classes).
            taught: the teacher's, shape (N, classes).
        """
        T, weight = self.settings.temperature, self.settings.weight
        student, teacher = F.log_softmax(logits / T, 1), F.log_softmax(taught / T, 1)
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return (1 - weight) * labelled + weight * T * T * divergence
