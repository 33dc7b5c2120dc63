"""The planned layers of a model, and each use of one while the model runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compressnet.calibration.gates import Gate
from compressnet.maths.hashing import Purpose, permutation
from compressnet.methods import BY_NAME
from compressnet.plan import PlannedLayer
from compressnet.structured import ConvGeometry, StructuredWeight

_BLOCK = 1 << 22  # numbers of the rows that are made at a time

ARGUMENTS: dict[Any, tuple[str, ...]] = {
    F.linear: ("input", "weight", "bias"),
    F.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
}


@dataclass
class Place:
    """A planned layer in the model, and what is known of it so far.

    Args:
        layer: of the plan.
        dense: its weight in the dense model.
        dense_bias: its own bias there.
        gate: the ReLU that its outputs go to, where they go nowhere else.
        cost: of an error of its outputs; see :func:`compressnet.fitting.fit_linear_`.
        start: the compressed weight that the fit starts from; None is the projection of the dense one.
        fitted: the compressed weight.
        bias: that goes with it.
        errors: of the weight and of the outputs, relative.
    """

    layer: PlannedLayer
    dense: Tensor
    dense_bias: Tensor | None = None
    gate: Gate | None = None
    cost: Tensor | None = None
    start: StructuredWeight | None = None
    fitted: StructuredWeight | None = None
    bias: Tensor | None = None
    errors: tuple[float, float] | None = None

    @property
    def linear(self) -> bool:
        """Whether its method is linear in what it stores."""
        return self.layer.method is not None and BY_NAME[self.layer.method].linear


@dataclass
class Call:
    """One use of a layer: of ``F.linear`` or ``F.conv2d`` with its weight."""

    function: Callable[..., Tensor]
    arguments: dict[str, Any]
    place: Place
    geometry: ConvGeometry | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.function is F.conv2d:
            usual = ConvGeometry()
            given = (self.arguments.get(key, getattr(usual, key)) for key in ARGUMENTS[F.conv2d][3:])
            stride, padding, dilation, groups = given
            pad = padding if isinstance(padding, str) else _both(padding)
            self.geometry = ConvGeometry(_both(stride), pad, _both(dilation), groups)

    @property
    def biased(self) -> bool:
        """Whether the bias is the layer's own, which may be changed."""
        bias = self.arguments.get("bias")
        return bias is not None and bias is self.place.dense_bias

    def dense(self, x: Tensor) -> Tensor:
        """The outputs of the dense layer."""
        return self.function(**self.arguments | {"input": x})

    def compressed(self, x: Tensor) -> Tensor:
        """The outputs of the fitted layer."""
        weight = self.place.fitted
        assert weight is not None
        y = weight.matmul(x) if self.geometry is None else weight.conv2d(x, self.geometry)
        bias = self.place.bias if self.biased else self.arguments.get("bias")
        if bias is None:
            return y
        return y + (bias if self.geometry is None else bias[:, None, None])

    def share(self, y: Tensor, images: int, most: int) -> float:
        """Of the layer's positions, such that of all images together at most so many are looked at.

        Args:
            y: what the layer gives for this call's images.
            images: how many there are in all calls.
            most: positions.
        """
        positions = y.numel() // self.place.layer.shape[0] * images // len(self.arguments["input"])
        return min(1.0, most / positions)

    def rows(self, x: Tensor, y: Tensor, share: float, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """A share of what a compressed layer sees beside what the dense one gives, in blocks of rows.

        Yields:
            shapes (samples, groups, in) and (samples, groups, out).
        """
        groups, ins = self.place.layer.groups, torch.Size(self.place.layer.shape[1:]).numel()
        if not self.biased and (bias := self.arguments.get("bias")) is not None:
            y = y - (bias if self.geometry is None else bias[:, None, None])
        if self.geometry is None:
            x, y = x.reshape(-1, 1, x.shape[-1]), y.reshape(-1, 1, y.shape[-1])
            sides: tuple[int, ...] = (len(x),)
        else:
            x, y = self.geometry.patches(x, self.place.layer.shape[2:]).movedim(1, 3), y.movedim(1, 3)
            sides = tuple(y.shape[:3])
        total = torch.Size(sides).numel()
        chosen = torch.from_numpy(permutation(total, seed, Purpose.ORDER).astype("int64"))[
            : max(1, round(share * total))
        ]
        for block in chosen.split(max(1, _BLOCK // (groups * ins))):
            at = torch.unravel_index(block, sides)
            yield x[at].reshape(len(block), groups, ins), y[at].reshape(len(block), groups, -1)


def met(places: Mapping[int, Place], func: Any, args: Any, kwargs: Any) -> Call | None:
    """The use of a planned layer that the call of a function is; None if it is none.

    Args:
        places: by the id of their weight.
        func: called.
        args: of it.
        kwargs: of it, or None.
    """
    if func not in ARGUMENTS:
        return None
    arguments = dict(zip(ARGUMENTS[func], args, strict=False)) | (kwargs or {})
    place = places.get(id(arguments["weight"]))
    return None if place is None else Call(func, arguments, place)


def _both(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
