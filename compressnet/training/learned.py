"""Quantisers that learn: numbers are quantised in the forward pass, their gradient goes straight through.

- Uniform: the step is learned. Esser, McKinstry, Bablani, Appuswamy, Modha: Learned Step Size Quantization, ICLR 2020,
  https://arxiv.org/abs/1902.08153; by its logarithm, as Jain, Gural, Wu, Dick: Trained Quantization Thresholds, MLSys
  2020, https://arxiv.org/abs/1903.08066, so that one learning rate suits steps of every size.
- Codebook: assignments are fixed, levels are learned; the gradient of a level is the sum over its members. Han, Mao,
  Dally: Deep Compression, ICLR 2016, section 3.3.
- The rate of symbols is added to the loss. Oktay, Ballé, Singh, Shrivastava: Scalable Model Compression by Entropy
  Penalized Reparameterization, ICLR 2020, https://arxiv.org/abs/1906.06624, which learns the code lengths by a
  network; here they are those of a running histogram.
"""

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from compressnet.coding.quantisers import FLOATS, Codebook, Float, Quantiser, Uniform

MOMENTUM = 0.9  # of a running histogram


class Learned(nn.Module):
    """A quantiser that learns; its numbers are differentiable in the parameter and in what it learns itself."""

    @abstractmethod
    def forward(self, latent: Tensor) -> Tensor:
        """The quantised numbers of a parameter, of its shape."""

    @abstractmethod
    def quantiser(self) -> Quantiser:
        """As it stands."""

    @torch.no_grad()
    def numbers(self, latent: Tensor) -> Tensor:
        """The quantised numbers, the same bits as :meth:`quantiser` gives of them."""
        return self.quantiser()(latent)

    def nats(self, latent: Tensor) -> Tensor:
        """What the symbols cost, where numbers can move to cheaper ones."""
        return latent.new_zeros(())


class LearnedUniform(Learned):
    """A step that is learned, from that of a quantiser.

        number = s · round(clamp(v / s)),    ∂number/∂v = 1 inside the range, ∂number/∂s = round(v / s) − v / s there

    Args:
        start: the quantiser.
        latent: the parameter.
    """

    log_step: Tensor
    counts: Tensor

    def __init__(self, start: Uniform, latent: Tensor) -> None:
        super().__init__()
        self.most, self.rows = start.most, start.rows
        self.log_step = nn.Parameter(torch.tensor(math.log(start.step), device=latent.device))
        weight = 1 / math.sqrt(max(1, latent.numel()) * self.most)  # LSQ, section 2.2
        self.log_step.register_hook(lambda gradient: gradient * weight)
        self.register_buffer("counts", self._count(start.symbols(latent.detach().float())))

    def quantiser(self) -> Uniform:
        """With the step as it stands."""
        return Uniform(self.log_step.detach().exp().item(), self.most, self.rows)

    def forward(self, latent: Tensor) -> Tensor:
        """The multiples of the step; numbers beyond the largest have no gradient."""
        steps = self._steps(latent)
        inside = (latent / steps).clamp(-self.most, self.most)
        return (inside + (inside.round() - inside).detach()) * steps

    def nats(self, latent: Tensor) -> Tensor:
        """Σ −ln p(v / s), p the running histogram of symbols, −ln p linear between neighbours.

        The gradient draws a number towards the likelier one of its two neighbours.
        """
        place = (latent / self._steps(latent)).clamp(-self.most, self.most)
        below = place.detach().floor().clamp(max=self.most - 1)
        with torch.no_grad():
            self.counts.lerp_(self._count(place.round()), 1 - MOMENTUM)
            lengths = -torch.log((self.counts + 0.5) / (self.counts + 0.5).sum())
            index = (below + self.most).long()
        part = place - below
        return ((1 - part) * lengths[index] + part * lengths[index + 1]).sum()

    def _steps(self, latent: Tensor) -> Tensor:
        """As :meth:`Uniform.steps`, differentiable."""
        step = self.log_step.exp()
        return step if self.rows is None else step * Uniform(1.0, self.most, self.rows).steps(latent)

    def _count(self, symbols: Tensor) -> Tensor:
        return torch.bincount((symbols.flatten() + self.most).long(), minlength=2 * self.most + 1).float()


class LearnedCodebook(Learned):
    """Levels that are learned; each number keeps the level that was nearest to it at the start.

    Args:
        start: the quantiser.
        latent: the parameter, which learns no more.
    """

    levels: Tensor
    assignment: Tensor

    def __init__(self, start: Codebook, latent: Tensor) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(start.levels, device=latent.device))
        self.register_buffer("assignment", start.symbols(latent.detach().float()))

    def quantiser(self) -> Codebook:
        """With the levels as they stand, in order; those that have met are one."""
        return Codebook(tuple(self.levels.detach().unique().tolist()))

    def forward(self, latent: Tensor) -> Tensor:
        """The level of each number."""
        return self.levels.index_select(0, self.assignment.flatten()).view(latent.shape)

    @torch.no_grad()
    def numbers(self, latent: Tensor) -> Tensor:
        """The level of each number."""
        return self(latent)


class Cast(Learned):
    """A floating-point type; it learns nothing.

    Args:
        start: the quantiser.
        latent: the parameter.
    """

    def __init__(self, start: Float, latent: Tensor) -> None:
        super().__init__()
        self.dtype = start.dtype

    def quantiser(self) -> Float:
        """The same as at the start."""
        return Float(self.dtype)

    def forward(self, latent: Tensor) -> Tensor:
        """The nearest numbers of the type."""
        return latent + (latent.to(FLOATS[self.dtype]).to(latent.dtype) - latent).detach()


_LEARNED: dict[type[Quantiser], Any] = {Uniform: LearnedUniform, Codebook: LearnedCodebook, Float: Cast}


def learned(start: Quantiser, latent: Tensor) -> Learned:
    """What learns from a quantiser and a parameter on."""
    return _LEARNED[type(start)](start, latent)
