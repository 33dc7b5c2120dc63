"""Training through quantisers: every parameter is trained as it will be stored.

Parameters are wrapped by name, so that no method knows of it, and biases and layers that stay dense are quantised too.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from compressnet.coding.quantisers import Quantiser
from compressnet.training.holding import holding
from compressnet.training.learned import Learned, LearnedCodebook, learned


class QuantisedParameters(nn.ModuleList):
    """The quantisers of a model's parameters, as modules that learn with them.

    Args:
        model: to train.
        quantisers: of tensors by name; those that are no parameters, such as norm statistics, are left out.
    """

    def __init__(self, model: nn.Module, quantisers: Mapping[str, Quantiser]) -> None:
        of = {name: tensor for name, tensor in model.named_parameters() if name in quantisers}
        super().__init__(learned(quantisers[name], tensor) for name, tensor in of.items())
        self.of, self.model = of, (model,)  # in a tuple: it is no part of this module

    def run(self, images: Tensor) -> Tensor:
        """The model's outputs with quantised numbers in the place of its parameters."""
        return functional_call(self.model[0], {name: each(tensor) for name, tensor, each in self._each()}, (images,))

    @property
    def fixed(self) -> Iterator[str]:
        """Names of parameters that learn no more."""
        return (name for name, _, each in self._each() if isinstance(each, LearnedCodebook))

    def nats(self) -> Tensor:
        """What all symbols cost, by running histograms; differentiable where numbers can move to cheaper symbols."""
        return torch.stack([each.nats(tensor) for _, tensor, each in self._each()]).sum()

    @torch.no_grad()
    def entropy_nats(self) -> float:
        """The zero-order entropy of all symbols."""
        total = 0.0
        for _, tensor, each in self._each():
            counts = each.quantiser().symbols(each.numbers(tensor)).unique(return_counts=True)[1].double()
            total += (counts * (counts.sum() / counts).log()).sum().item()
        return total

    def quantisers(self) -> dict[str, Quantiser]:
        """The quantisers as they stand."""
        return {name: each.quantiser() for name, _, each in self._each()}

    def applied(self) -> AbstractContextManager[None]:
        """Within it the model has the quantised numbers themselves, to be evaluated or saved."""
        return holding(list(self.of.values()), [each.numbers(tensor) for _, tensor, each in self._each()])

    def _each(self) -> Iterator[tuple[str, Tensor, Learned]]:
        for (name, tensor), each in zip(self.of.items(), self, strict=True):
            assert isinstance(each, Learned)
            yield name, tensor, each


class Through(nn.Module):
    """A model as its quantisers make it, so that all that learns belongs to one module.

    Args:
        model: to train.
        quantised: its parameters' quantisers.
    """

    def __init__(self, model: nn.Module, quantised: QuantisedParameters) -> None:
        super().__init__()
        self.model, self.quantised = model, quantised

    @property
    def fixed(self) -> list[str]:
        """Names of parameters that learn no more."""
        return [f"model.{name}" for name in self.quantised.fixed]

    def forward(self, images: Tensor) -> Any:
        """The model's outputs with quantised numbers in the place of its parameters."""
        return self.quantised.run(images)
