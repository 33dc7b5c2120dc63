"""The one abstraction: a weight is an object with its own parameters; a layer is generic over it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.frozen import Freezable
from compressnet.keys import Keys

NUMBERS = 1 << 19
"""Of a dense weight that are looked at together."""


class MethodConfig(Keys):
    """A method's recipe keys."""

    sizes: ClassVar[tuple[str, ...]] = ()
    """The keys that set how many numbers are stored. Where ``ratio`` is among them, exactly one of them is given."""

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        given = [key for key in self.sizes if getattr(self, key) is not None]
        if "ratio" in self.sizes and len(given) != 1:
            raise ValueError(
                f"exactly one of {', '.join(self.sizes)} is to be given, not {' and '.join(given) or 'none'}"
            )
        return self


@dataclass(frozen=True)
class ConvGeometry:
    """How a convolution slides: everything of ``nn.Conv2d`` but its weight and bias."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] | str = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    padding_mode: str = "zeros"
    border: tuple[int, ...] = (0, 0, 0, 0)  # left, right, top, bottom; used where padding_mode is not zeros

    @classmethod
    def of(cls, conv: nn.Conv2d) -> "ConvGeometry":
        """The geometry of a convolution."""
        stride, dilation = _pair(conv.stride), _pair(conv.dilation)
        padding = conv.padding if isinstance(conv.padding, str) else _pair(conv.padding)
        border = tuple(conv._reversed_padding_repeated_twice)
        return cls(stride, padding, dilation, conv.groups, conv.padding_mode, border)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """``F.conv2d`` with this geometry.

        Args:
            x: shape (N, C, H, W).
            weight: shape (out, C / groups, kh, kw).
            bias: shape (out,).

        Returns:
            shape (N, out, H', W').
        """
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self.border, mode=self.padding_mode), (0, 0)
        return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def patches(self, x: Tensor, kernel: Sequence[int]) -> Tensor:
        """What a kernel sees at each of its positions, as a view of the padded input.

        Args:
            x: shape (N, C, H, W).
            kernel: height and width.

        Returns:
            shape (N, C, H', W', kh, kw).
        """
        if self.padding_mode != "zeros":
            x = F.pad(x, self.border, mode=self.padding_mode)
        elif self.padding == "same":
            spans = [step * (side - 1) for step, side in zip(self.dilation, kernel, strict=True)]
            x = F.pad(x, [edge for span in reversed(spans) for edge in (span // 2, span - span // 2)])
        elif not isinstance(self.padding, str):
            x = F.pad(x, [self.padding[1], self.padding[1], self.padding[0], self.padding[0]])
        for axis, step, side, stride in zip((2, 3), self.dilation, kernel, self.stride, strict=True):
            x = x.unfold(axis, step * (side - 1) + 1, stride)[..., ::step]
        return x

    def sample(self, x: Tensor) -> Tensor:
        """What a 1×1 kernel sees: the padded input at the strided positions, channels last.

        Args:
            x: shape (N, C, H, W).

        Returns:
            shape (N, H', W', C).
        """
        if self.padding_mode != "zeros" or self.padding not in ((0, 0), "same", "valid"):
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, self.border, mode=mode)
        return x[:, :, :: self.stride[0], :: self.stride[1]].permute(0, 2, 3, 1)


def _pair(value: Sequence[int]) -> tuple[int, int]:
    return int(value[0]), int(value[1])


class StructuredWeight(Freezable, ABC):
    """A weight of shape (out, in) or (out, in / groups, kh, kw), held in fewer numbers.

    What is stored is exactly ``state_dict()``; tables are a pure function of (shape, config, seed), are registered as
    non-persistent buffers and made by :meth:`remake_`.

    Args:
        shape: of the dense weight.
        config: the method's recipe keys.
        seed: of the layer's hashes, 32 bits.
        device: of the parameters; on ``meta`` nothing is computed, which is how a weight is priced.
        dtype: of the parameters.
    """

    name: ClassVar[str]
    """What a recipe calls the method; also its file, test and docs page."""
    Config: ClassVar[type[MethodConfig]]
    """The method's recipe keys."""
    linear: ClassVar[bool]
    """Whether ``to_dense`` is linear in the parameters."""
    exact_projection: ClassVar[bool]
    """Whether ``project_`` is the least-squares optimum in weight space."""
    runs: ClassVar[Literal["dense", "product"]]
    """What a forward pass executes: a product with the dense weight, or the method's own; see ``runs_product``."""
    uses_inputs: ClassVar[bool] = False
    """Whether ``project_`` is better for knowing what the layer sees."""
    weight_decay: ClassVar[float | None] = None
    """The weight decay of the parameters where a recipe says nothing else; None is that of the training section."""

    def __init__(
        self,
        shape: Sequence[int],
        config: Any,
        seed: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.shape = torch.Size(shape)
        self.config = config
        self.seed = seed
        self._allocate_(torch.device(device or "cpu"), dtype)

    @abstractmethod
    def _allocate_(self, device: torch.device, dtype: torch.dtype) -> None:
        """Register the parameters with their initial values, then the tables; on ``meta`` shapes alone."""

    @classmethod
    def rejects(cls, shape: Sequence[int], config: Any) -> str | None:
        """Why this method cannot hold a weight of this shape, or None."""
        return None

    @classmethod
    def remark(cls, shape: Sequence[int], config: Any) -> str | None:
        """What a user should know about this method at this shape, or None."""
        return None

    @classmethod
    def read_config(cls, keys: Mapping[str, Any]) -> MethodConfig:
        """The config of a file's plan; a method whose :meth:`packed` has keys that no recipe has reads them, too."""
        return cls.Config(**keys)

    @classmethod
    def config_near(cls, shape: Sequence[int], ratio: float) -> MethodConfig:
        """The keys that store nearest to 1/ratio of the dense numbers; the others have their defaults."""
        config: Any = cls.Config
        return config(ratio=ratio) if "ratio" in cls.Config.sizes else config()

    @classmethod
    def runs_product(cls, shape: Sequence[int], groups: int = 1) -> bool:
        """Whether a layer of this shape is run as the method's own product, and not with the dense weight."""
        return cls.runs == "product"

    @classmethod
    def macs_per_input(cls, shape: Sequence[int], config: Any) -> int:
        """Multiply–accumulates of one product: with an input vector, or at one output position of a convolution."""
        return torch.Size(shape).numel()

    @abstractmethod
    def to_dense(self) -> Tensor:
        """The dense weight, of shape ``shape``, differentiable in the parameters."""

    def rows(self) -> Iterator[Tensor]:
        """The dense weight, some rows at a time, for what reads it once; without gradients."""
        with torch.no_grad():
            yield from self.to_dense().split(self._rows_at_once)

    @property
    def _rows_at_once(self) -> int:
        return max(1, NUMBERS // self.shape[1:].numel())

    @abstractmethod
    def project_(self, dense: Tensor, inputs: Tensor | None = None) -> Self:
        """Set the parameters so that the weight is as near to a dense one as the method can make it.

        Args:
            dense: shape ``shape``.
            inputs: what the layer sees, shape (samples, in·kh·kw), patches of a convolution; methods that set
                ``uses_inputs`` bring their outputs on it near to those of ``dense``. Others do not need it.
        """

    @torch.no_grad()
    def scale_(self, factor: float) -> None:
        """Multiply the weight by a number; here, as one that is linear in its parameters."""
        if not self.linear:
            raise NotImplementedError(f"{self.name} is not linear in its parameters, and must scale one of them")
        for parameter in self.parameters():
            parameter.mul_(factor)

    def scale_rows_(self, factors: Tensor) -> bool:
        """Multiply each output's row of the weight by a number, where the parameters can take it.

        Args:
            factors: shape (out,).

        Returns:
            whether they can; if not, nothing is changed. Here they cannot.
        """
        return False

    def matmul(self, x: Tensor) -> Tensor:
        """``x Wᵀ`` for x of shape (…, in), or of the patches (…, in·kh·kw) that a kernel sees."""
        return F.linear(x, self.dense().flatten(1))

    def affine(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """:meth:`matmul` and a bias of shape (out,); methods that add it as they multiply do so."""
        y = self.matmul(x)
        return y if bias is None else y + bias.to(y.dtype)

    def conv2d(self, x: Tensor, geometry: ConvGeometry) -> Tensor:
        """The convolution of x, of shape (N, C, H, W), with this weight."""
        return geometry.convolve(x, self.dense())

    def remake_(self, device: torch.device | str) -> None:
        """Make the tables, which are functions of (shape, config, seed), on a device."""

    def packed(self) -> "StructuredWeight":
        """The same weight, stored in fewer bytes where it can be: what an exported file holds. Here it is itself."""
        return self

    def damage(self) -> str | None:
        """Why the stored tensors, right in shape and dtype, hold no weight, or None."""
        return None

    @property
    def numel(self) -> int:
        """How many numbers are stored."""
        return sum(tensor.numel() for tensor in self.state_dict().values())

    def freeze(self) -> None:
        """Keep the dense weight for inference, where a forward pass would make it; a product keeps nothing."""
        if not self.runs_product(self.shape):
            self.keep()

    def extra_repr(self) -> str:
        """The shape and how many numbers hold it."""
        return f"{tuple(self.shape)}, numel={self.numel}"
