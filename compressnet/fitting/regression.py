"""Regression of a layer's outputs, for weights that are not linear in their parameters."""

import torch
from torch import Tensor

from compressnet.structured import StructuredWeight

LEARNING_RATE = 0.2  # for parameters of about 1
BETAS = (0.9, 0.95)  # of Adam: a few hundred steps are too few for a longer memory
BATCH = 32  # samples a step, which bounds the memory


def fit_(
    weight: StructuredWeight,
    inputs: Tensor,
    targets: Tensor,
    *,
    steps: int,
    lr: float = LEARNING_RATE,
    batch_size: int = BATCH,
) -> None:
    """Fit ``weight.matmul(inputs)`` to ``targets`` by Adam on the squared error, with a cosine learning rate.

    Where that did not lessen the error over all samples, the initial parameters are kept.

    Args:
        weight: fitted in place.
        inputs: shape (samples, in).
        targets: shape (samples, out).
        steps: of the optimiser, one minibatch each.
        lr: the learning rate at the first step.
        batch_size: samples a step.
    """
    parameters = list(weight.parameters())
    initial = [p.detach().clone() for p in parameters]
    least = squared_error(weight, inputs, targets, batch_size)
    optimizer = torch.optim.Adam(parameters, lr=lr, betas=BETAS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    scale = 1 / targets.square().mean().clamp(min=torch.finfo(targets.dtype).tiny)
    batches = max(1, -(-len(inputs) // batch_size))
    with torch.enable_grad():
        for step in range(steps):
            part = slice(step % batches * batch_size, (step % batches + 1) * batch_size)
            optimizer.zero_grad()
            loss = (weight.matmul(inputs[part]) - targets[part]).square().mean() * scale
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        worse = not squared_error(weight, inputs, targets, batch_size) < least  # not a number is worse
        for parameter, value in zip(parameters, initial, strict=True):
            parameter.grad = None
            if worse:
                parameter.copy_(value)


@torch.no_grad()
def squared_error(weight: StructuredWeight, inputs: Tensor, targets: Tensor, batch_size: int = BATCH) -> float:
    """The sum of squared differences between ``weight.matmul(inputs)`` and ``targets``."""
    parts = zip(inputs.split(batch_size), targets.split(batch_size), strict=True)
    return sum((weight.matmul(x) - t).square().sum().item() for x, t in parts)
