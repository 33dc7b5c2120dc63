"""Weights that go from dense to compressed while they are trained, since sharing values at once destroys the network.

Layers are wrapped by name, so that no method knows of it.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.layers import CompressedLayer
from compressnet.structured import ConvGeometry, StructuredWeight


class Mixture:
    """The compressed layers of a model, which in training run with W = (1 − t) · dense + t · compressed.

    In evaluation they run as they are stored. The layer behind a block has no dense weight, and is not wrapped.

    Args:
        model: whose layers are wrapped.
        dense: the dense model; its weights stay as they are.
        heads: names of the layers behind blocks.
        device: of the model.
    """

    def __init__(self, model: nn.Module, dense: nn.Module, device: torch.device, heads: Collection[str] = ()) -> None:
        self.share = torch.zeros((), device=device)
        self.layers = {
            name: layer
            for name, layer in model.named_modules()
            if isinstance(layer, CompressedLayer) and name not in heads
        }
        for name, layer in self.layers.items():
            weight = dense.get_parameter(f"{name}{layer.parameter}").detach().to(device, copy=True)
            # beside the parameters of the module: its state_dict stays as it is
            layer.__dict__["structured"] = MixedWeight(layer.structured, weight, self.share)

    def to_(self, share: float) -> None:
        """Set t; at 1 nothing is wrapped any more."""
        self.share.fill_(share)
        if share >= 1:
            for layer in self.layers.values():
                layer.__dict__.pop("structured", None)


class MixedWeight:
    """Stands where a layer looks for its weight.

    Args:
        weight: the compressed one.
        start: the dense one.
        share: t.
    """

    def __init__(self, weight: StructuredWeight, start: Tensor, share: Tensor) -> None:
        self.weight, self.start, self.share = weight, start, share

    def frozen(self) -> Tensor | None:
        """What the compressed weight keeps; in training, it keeps nothing."""
        return self.weight.frozen()

    def dense(self) -> Tensor:
        """W."""
        return self._mixed(self.start, self.weight.dense()) if self.weight.training else self.weight.dense()

    def matmul(self, x: Tensor) -> Tensor:
        """``x Wᵀ``."""
        if not self.weight.training:
            return self.weight.matmul(x)
        if self.weight.runs_product(self.weight.shape):
            return self._mixed(F.linear(x, self.start.flatten(1)), self.weight.matmul(x))
        return F.linear(x, self.dense().flatten(1))

    def affine(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``x Wᵀ`` and a bias."""
        if not self.weight.training:
            return self.weight.affine(x, bias)
        y = self.matmul(x)
        return y if bias is None else y + bias.to(y.dtype)

    def conv2d(self, x: Tensor, geometry: ConvGeometry) -> Tensor:
        """The convolution of x with W."""
        if not self.weight.training:
            return self.weight.conv2d(x, geometry)
        if self.weight.runs_product(self.weight.shape, geometry.groups):
            return self._mixed(geometry.convolve(x, self.start), self.weight.conv2d(x, geometry))
        return geometry.convolve(x, self.dense())

    def _mixed(self, start: Tensor, end: Tensor) -> Tensor:
        return start + self.share * (end - start)
