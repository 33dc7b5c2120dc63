"""Norm layers in fewer numbers: folded into the convolution before them, or a scale and a shift a channel.

In evaluation a batch norm computes a · x + b, with a = γ / √(σ² + ε) and b = β − a · μ of each channel: two numbers, of
four that are stored. Where x is the output of a convolution and goes nowhere else, the weight of that takes a, and the
bias that it may have goes into b.
"""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from compressnet.layers import CompressedConv2d, CompressedLinear

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
LAYERS = (nn.Conv2d, nn.Linear, CompressedConv2d, CompressedLinear)


@torch.no_grad()
def fold_norms_(model: nn.Module, image: Tensor) -> dict[str, str | None]:
    """Bring the batch norms of a model into fewer numbers; in evaluation it computes the same, to rounding.

    Every norm gets the mean 0 and the variance 1. The weight of the layer before it takes a where it can, see
    :meth:`compressnet.structured.StructuredWeight.scale_rows_`: then the norm's weight is a constant, too. Modules stay
    as they are, and so do the names and shapes of what is stored.

    Args:
        model: in evaluation mode; changed in place.
        image: shape (1, C, H, W), that tells which layer a norm follows.

    Returns:
        of every norm, the layer that took its scale, or None.
    """
    before = _Trace(model).follow(image)
    names = {module: name for name, module in model.named_modules()}
    taken: dict[str, str | None] = {}
    for name, norm in model.named_modules():
        if not isinstance(norm, NORMS) or not norm.affine or norm.running_mean is None or norm.running_var is None:
            continue
        layer = before.get(norm)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.sub_(scale * norm.running_mean)
        if layer is not None and layer.bias is not None:
            norm.bias.add_(scale * layer.bias)
            layer.bias.zero_()
        took = layer is not None and _scale_rows_(layer, scale)
        norm.running_mean.zero_()
        norm.running_var.fill_(1)
        norm.weight.copy_((torch.ones_like(scale) if took else scale) * (1 + norm.eps) ** 0.5)
        taken[name] = names[layer] if took and layer is not None else None
    return taken


def _scale_rows_(layer: nn.Module, factors: Tensor) -> bool:
    if isinstance(layer, CompressedConv2d | CompressedLinear):
        layer.structured.unfreeze()
        return layer.structured.scale_rows_(factors)
    assert isinstance(layer.weight, Tensor)
    layer.weight.mul_(factors.view(-1, *[1] * (layer.weight.dim() - 1)))
    return True


class _Trace(TorchFunctionMode):
    """Which layer's outputs go to which norm, and nowhere else."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._made: dict[int, tuple[nn.Module, Tensor]] = {}  # outputs by their id; kept, so that ids are theirs
        self._read: dict[nn.Module, nn.Module] = {}
        self._runs: Counter[nn.Module] = Counter()
        self._uses: Counter[nn.Module] = Counter()

    def follow(self, image: Tensor) -> dict[nn.Module, Any]:
        """The layer before each norm that follows one."""
        handles = []
        for module in self._model.modules():
            if isinstance(module, NORMS):
                handles.append(module.register_forward_pre_hook(self._reads))
            elif type(module) in LAYERS:
                handles.append(module.register_forward_hook(self._makes))
        try:
            with self:
                answer = self._model(image)
            self._use(answer)
        finally:
            for handle in handles:
                handle.remove()
        owners = Counter(id(p) for _, p in self._model.named_parameters(remove_duplicate=False))
        return {
            norm: layer
            for norm, layer in self._read.items()
            if self._runs[norm] == self._runs[layer] == self._uses[layer] == 1
            and all(owners[id(parameter)] == 1 for parameter in layer.parameters())
        }

    def _makes(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        self._runs[layer] += 1
        self._made[id(output)] = layer, output

    def _reads(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._runs[norm] += 1
        if id(inputs[0]) in self._made:
            self._read[norm] = self._made[id(inputs[0])][0]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            self._use((args, kwargs))
        return result

    def _use(self, tree: Any) -> None:
        for leaf in tree_leaves(tree):
            if id(leaf) in self._made:
                self._uses[self._made[id(leaf)][0]] += 1
