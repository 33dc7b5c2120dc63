"""One pass through the model, and the passes up to a layer that it takes to fit it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressnet.calibration.calls import ARGUMENTS, Call, Place
from compressnet.calibration.fit import fit_layer
from compressnet.fitting import Pairs
from compressnet.maths.hashing import derive
from compressnet.rewrite import OnLayer

POSITIONS = 40_000  # of all images together, at which a layer is looked at
_IMAGES = 16  # whose outputs are computed at a time


class _Reached(Exception):  # noqa: N818 - not an error: the rest of the model need not run
    pass


class Walk(TorchFunctionMode):
    """The one pass through the model, and the passes up to a layer that it takes to fit it."""

    def __init__(
        self,
        model: nn.Module,
        places: Mapping[int, Place],
        chunks: Sequence[Tensor],
        ridge: float,
        on_layer: OnLayer | None,
    ) -> None:
        super().__init__()
        self.model, self.places, self.chunks = model, places, chunks
        self.ridge, self.on_layer = ridge, on_layer
        self.images = sum(map(len, chunks))
        self.number = 0  # of the chunk that runs
        self.pairs: Pairs | None = None  # of the layer that is being fitted

    def run(self) -> None:
        """Fit every layer that the images reach."""
        with self:
            self.model(torch.cat((self.chunks[0], self.chunks[0])))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ARGUMENTS:
            arguments = dict(zip(ARGUMENTS[func], args, strict=False)) | (kwargs or {})
            place = self.places.get(id(arguments["weight"]))
            if place is not None:
                return self._both_halves(Call(func, arguments, place))
        return func(*args, **(kwargs or {}))

    def _both_halves(self, call: Call) -> Tensor:
        x = call.arguments["input"]
        half = len(x) // 2
        y = call.dense(x[:1])
        y = y.new_empty(len(x), *y.shape[1:])
        for start in range(0, half, _IMAGES):
            part = slice(start, min(start + _IMAGES, half))
            y[part] = call.dense(x[part])
        if call.place.fitted is None:
            if self.number > 0:
                self._look(call, x[half:], y[:half])
                raise _Reached
            self._fit_(call, x[half:], y[:half])
        for start in range(half, len(x), _IMAGES):
            y[start : start + _IMAGES] = call.compressed(x[start : start + _IMAGES])
        return y

    def _look(self, call: Call, x: Tensor, y: Tensor) -> None:
        assert self.pairs is not None
        seed = derive(call.place.layer.seed or 0, self.number)
        total = len(self.chunks[self.number]) / self.images
        positions = y.numel() // call.place.layer.shape[0]
        for inputs, outputs in call.rows(x, y, min(1.0, POSITIONS * total / positions), seed):
            self.pairs.add(inputs, outputs)

    def _fit_(self, call: Call, x: Tensor, y: Tensor) -> None:
        place, self.pairs = call.place, Pairs(call.biased)
        self._look(call, x, y)
        for number in range(1, len(self.chunks)):
            self.number = number
            with self, suppress(_Reached):
                self.model(torch.cat((self.chunks[number],) * 2))
        self.number = 0
        dense = call.arguments["weight"]
        place.fitted, place.bias, place.errors = fit_layer(place.layer, dense, self.pairs, self.ridge)
        self.pairs = None
        if self.on_layer:
            self.on_layer(place.layer, *place.errors)
