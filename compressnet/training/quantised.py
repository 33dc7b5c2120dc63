"""Training through quantisers: every parameter is trained as it will be stored.

Parameters are wrapped by name, so that no method knows of it, and biases and layers that stay dense are quantised too.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from compressnet.coding.quantisers import Quantiser
from compressnet.training.holding import holding
from compressnet.training.learned import Learned, learned


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
