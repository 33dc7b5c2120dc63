"""What dense layers see of images: the second moments of their inputs."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressnet.attention import opened
from compressnet.calibration.calls import Place, met
from compressnet.plan import PlannedLayer

POSITIONS = 40_000  # of all images together, at which a layer is looked at
WIDEST = 4096  # inputs whose moments are taken together


class Moment:
    """E[x xᵀ], and how far it may be from that of other images.

    Attributes:
        total: the sum over samples, shape (groups · parts, in / parts, in / parts).
    """

    def __init__(self) -> None:
        self.total = torch.zeros(())
        self._samples = self._batches = 0
        self._squares: Tensor = torch.zeros(())  # of the batches' sums, of each group and part

    def add_(self, blocks: Iterable[Tensor]) -> None:
        """Add a batch of images.

        Args:
            blocks: rows of shape (samples, groups, in).
        """
        batch = torch.zeros(())
        for rows in blocks:
            inputs = rows.unflatten(2, (parts(rows.shape[2]), -1)).flatten(1, 2).transpose(0, 1)
            batch = batch + inputs.mT @ inputs
            self._samples += len(rows)
        self.total = self.total + batch
        self._squares = self._squares + batch.square().sum((1, 2), dtype=torch.float64)
        self._batches += 1

    def shrunk(self) -> Tensor:
        """G, drawn toward μ I as far as batches of images differ: (1 − ρ) G + ρ μ I, μ the mean of its diagonal.

        ρ = E‖Ĝ − G‖² / E‖Ĝ − μ I‖², of which the first is told by the spread of batches: it makes the expected distance
        to the moments of all images least. Where a layer has more inputs than there are samples, much of G is 0.

        Source: O. Ledoit, M. Wolf: A well-conditioned estimator for large-dimensional covariance matrices, Journal of
        Multivariate Analysis 2004.
        """
        total = self.total.double()
        own = total.square().sum((1, 2))
        mean = total.diagonal(dim1=1, dim2=2).mean(1)
        apart = own - total.shape[1] * mean.square()
        count = self._batches
        spread = (self._squares - own / count) * count / max(1, count - 1)
        share = (spread / apart.clamp(min=torch.finfo(torch.float64).tiny)).clamp(0, 1)[:, None, None]
        identity = torch.eye(total.shape[1], dtype=total.dtype)
        return ((1 - share) * total + share * mean[:, None, None] * identity) / self._samples


class Moments(TorchFunctionMode):
    """E[x xᵀ] of the inputs x of every dense layer, patches of a convolution.

    A layer of more than ``WIDEST`` inputs is taken as several beside each other, of as many inputs.

    Args:
        model: in evaluation mode.
        layers: of its plan.

    Attributes:
        found: by the layer's name.
    """

    def __init__(self, model: nn.Module, layers: Sequence[PlannedLayer]) -> None:
        super().__init__()
        self._model = model
        tensors = dict(model.named_parameters(remove_duplicate=False))
        dense = [layer for layer in layers if not layer.method and layer.parameter in tensors]
        self._places = {id(tensors[layer.parameter]): Place(layer, tensors[layer.parameter]) for layer in dense}
        self._count = 0
        self.found: dict[str, Moment] = {}

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
            share = call.share(result, self._count, POSITIONS)
            moment = self.found.setdefault(layer.name, Moment())
            moment.add_(rows for rows, _ in call.rows(x, result, share, layer.seed or 0))
        return result


def parts(inputs: int) -> int:
    """Into how many equal ones a number of inputs is cut, so that each has at most ``WIDEST``.

    >>> parts(4608), parts(25088), parts(27)
    (2, 7, 1)
    """
    return next(count for count in range(-(-inputs // WIDEST), inputs + 1) if inputs % count == 0)
