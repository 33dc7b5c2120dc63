"""A form that is not a linear map: a block stands for a run of consecutive layers."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compressnet.keys import Keys


class BlockConfig(Keys):
    """A block's recipe keys."""


class Block(nn.Module, ABC):
    """Features of an input vector, held in few numbers; the linear layer that follows is made to fit them.

    What is stored is exactly ``state_dict()``; tables are a pure function of (inputs, config, seed), are registered as
    non-persistent buffers and made by :meth:`remake_`.

    Args:
        ins: length of an input.
        config: the block's recipe keys.
        seed: of the block's hashes, 32 bits.
        device: of the parameters; on ``meta`` nothing is computed, which is how a block is priced.
        dtype: of the parameters.
    """

    name: ClassVar[str]
    """What a recipe calls the block; also its file, test and docs page."""
    Config: ClassVar[type[BlockConfig]]
    """The block's recipe keys."""
    weight_decay: ClassVar[float | None] = None
    """The weight decay of the parameters where a recipe says nothing else; None is that of the training section."""

    def __init__(
        self,
        ins: int,
        config: Any,
        seed: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.ins, self.outs = ins, self.features(ins, config)
        self.config = config
        self.seed = seed
        self._allocate_(torch.device(device or "cpu"), dtype)
        self.remake_(device or "cpu")
        if torch.device(device or "cpu").type != "meta":
            self.draw_()

    @classmethod
    @abstractmethod
    def features(cls, ins: int, config: Any) -> int:
        """How many features it gives."""

    @classmethod
    def rejects(cls, ins: int, config: Any) -> str | None:
        """Why it cannot take inputs of this length, or None."""
        return None

    @classmethod
    @abstractmethod
    def macs_per_input(cls, ins: int, config: Any) -> int:
        """Multiply–accumulates of one input vector, as executed."""

    @abstractmethod
    def _allocate_(self, device: torch.device, dtype: torch.dtype) -> None:
        """Register what is stored, empty."""

    @abstractmethod
    def draw_(self) -> None:
        """Set the initial values, from the specified hash."""

    def remake_(self, device: torch.device | str) -> None:
        """Make the tables, which are functions of (inputs, config, seed), on a device."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Shape (…, ins) to (…, outs)."""

    @classmethod
    @abstractmethod
    def linear_shapes(cls, ins: int, config: Any) -> list[tuple[int, int]]:
        """Of the linear maps that compute the same with a ReLU behind each: outputs and inputs, in order."""

    @abstractmethod
    def linear_maps(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Those maps, each as its weight and its bias."""

    @torch.no_grad()
    def ordinary(self) -> nn.Sequential:
        """The layers of ``torch.nn`` that compute the same, on the same device: far more numbers than are stored."""
        layers = nn.Sequential()
        for weight, bias in self.linear_maps():
            linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
            linear.weight, linear.bias = nn.Parameter(weight.contiguous()), nn.Parameter(bias.contiguous())
            layers.extend((linear, nn.ReLU()))
        return layers.train(self.training)

    @property
    def ordinary_numel(self) -> int:
        """How many numbers those layers have."""
        return sum(outs * (ins + 1) for outs, ins in self.linear_shapes(self.ins, self.config))

    @property
    def numel(self) -> int:
        """How many numbers are stored."""
        return sum(tensor.numel() for tensor in self.state_dict().values())

    def extra_repr(self) -> str:
        """Inputs, features, and how many numbers hold them."""
        return f"{self.ins} -> {self.outs}, numel={self.numel}"
