"""What a step of training lowers."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.training.hints import Outputs
from compressnet.training.quantised import QuantisedParameters
from compressnet.training.run import Run

AUXILIARY_WEIGHT = 0.3  # of each auxiliary head's loss, as GoogLeNet was trained


class Objective:
    """The loss of a step: by labels, by the dense model's word beside or instead of them, and by what symbols cost.

    Args:
        model: that is trained; layers that are taught keep a hook until :meth:`close`.
        run: its settings, its teacher and what a nat of the symbols costs.
    """

    def __init__(self, model: nn.Module, run: Run) -> None:
        self.run = run
        self.layers = Outputs(model, run.teacher.names if run.teacher else ())

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
            labels: shape (N,); not looked at where the run is without labels.
            indices: places of the images in the training part.
            quantised: what the model ran through, where it has begun to.
        """
        run, teacher = self.run, self.run.teacher
        heads = [head for head in (outputs if isinstance(outputs, tuple) else (outputs,)) if head is not None]
        if run.labels:
            smoothing = run.settings.label_smoothing
            loss = _of_heads(heads, lambda head: F.cross_entropy(head, labels, label_smoothing=smoothing))
        if teacher is not None:
            taught = teacher.logits(images, indices)
            if run.labels:
                loss = teacher.loss(loss, heads[0], taught)
            else:
                loss = _of_heads(heads, partial(teacher.unlabelled_loss, taught=taught))
            if teacher.names:
                loss = loss + teacher.layer_loss(self.layers.take())
        if quantised is not None and run.rate:
            loss = loss + run.rate * quantised.nats() / len(run.train)
        return loss, heads[0]

    def close(self) -> None:
        """Leave the model as it was."""
        self.layers.close()


def _of_heads(heads: Sequence[Tensor], loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The loss of the logits, and a share of those of auxiliary heads."""
    return loss(heads[0]) + AUXILIARY_WEIGHT * sum(loss(head) for head in heads[1:])
