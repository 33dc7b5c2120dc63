"""Numbers that are not finite: left out while training, and never saved."""

import torch
from torch import Tensor, nn

from compressnet.errors import TrainingError, listing
from compressnet.training.distributed import norm_statistics

LIMIT = 5
"""Steps in a row that may come to nothing."""


class NormStatistics:
    """The statistics of norm layers, which move in a forward pass before its loss is known.

    Args:
        model: whose statistics they are.
    """

    def __init__(self, model: nn.Module) -> None:
        self.live = norm_statistics(model)
        self.kept: list[Tensor] = []

    def keep(self) -> None:
        """Remember them as they stand."""
        self.kept = [each.clone() for each in self.live]

    def restore_(self) -> None:
        """Make them what they were."""
        for each, before in zip(self.live, self.kept, strict=True):
            each.copy_(before)


def check_finite(model: nn.Module, place: str, cure: str) -> None:
    """Refuse to go on with a model that holds infinite numbers, or what is no number.

    Args:
        model: to look at.
        place: how far training is.
        cure: what to do about it.

    Raises:
        TrainingError: naming its tensors.
    """
    state = model.state_dict().items()
    wrong = [name for name, each in state if each.is_floating_point() and not torch.isfinite(each).all()]
    if wrong:
        raise TrainingError(f"numbers of the model are not finite at {place}: {listing(wrong, 4)}", cure=cure)
