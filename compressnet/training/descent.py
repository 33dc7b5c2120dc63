"""A step down the gradient, or none where it is not finite."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from compressnet.plan import PlannedBlock, PlannedLayer
from compressnet.recipe import TrainSection
from compressnet.training.finite import NormStatistics
from compressnet.training.schedule import make_optimizer


class Descent:
    """The optimiser, and what stands between a loss and it: scaling, clipping, and whether all of it is finite.

    Args:
        model: whose parameters learn.
        settings: the optimiser and its rates, and the largest norm of a gradient.
        layers: and blocks of the plan, which may have rates of their own.
        scaler: of losses, for float16.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSection,
        layers: Sequence[PlannedLayer | PlannedBlock],
        scaler: torch.amp.GradScaler,
    ) -> None:
        self.optimizer, self.scaler, self.settings = make_optimizer(model, settings, layers), scaler, settings
        self.statistics = NormStatistics(model)

    def add(self, module: nn.Module) -> None:
        """Let the parameters of another module learn, too, without weight decay."""
        group = {"params": list(module.parameters()), "lr": self.settings.lr, "lr_scale": 1.0, "weight_decay": 0.0}
        self.optimizer.add_param_group(group)

    def begin(self, rate: float) -> None:
        """Before the forward pass of a step.

        Args:
            rate: the learning rate, of parameters whose ``lr_scale`` is 1.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.optimizer.zero_grad()
        self.statistics.keep()

    def step(self, loss: Tensor, value: float) -> bool:
        """After it: learn from its loss.

        Where the loss or its gradient is not finite, nothing changes; what the forward pass did to the statistics of
        norm layers is undone.

        Args:
            loss: whose gradient is gone down.
            value: of the loss.

        Returns:
            whether they are finite. A gradient that overflows for being scaled counts as such: the scaler makes the
            scale smaller.
        """
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        learning = [each for group in self.optimizer.param_groups for each in group["params"]]
        norm = get_total_norm([each.grad for each in learning if each.grad is not None])
        right = math.isfinite(value)
        scaled = self.scaler.get_scale() > 1
        if right and math.isfinite(norm.item()):
            if self.settings.clip_norm:
                clip_grads_with_norm_(learning, self.settings.clip_norm, norm)
            self.scaler.step(self.optimizer)
        else:
            self.statistics.restore_()
            right = right and scaled
        self.scaler.update()
        return right

    def state_dict(self) -> dict[str, Any]:
        """Of the optimiser and the scaler."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
