"""How many activations a training drops."""

from torch import nn
from torch.nn.modules.dropout import _DropoutNd


def set_dropout_(model: nn.Module, probability: float) -> None:
    """Give all dropout layers one probability. No file holds it: a model that is loaded has its own again.

    Args:
        model: its attention and its stochastic depth keep theirs.
        probability: of an activation to be dropped, 0 ≤ p < 1.
    """
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = probability
