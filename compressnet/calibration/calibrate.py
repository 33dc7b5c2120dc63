"""A whole model, calibrated."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from compressnet.attention import opened
from compressnet.calibration.calls import Place
from compressnet.calibration.walk import walk_
from compressnet.fitting.linear import RIDGE
from compressnet.plan import PlannedLayer
from compressnet.rewrite import OnLayer, project_, swap_
from compressnet.structured import StructuredWeight

MEMORY = 4 << 30  # bytes of activations


@torch.no_grad()
def calibrate_(
    model: nn.Module,
    layers: Sequence[PlannedLayer],
    images: Tensor,
    *,
    ridge: float = RIDGE,
    memory: int = MEMORY,
    on_layer: OnLayer | None = None,
    start: Mapping[str, StructuredWeight] | None = None,
) -> dict[str, tuple[float, float | None]]:
    """Swap every planned layer for a compressed form that gives the dense network's outputs as well as it can.

    Args:
        model: dense, on the CPU; changed in place. It is run in evaluation mode.
        layers: of the plan.
        images: unlabelled, of shape (N, C, H, W).
        ridge: how strongly weights are drawn to the dense ones, relative to the mean square of their inputs.
        memory: bytes that activations may take, about; with less, fewer images look at the layers that come first.
        on_layer: told each layer and its errors when it is done.
        start: compressed weights by the name of their layer, on the CPU; the fit goes on from them, in place. A method
            that is not linear in what it stores is fitted anew.

    Returns:
        the relative error of each weight, as :func:`compressnet.rewrite.project_` has it, and of the layer's outputs,
        which is None for a layer that the images do not reach. Of a layer that a ReLU follows, it is the error of what
        the ReLU lets through.

    Raises:
        DataError: the model cannot take the images.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    tensors = dict(model.named_parameters(remove_duplicate=False))
    planned = [(layer, tensors[layer.parameter]) for layer in layers if layer.method]
    start = start or {}
    places = {
        id(dense): Place(layer, dense, tensors.get(layer.bias), start=start.get(layer.name)) for layer, dense in planned
    }
    try:
        with opened(model):
            walk_(model, places, images, ridge, memory, on_layer)
    finally:
        for module, training in modes.items():
            module.training = training
    for place in places.values():
        if place.fitted is not None:
            swap_(model, place.layer, place.fitted, place.bias)
    errors = {place.layer.name: place.errors for place in places.values() if place.errors}
    missed = [place.layer for place in places.values() if place.fitted is None]
    return errors | project_(model, missed, on_layer=on_layer)
