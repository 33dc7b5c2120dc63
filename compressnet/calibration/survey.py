"""What one image tells of a model: in which order its layers run, what follows them, how large activations are."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from compressnet.calibration.calls import Call, Place, met
from compressnet.calibration.gates import NORM, RELUS, Gate, norm_scale


class Survey(TorchFunctionMode):
    """One pass of one image through a model; it sets the gate of each place whose outputs go to a ReLU alone.

    Args:
        model: in evaluation mode.
        places: its planned layers, by the id of their weight.
        image: shape (1, C, H, W).

    Attributes:
        rest: for each layer that the image reaches, in order, the bytes of the largest activation from there on.
        largest: the bytes of the largest of all.
    """

    def __init__(self, model: nn.Module, places: Mapping[int, Place], image: Tensor) -> None:
        super().__init__()
        self._places = places
        self._sizes: list[tuple[str | None, int]] = [(None, image.nbytes)]
        self._traced: dict[int, tuple[Tensor, Place, Tensor, Tensor]] = {}  # outputs that are still scale · y + shift
        self._met: set[str] = set()
        self._elsewhere: set[str] = set()  # layers whose outputs go to more than a ReLU
        with self:
            model(image)
        for place in places.values():
            if place.layer.name in self._elsewhere:
                place.gate = None
        self.rest: dict[str, int] = {}
        self.largest = 0
        for name, size in reversed(self._sizes):
            self.largest = max(self.largest, size)
            if name is not None:
                self.rest[name] = self.largest
        self.rest = dict(reversed(self.rest.items()))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor):
            return result
        self._follow(func, args, kwargs, result)
        call = met(self._places, func, args, kwargs)
        if call:
            self._met_(call, result)
        self._sizes.append((call.place.layer.name if call else None, result.nbytes))
        return result

    def _met_(self, call: Call, result: Tensor) -> None:
        name = call.place.layer.name
        if name in self._met:
            self._elsewhere.add(name)
        self._met.add(name)
        one = result.new_ones(call.place.layer.shape[0])
        self._traced[id(result)] = result, call.place, one, torch.zeros_like(one)

    def _follow(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> None:
        for leaf in tree_leaves((args, kwargs)):
            if not isinstance(leaf, Tensor) or id(leaf) not in self._traced:
                continue
            _, place, scale, shift = self._traced[id(leaf)]
            arguments = dict(zip(NORM, args, strict=False)) | kwargs
            if func in RELUS:
                place.gate = Gate.of(scale, shift, place.layer.groups)
                if result is leaf:
                    del self._traced[id(leaf)]
            elif func is F.batch_norm and not arguments.get("training") and result is not leaf:
                by, offset = norm_scale(arguments)
                self._traced[id(result)] = result, place, by * scale, by * shift + offset
            else:
                self._elsewhere.add(place.layer.name)
