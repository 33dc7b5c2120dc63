"""A model and what its numbers cost: from that it is coded at any distortion."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressnet.allocation.moments import Moments, parts
from compressnet.allocation.rounding import Compensation
from compressnet.allocation.sensitivity import BATCH, sensitivity
from compressnet.allocation.steps import Cost, is_constant
from compressnet.allocation.thrift import Thrift
from compressnet.coding.choose import STATISTICS, choose, holds_weight
from compressnet.coding.quantisers import Float, Quantiser, Uniform
from compressnet.plan import PlannedBlock, PlannedLayer
from compressnet.recipe import ExportSection


class CodedForm:
    """A model whose numbers are put on the steps of any distortion, always from what they were at first.

    Parameters have their steps by what an error of them costs. Norm statistics are bfloat16, a tensor of equal numbers
    stays as it is, and a layer whose rule says its bits has these.

    Args:
        model: in evaluation mode, on the CPU, not frozen; changed in place by :meth:`code_`.
        layers: and blocks of its plan.
        settings: the recipe's export section.
        images: unlabelled, of shape (N, C, H, W). Without them each tensor's squared error counts relative to its
            squared numbers, and nothing makes up for an error.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[PlannedLayer | PlannedBlock],
        settings: ExportSection,
        images: Tensor | None,
    ) -> None:
        state = model.state_dict(keep_vars=True)
        self._tensors = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
        self._before = {name: tensor.detach().clone() for name, tensor in self._tensors.items()}
        self._layers = {layer.parameter: layer for layer in layers if isinstance(layer, PlannedLayer)}
        self._made_up: dict[str, Compensation] = {}
        said = [layer for layer in layers if layer.bits is not None]
        learned = dict(model.named_parameters())
        self._given: dict[str, Quantiser] = {}
        for name, quantiser in choose(self._before, layers, settings).items():
            if is_constant(self._before[name]):
                self._given[name] = Float("float32")
            elif name.endswith(STATISTICS):
                self._given[name] = Float("bfloat16")
            elif name not in learned or any(holds_weight(layer, name) for layer in said):
                self._given[name] = quantiser
        sensitivities = self._by_scale() if images is None else self._by_images(model, images)
        self.costs = {name: Cost.of(self._before[name], each) for name, each in sensitivities.items()}

    @property
    def numel(self) -> int:
        """How many numbers are weighed."""
        return sum(cost.numel for cost in self.costs.values())

    @property
    def bounds(self) -> tuple[float, float]:
        """The distortions below and above which no step changes any more, as log₂ D."""
        ends = [end for cost in self.costs.values() for end in cost.bounds]
        return (min(ends), max(ends)) if ends else (0.0, 0.0)

    @torch.no_grad()
    def code_(self, distortion: float) -> dict[str, Quantiser]:
        """Put the model's numbers on the steps of a distortion.

        Args:
            distortion: D, what the error of a number costs on average, in nats where there are images.

        Returns:
            the quantiser of every tensor of floating-point numbers, by name.
        """
        quantisers = self._given | {name: cost.quantiser(distortion) for name, cost in self.costs.items()}
        for name, quantiser in quantisers.items():
            self._tensors[name].copy_(self._numbers(name, quantiser))
        return quantisers

    def _numbers(self, name: str, quantiser: Quantiser) -> Tensor:
        before, made_up = self._before[name], self._made_up.get(name)
        if made_up is None or not isinstance(quantiser, Uniform) or quantiser.rows is not None:
            return quantiser(before)
        thrift = Thrift.of(before, quantiser) if name in self.costs else Thrift(quantiser, None)
        groups = self._layers[name].groups
        matrix = before.view(groups, len(before) // groups, parts(before[0].numel()), -1).transpose(1, 2)
        rounded = made_up.round(matrix.flatten(0, 1), thrift)
        return rounded.view_as(matrix).transpose(1, 2).reshape(before.shape)

    def _by_scale(self) -> dict[str, float]:
        tensors = {name: tensor for name, tensor in self._before.items() if name not in self._given}
        return {name: 1 / tensor.double().square().sum().item() for name, tensor in tensors.items()}

    def _by_images(self, model: nn.Module, images: Tensor) -> dict[str, float]:
        moments = Moments(model, list(self._layers.values()))
        moments.measure_(images, BATCH)
        for layer in self._layers.values():
            if layer.name in moments.found:
                self._made_up[layer.parameter] = Compensation(moments.found.pop(layer.name).shrunk())
        found = {name: cost.mean().item() for name, cost in sensitivity(model, images).items()}
        shares = {name: made_up.share for name, made_up in self._made_up.items()}
        return {name: cost * shares.get(name, 1.0) for name, cost in found.items() if name not in self._given}
