"""What a step of training lowers."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from compressnet.training.quantised import QuantisedParameters
from compressnet.training.run import Run

AUXILIARY_WEIGHT = 0.3  # of each auxiliary head's loss, as GoogLeNet was trained


class Objective:
    """The loss of the labels, of the dense model's word beside them, and of what symbols cost.

    Args:
        run: its settings, its teacher and what a nat of the symbols costs.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def __call__(
        self,
        outputs: Tensor | tuple[Tensor | None, ...],
        images: Tensor,
        labels: Tensor,
        indices: Sequence[int],
        quantised: QuantisedParameters | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The loss of a batch, and the logits.

        Args:
            outputs: of the model for these images: logits of shape (N, classes), and those of auxiliary heads, if any.
            images: as the model took them.
            labels: shape (N,).
            indices: places of the images in the training part.
            quantised: what the model ran through, where it has begun to.
        """
        run = self.run
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        assert logits is not None
        smoothing = run.settings.label_smoothing
        losses = [
            F.cross_entropy(head, labels, label_smoothing=smoothing)
            for head in (logits, *auxiliary)
            if head is not None
        ]
        loss = losses[0] + AUXILIARY_WEIGHT * sum(losses[1:])
        if run.teacher is not None:
            loss = run.teacher.loss(loss, logits, run.teacher.logits(images, indices))
        if quantised is not None and run.rate:
            loss = loss + run.rate * quantised.nats() / len(run.train)
        return loss, logits
