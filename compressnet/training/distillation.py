"""Learning from the dense model: its answers, and what its layers give.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, https://arxiv.org/abs/1503.02531
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from compressnet.data.layout import channels_last
from compressnet.data.loading import ahead
from compressnet.plan import taught_layers
from compressnet.progress import SILENT, Progress
from compressnet.recipe import DistillSection
from compressnet.training import distributed
from compressnet.training.evaluation import Divergence
from compressnet.training.hints import Outputs, attention_loss, check_layers, feature_loss


class Teacher:
    """The dense model and how much its word counts.

    Args:
        model: dense; in evaluation mode, and without gradients.
        settings: temperature, weights, and the layers that are taught.
        device: it runs on.

    Attributes:
        names: of the layers that are taught; their outputs must be given to :meth:`layer_loss`.

    Raises:
        PlanError: the model has no such layer.
    """

    def __init__(self, model: nn.Module, settings: DistillSection, device: torch.device) -> None:
        self.model, self.settings, self.device = model.to(device).eval(), settings, device
        self.features = taught_layers(model, settings.features)
        self.attention = taught_layers(model, settings.attention)
        self.names = [*self.features, *self.attention]
        self.layers = Outputs(model, self.names)
        self.kept: Tensor | None = None

    def check(self, student: nn.Module, images: Tensor) -> None:
        """Refuse layers that cannot be taught, by one forward pass; see :func:`check_layers`."""
        if self.names:
            check_layers(student, self.model, self.features, self.attention, images)

    @torch.no_grad()
    def keep(self, loader: DataLoader, progress: Progress = SILENT) -> None:
        """Ask once for every training image, in its order; right where images are neither augmented nor mixed.

        Where layers are taught it is asked at every step all the same: their outputs are too many to keep.
        """
        if self.names:
            return
        parts = []
        with progress.task("asking the dense model", len(loader)) as advance:
            for images, _ in loader:
                parts.append(self.model(images.to(self.device)))
                advance()
        self.kept = torch.cat(parts)

    @torch.no_grad()
    def logits(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """What the dense model says of training images, given with their places in the training part."""
        return self.model(images) if self.kept is None else self.kept[indices]

    def loss(self, labelled: Tensor, logits: Tensor, taught: Tensor) -> Tensor:
        """The labels' loss and the teacher's: ``(1 − weight) · labels' + weight · T² · KL(teacher ‖ student)``.

        Args:
            labelled: the loss of the labels.
            logits: the student's, shape (N, classes).
            taught: the teacher's, shape (N, classes).
        """
        T, weight = self.settings.temperature, self.settings.weight
        return (1 - weight) * labelled + weight * T * T * divergence(logits, taught, T)

    def unlabelled_loss(self, logits: Tensor, taught: Tensor) -> Tensor:
        """The teacher's alone: ``T² · KL(teacher ‖ student)``."""
        T = self.settings.temperature
        return T * T * divergence(logits, taught, T)

    def layer_loss(self, given: Mapping[str, Tensor]) -> Tensor:
        """What layers are taught: ``feature_weight · Σ features' + attention_weight · Σ attention maps'``.

        Args:
            given: the student's outputs by the names of layers, for the images the teacher was last asked for.
        """
        wanted, settings = self.layers.take(), self.settings
        features = [settings.feature_weight * feature_loss(given[name], wanted[name]) for name in self.features]
        maps = [settings.attention_weight * attention_loss(given[name], wanted[name]) for name in self.attention]
        return torch.stack(features + maps).sum()

    @torch.no_grad()
    def judge(
        self,
        model: nn.Module,
        loader: DataLoader,
        device: torch.device,
        *,
        half: torch.dtype | None = None,
        progress: Progress = SILENT,
        title: str = "comparing",
    ) -> Divergence:
        """How far the answers of a model, which is left in the mode it was in, are from the dense model's."""
        was_training = model.training
        model.eval()
        count, total = 0, 0.0
        with progress.task(title, len(loader)) as advance:
            for images, _ in ahead(loader, device):
                images = channels_last(images)
                with torch.autocast(device.type, dtype=half, enabled=half is not None):
                    given, wanted = model(images), self.model(images)
                total += divergence(given.float(), wanted.float()).item() * len(images)
                count += len(images)
                advance(1, divergence=total / count)
        model.train(was_training)
        self.layers.take()
        total, every = distributed.total(total, count)
        return Divergence(int(every), total / every)


def divergence(logits: Tensor, taught: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher ‖ student) at a temperature, in nats; a mean over images."""
    student, teacher = F.log_softmax(logits / temperature, 1), F.log_softmax(taught / temperature, 1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)
