"""The optimiser and the learning rate of every step."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from compressnet.plan import PlannedBlock, PlannedLayer
from compressnet.recipe import TrainSection


def make_optimizer(
    model: nn.Module, settings: TrainSection, layers: Sequence[PlannedLayer | PlannedBlock] = ()
) -> torch.optim.Optimizer:
    """The optimiser; weight decay leaves biases, norm layers and shared values of norms (one-dimensional ones) alone.

    A shared value stands for many weights; it decays like a dense weight, unless its layer's plan says otherwise. Each
    group of parameters has its ``lr_scale``, which its learning rate is to be multiplied by.

    Args:
        model: whose parameters learn.
        settings: the optimiser, its learning rate and weight decay.
        layers: and blocks of the plan.
    """
    usual: list[tuple[float, float]] = [(1.0, settings.weight_decay), (1.0, 0.0)]
    groups: dict[tuple[float, float], list[nn.Parameter]] = {kind: [] for kind in usual}
    compressed = [layer for layer in layers if isinstance(layer, PlannedBlock) or layer.method]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 or ".structured." in name
            kind = usual[0] if decays else usual[1]
            layer = next((layer for layer in compressed if name.startswith(layer.prefix)), None)
            if layer is not None:
                kind = _scale(layer, name), kind[1] if layer.weight_decay is None else layer.weight_decay
            groups.setdefault(kind, []).append(parameter)
    listed = [
        {"params": parameters, "lr": settings.lr * scale, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(listed, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
    return torch.optim.AdamW(listed, lr=settings.lr, fused=True)


def _scale(layer: PlannedLayer | PlannedBlock, name: str) -> float:
    if isinstance(layer.lr_scale, Mapping):
        return layer.lr_scale.get(name.removeprefix(layer.prefix), 1.0)
    return layer.lr_scale


def learning_rate(settings: TrainSection, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step: a warm-up, then the schedule.

    A function of the step alone, so that a resumed run needs no state for it. The values are those of torch's
    ``LinearLR`` followed by ``CosineAnnealingLR``, ``StepLR`` or ``ConstantLR``, and of ``OneCycleLR``.

    Smith, Topin: Super-Convergence, 2018, https://arxiv.org/abs/1708.07120, is the source of one_cycle.

    >>> settings = TrainSection(epochs=2, lr=1.0, warmup_epochs=1)
    >>> [round(learning_rate(settings, step, 2), 2) for step in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    total = settings.epochs * steps_per_epoch
    warmup = min(round(settings.warmup_epochs * steps_per_epoch), total - 1)
    if settings.schedule == "one_cycle":
        return settings.lr * _one_cycle(step, max(0, warmup - 1), total - 1)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "step":
        return settings.lr * settings.gamma ** (step // (settings.step_epochs * steps_per_epoch))
    return settings.lr * _cosine(1, 0, (step - warmup) / max(1, total - warmup))


def _one_cycle(step: int, top: int, end: int) -> float:
    """From 1 / 25 at step 0 to 1 at the top, and down to 1 / 250,000 at the end: torch's default divisors."""
    if step < top:
        return _cosine(1 / 25, 1, step / top)
    return _cosine(1, 1 / 25 / 1e4, (step - top) / max(1, end - top))


def _cosine(start: float, end: float, part: float) -> float:
    """Half a wave from the start to the end."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * part))
