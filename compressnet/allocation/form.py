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
        self._means: dict[str, Tensor] = {}
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
        biases = {bias: name for name in self._means if (bias := self._layers[name].bias) in self.costs}
        for name in sorted(quantisers, key=biases.__contains__):
            numbers = self._before[name]
            if name in biases:
                numbers = numbers - self._mean_error(biases[name])
            self._tensors[name].copy_(self._rounded(name, numbers, quantisers[name]))
        return quantisers

    def _rounded(self, name: str, numbers: Tensor, quantiser: Quantiser) -> Tensor:
        made_up = self._made_up.get(name)
        if made_up is None or not isinstance(quantiser, Uniform) or quantiser.rows is not None:
            return quantiser(numbers)
        thrift = Thrift.of(numbers, quantiser) if name in self.costs else Thrift(quantiser, None)
        return self._together(name, made_up.round(self._apart(name, numbers), thrift))

    def _mean_error(self, name: str) -> Tensor:
        """The mean of what a weight's error adds to the outputs, which the bias makes up for."""
        error = self._apart(name, self._tensors[name] - self._before[name])
        means = error @ self._means[name].to(error)[:, :, None]
        return means.view(self._layers[name].groups, -1, error.shape[1]).sum(1).flatten()

    def _apart(self, name: str, weight: Tensor) -> Tensor:
        """A weight as matrices of shape (groups · parts, out, in / parts)."""
        groups = self._layers[name].groups
        matrix = weight.view(groups, len(weight) // groups, parts(weight[0].numel()), -1)
        return matrix.transpose(1, 2).flatten(0, 1)

    def _together(self, name: str, matrices: Tensor) -> Tensor:
        groups, shape = self._layers[name].groups, self._before[name].shape
        return matrices.unflatten(0, (groups, -1)).transpose(1, 2).reshape(shape)

    def _by_scale(self) -> dict[str, float]:
        tensors = {name: tensor for name, tensor in self._before.items() if name not in self._given}
        return {name: 1 / tensor.double().square().sum().item() for name, tensor in tensors.items()}

    def _by_images(self, model: nn.Module, images: Tensor) -> dict[str, float]:
        moments = Moments(model, list(self._layers.values()))
        moments.measure_(images, BATCH)
        shares = {}
        for layer in self._layers.values():
            if (moment := moments.found.pop(layer.name, None)) is not None:
                made_up = self._made_up[layer.parameter] = Compensation(moment.shrunk())
                shares[layer.parameter] = made_up.share * moment.left
                if moment.biased:
                    self._means[layer.parameter] = moment.mean
        found = {name: cost.mean().item() for name, cost in sensitivity(model, images).items()}
        return {name: cost * shares.get(name, 1.0) for name, cost in found.items() if name not in self._given}
