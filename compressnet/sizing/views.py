"""What layers see of images while the dense model runs, and what an error of their outputs costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressnet.attention import opened
from compressnet.calibration.calls import Place, met
from compressnet.calibration.images import taken
from compressnet.calibration.sensitivity import Sensitivity
from compressnet.fitting import Inputs, Pairs
from compressnet.plan import PlannedLayer

POSITIONS = 8192  # of all images together, at which a layer is looked at
_NUMBERS = 1 << 24  # of them, at most
_LEFT_OUT = 4  # of so many positions one judges
_BATCH = 8


@dataclass
class View:
    """What one layer sees.

    Args:
        inputs: shape (samples, groups, in).
        outputs: shape (samples, groups, out), of the dense layer.
        centred: whether it has a bias, which takes care of the means.
        cost: Γ of an error of its outputs, see :func:`compressnet.fitting.fit_linear_`; None is the identity.
    """

    inputs: Tensor
    outputs: Tensor
    centred: bool
    cost: Tensor | None = None

    @cached_property
    def pairs(self) -> Pairs:
        """The samples that layers are fitted to."""
        kept = torch.arange(len(self.inputs)) % _LEFT_OUT > 0 if len(self.inputs) >= _LEFT_OUT else slice(None)
        return Pairs(Inputs(self.inputs[kept], self.centred), self.outputs[kept])

    def loss(self, error: Tensor, corrected: bool) -> float:
        """E (e x)ᵀ Γ (e x) over the samples that are left out.

        Args:
            error: e of the weight, shape (groups, out, in).
            corrected: whether the bias, if there is one, makes up for the mean of e x, as calibration has it.
        """
        rows = self.inputs[::_LEFT_OUT]
        if corrected and self.centred:
            rows = rows - self.pairs.inputs.mean.to(rows)
        wrong = rows.transpose(0, 1) @ error.mT
        if self.cost is None:
            charged = wrong
        else:
            cost = self.cost.to(wrong)
            charged = wrong * cost.mT if cost.shape[2] == 1 else wrong @ cost
        return (wrong * charged).sum(dtype=torch.float64).item() / wrong.shape[1]


def views(model: nn.Module, layers: Sequence[PlannedLayer], images: Tensor) -> dict[str, View]:
    """Look at layers, all dense still.

    Args:
        model: in evaluation mode, on the CPU.
        layers: of its plan.
        images: unlabelled, of shape (N, C, H, W).

    Returns:
        by name, of the layers that the images reach.

    Raises:
        DataError: they are no images, or the model cannot take them.
    """
    tensors = dict(model.named_parameters(remove_duplicate=False))
    places = {
        id(tensors[layer.parameter]): Place(layer, tensors[layer.parameter], tensors.get(layer.bias))
        for layer in layers
    }
    with opened(model):
        look = _Look(places, len(images))
        with taken(model, images), torch.no_grad(), look:
            for batch in images.split(_BATCH):
                model(batch)
        Sensitivity(places).measure_(model, images, _BATCH)
    costs = {place.layer.name: place.cost for place in places.values()}
    made = {}
    for name, rows in look.rows.items():
        inputs, outputs = (torch.cat(side) for side in zip(*rows, strict=True))
        made[name] = View(inputs, outputs, look.biased[name], costs[name])
    return made


class _Look(TorchFunctionMode):
    def __init__(self, places: dict[int, Place], count: int) -> None:
        super().__init__()
        self._places, self._count = places, count
        self.rows: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.biased: dict[str, bool] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if call := met(self._places, func, args, kwargs):
            layer, x = call.place.layer, call.arguments["input"]
            wanted = min(POSITIONS, _NUMBERS // (layer.shape[0] + layer.groups * call.place.dense[0].numel()))
            known = self.rows.setdefault(layer.name, [])
            known += call.rows(x, result, call.share(result, self._count, wanted), len(known))
            self.biased[layer.name] = call.biased
        return result
