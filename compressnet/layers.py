"""Layers that are generic over their weight: they keep everything else of the layer they replace."""

from abc import abstractmethod
from typing import ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.block import Block
from compressnet.structured import ConvGeometry, StructuredWeight

Ordinary = TypeVar("Ordinary", nn.Linear, nn.Conv2d)


class CompressedLayer(nn.Module):
    """What all layers share: a structured weight, an optional bias, and ``weight`` as the dense tensor."""

    parameter: ClassVar[str] = ".weight"
    """What the dense weight's name has behind that of the layer."""

    def __init__(self, structured: StructuredWeight, bias: Tensor | None) -> None:
        super().__init__()
        self.structured = structured
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """The dense weight, for callers that pass it on to ``F.linear`` themselves (as Swin's attention does)."""
        return self.structured.dense()

    @abstractmethod
    def ordinary(self) -> nn.Module:
        """The layer of ``torch.nn`` that computes the same, on the same device; it shares the bias."""

    @torch.no_grad()
    def _filled(self, layer: Ordinary) -> Ordinary:
        """A layer with the dense weight, and the bias."""
        layer.weight = nn.Parameter(self.structured.to_dense().contiguous())
        layer.bias = self.bias  # type: ignore[assignment]
        return layer.train(self.training)


class CompressedLinear(CompressedLayer):
    """``nn.Linear`` over a structured weight of shape (out, in)."""

    def __init__(self, structured: StructuredWeight, bias: Tensor | None = None) -> None:
        super().__init__(structured, bias)
        self.out_features, self.in_features = structured.shape

    @classmethod
    def like(cls, layer: nn.Linear, structured: StructuredWeight) -> Self:
        """The layer that stands where ``layer`` stood; the bias is copied."""
        return cls(structured, layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (…, in) to (…, out); with a kept weight as ``nn.Linear`` does."""
        if (kept := self.structured.frozen()) is not None:
            return F.linear(x, kept, self.bias)
        return self.structured.affine(x, self.bias)

    def ordinary(self) -> nn.Linear:
        """The ``nn.Linear`` that computes the same."""
        return self._filled(nn.Linear(self.in_features, self.out_features, device="meta"))


class CompressedConv2d(CompressedLayer):
    """``nn.Conv2d`` over a structured weight of shape (out, in / groups, kh, kw)."""

    def __init__(self, structured: StructuredWeight, geometry: ConvGeometry, bias: Tensor | None = None) -> None:
        super().__init__(structured, bias)
        self.geometry = geometry
        self.out_channels = structured.shape[0]
        self.in_channels = structured.shape[1] * geometry.groups
        self.kernel_size = tuple(structured.shape[2:])
        self.stride, self.padding = geometry.stride, geometry.padding
        self.dilation, self.groups = geometry.dilation, geometry.groups
        self.padding_mode = geometry.padding_mode

    @classmethod
    def like(cls, layer: nn.Conv2d, structured: StructuredWeight) -> Self:
        """The layer that stands where ``layer`` stood; the bias is copied."""
        return cls(structured, ConvGeometry.of(layer), layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (N, in, H, W) to (N, out, H', W'); with a kept weight as ``nn.Conv2d`` does."""
        if (kept := self.structured.frozen()) is not None:
            return self.geometry.convolve(x, kept, self.bias)
        y = self.structured.conv2d(x, self.geometry)
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]

    def ordinary(self) -> nn.Conv2d:
        """The ``nn.Conv2d`` that computes the same."""
        height, width = self.kernel_size
        convolution = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            (height, width),
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,  # type: ignore[arg-type]
            device="meta",
        )
        return self._filled(convolution)


def freeze(model: nn.Module) -> None:
    """Keep the dense weight of every compressed layer for inference."""
    for module in model.modules():
        if isinstance(module, StructuredWeight):
            module.freeze()


def unfreeze(model: nn.Module) -> None:
    """Forget the kept dense weights."""
    for module in model.modules():
        if isinstance(module, StructuredWeight):
            module.unfreeze()


def remake_(model: nn.Module, device: str) -> None:
    """Make the tables of every compressed layer and block on a device."""
    for module in model.modules():
        if isinstance(module, StructuredWeight | Block):
            module.remake_(device)
