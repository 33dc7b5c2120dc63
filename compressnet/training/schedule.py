"""The optimiser and the learning rate of every step."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from compressnet.recipe import TrainSection


def make_optimizer(model: nn.Module, settings: TrainSection) -> torch.optim.Optimizer:
    """The optimiser; weight decay leaves biases, norm layers and shared values of norms (one-dimensional ones) alone.

    A shared value stands for many weights; it decays like a dense weight.
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 or ".structured." in name
            (decayed if decays else others).append(parameter)
    groups: Iterable[dict[str, object]] = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
    return torch.optim.AdamW(groups, lr=settings.lr, fused=True)


def learning_rate(settings: TrainSection, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step: a linear warm-up, then a cosine down to zero.

    >>> settings = TrainSection(epochs=2, lr=1.0, warmup_epochs=1)
    >>> [round(learning_rate(settings, step, 2), 2) for step in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    total = settings.epochs * steps_per_epoch
    warmup = min(round(settings.warmup_epochs * steps_per_epoch), total - 1)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
