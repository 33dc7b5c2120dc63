"""What an error of a layer's outputs costs: how far it moves the model's answer, to second order."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressnet.calibration.calls import Place, met
from compressnet.maths.hashing import normal, uniform

MOST = 1024  # images whose gradients are averaged
WIDEST = 2048  # outputs; of wider layers only the diagonal is kept
_DAMPING = 0.05  # of the identity: the gradients of some images do not span all outputs


class Sensitivity(TorchFunctionMode):
    """Γ = E[g gᵀ] of every place, g the gradient of −log p of a class drawn from the model's own answer p.

    With g as it is, Γ is the Fisher information of the layer's outputs: an error e of them changes the answer by a
    divergence of ½ eᵀ Γ e to second order, where positions and layers are taken by themselves. Here g is scaled to
    length 1 for each image, so that an image that the model is sure of, whose gradient all but vanishes, says as much
    as one that it doubts. No labels are needed. An answer that is not a row of logits an image is taken as the mean of
    a unit Gaussian.

    Source: J. Martens, R. Grosse: Optimizing Neural Networks with Kronecker-factored Approximate Curvature, ICML 2015.
    """

    def __init__(self, places: Mapping[int, Place]) -> None:
        super().__init__()
        self.places = places
        self.sums: dict[str, Tensor] = {}

    def measure_(self, model: nn.Module, images: Tensor, batch_size: int) -> None:
        """Set the cost of every place that images reach.

        Args:
            model: in evaluation mode.
            images: shape (N, C, H, W).
            batch_size: images whose activations are in memory at a time.
        """
        images = images[:MOST]
        draws = uniform(len(images), seed=0)
        for batch, drawn in zip(images.split(batch_size), draws.split(batch_size), strict=True):
            with torch.enable_grad():
                batch = batch.detach().clone().requires_grad_()
                with self:
                    answer = model(batch)
                if not isinstance(answer, Tensor) or not answer.requires_grad:
                    return
                torch.autograd.grad(_surprise(answer, drawn), batch)
        for place in self.places.values():
            if (total := self.sums.get(place.layer.name)) is not None:
                place.cost = _damped(total)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        call = met(self.places, func, args, kwargs)
        if call and result.requires_grad:
            channels = 1 if result.dim() == 4 and call.geometry else -1
            result.register_hook(lambda gradient: self._add(call.place, gradient.movedim(channels, -1)))
        return result

    @torch.no_grad()
    def _add(self, place: Place, gradient: Tensor) -> None:
        lengths = gradient.flatten(1).norm(dim=1).clamp(min=torch.finfo(gradient.dtype).tiny)
        gradient = gradient / lengths.view(-1, *[1] * (gradient.dim() - 1))
        rows = gradient.reshape(-1, place.layer.groups, place.layer.shape[0] // place.layer.groups).transpose(0, 1)
        wide = rows.shape[2] > WIDEST
        total = rows.square().sum(1)[:, :, None] if wide else rows.mT @ rows
        name = place.layer.name
        self.sums[name] = self.sums[name] + total if name in self.sums else total


def _surprise(answer: Tensor, draws: Tensor) -> Tensor:
    """A scalar whose gradient is that of −log p of a draw from the answer.

    Args:
        answer: of the model.
        draws: uniform in (0, 1), one an image.
    """
    if answer.dim() != 2:
        return (answer * normal(answer.numel(), seed=0).to(answer).view_as(answer)).sum()
    logs = answer.log_softmax(1)
    below = logs.detach().exp().cumsum(1) < draws.to(answer)[:, None]
    drawn = below.sum(1, keepdim=True).clamp(max=answer.shape[1] - 1)
    return -logs.gather(1, drawn).sum()


def _damped(total: Tensor) -> Tensor | None:
    """Γ with a diagonal of mean 1, and some of the identity; None where nothing depends on the outputs."""
    diagonal = total if total.shape[2] == 1 else total.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean()
    if not mean > 0:
        return None
    identity = torch.ones(()) if total.shape[2] == 1 else torch.eye(total.shape[1])
    return total / mean * (1 - _DAMPING) + _DAMPING * identity.to(total)
