"""What dense layers see of images: the second moments of their inputs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressnet.attention import opened
from compressnet.calibration.calls import Place, met
from compressnet.plan import PlannedLayer

POSITIONS = 40_000  # of all images together, at which a layer is looked at
WIDEST = 4096  # inputs whose moments are taken together


class Moments(TorchFunctionMode):
    """E[x xᵀ] of the inputs x of every dense layer, patches of a convolution.

    A layer of more than ``WIDEST`` inputs is taken as several beside each other, of as many inputs.

    Args:
        model: in evaluation mode.
        layers: of its plan.

    Attributes:
        sums: by the layer's name, of shape (groups · parts, in / parts, in / parts).
    """

    def __init__(self, model: nn.Module, layers: Sequence[PlannedLayer]) -> None:
        super().__init__()
        self._model = model
        tensors = dict(model.named_parameters(remove_duplicate=False))
        dense = [layer for layer in layers if not layer.method and layer.parameter in tensors]
        self._places = {id(tensors[layer.parameter]): Place(layer, tensors[layer.parameter]) for layer in dense}
        self._count = 0
        self.sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def measure_(self, images: Tensor, batch_size: int) -> None:
        """Send images, of shape (N, C, H, W), through the model."""
        self._count = len(images)
        with opened(self._model), self:
            for batch in images.split(batch_size):
                self._model(batch)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if call := met(self._places, func, args, kwargs):
            layer, x = call.place.layer, call.arguments["input"]
            positions = result.numel() // layer.shape[0] * self._count // len(x)
            for rows, _ in call.rows(x, result, min(1.0, POSITIONS / positions), layer.seed or 0):
                self._add(layer.name, rows)
        return result

    def _add(self, name: str, rows: Tensor) -> None:
        """Rows of shape (samples, groups, in)."""
        inputs = rows.unflatten(2, (parts(rows.shape[2]), -1)).flatten(1, 2).transpose(0, 1)
        moment = inputs.mT @ inputs
        self.sums[name] = self.sums[name] + moment if name in self.sums else moment


def parts(inputs: int) -> int:
    """Into how many equal ones a number of inputs is cut, so that each has at most ``WIDEST``.

    >>> parts(4608), parts(25088), parts(27)
    (2, 7, 1)
    """
    return next(count for count in range(-(-inputs // WIDEST), inputs + 1) if inputs % count == 0)
