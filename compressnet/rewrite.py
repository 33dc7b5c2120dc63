"""Swap the layers of a model as planned, keeping everything else of them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from compressnet.layers import CompressedConv2d, CompressedLayer, CompressedLinear
from compressnet.plan import PlannedLayer
from compressnet.structured import StructuredWeight

OnLayer = Callable[[PlannedLayer, float, float | None], None]
"""Told a layer, the relative error of its weight, and that of its outputs where they are known."""


def rewrite_(model: nn.Module, layers: Sequence[PlannedLayer]) -> nn.Module:
    """Swap every planned layer for its compressed form, on the device (``meta`` included) of its weight.

    The weights hold their initial values: see :func:`project_` for those of the dense layer.

    Args:
        model: changed in place.
        layers: of the plan.

    Returns:
        ``model``.
    """
    for layer in layers:
        if layer.method:
            device = model.get_parameter(f"{layer.name}.weight").device
            swap_(model, layer, layer.build(str(device)))
    return model


def project_(
    model: nn.Module,
    layers: Sequence[PlannedLayer],
    on_layer: OnLayer | None = None,
) -> dict[str, tuple[float, float | None]]:
    """Swap every planned layer for a compressed form that is as near to it as its method can make it.

    One layer at a time, so that the memory needed above the model is that of a layer.

    Args:
        model: dense; changed in place. Projections are computed on the CPU, in float32.
        layers: of the plan.
        on_layer: told each layer and its error when it is done.

    Returns:
        the relative error ‖W − Ŵ‖ / ‖W‖ of each weight that is made dense in a forward pass, or, where a weight is run
        as a product, of its outputs on Gaussian inputs; and None, as the error of the layer's outputs is not known.
    """
    errors: dict[str, tuple[float, float | None]] = {}
    for layer in layers:
        if not layer.method:
            continue
        parameter = model.get_parameter(f"{layer.name}.weight")
        dense, weight = parameter.detach().float().cpu(), layer.build()
        weight.project_(dense)
        errors[layer.name] = relative_error(weight, dense), None
        swap_(model, layer, weight.to(parameter.device))
        if on_layer:
            on_layer(layer, *errors[layer.name])
    return errors


@torch.no_grad()
def relative_error(weight: StructuredWeight, dense: Tensor, inputs: Tensor | None = None) -> float:
    """‖W − Ŵ‖ / ‖W‖, or for a product ‖X Wᵀ − X Ŵᵀ‖ / ‖X Wᵀ‖ on the given or on Gaussian inputs.

    A k×k convolution sees patches, of which there are no samples: there it is the error of the weight.
    """
    if weight.runs == "dense" or dense[0].numel() != dense.shape[1]:
        return _ratio(weight.to_dense() - dense, dense)
    if inputs is None:
        inputs = torch.randn(256, dense.shape[1], generator=torch.Generator().manual_seed(0))
    target = inputs @ dense.flatten(1).T
    return _ratio(weight.matmul(inputs) - target, target)


def _ratio(difference: Tensor, reference: Tensor) -> float:
    return (difference.norm() / reference.norm().clamp(min=1e-30)).item()


@torch.no_grad()
def swap_(model: nn.Module, layer: PlannedLayer, weight: StructuredWeight, bias: Tensor | None = None) -> None:
    """Put a weight, and a bias where one is given, in the place of a layer's."""
    old = model.get_submodule(layer.name)
    new: CompressedLayer
    if isinstance(old, nn.Conv2d):
        new = CompressedConv2d.like(old, weight)
    elif isinstance(old, nn.Linear):
        new = CompressedLinear.like(old, weight)
    else:
        raise TypeError(f"{layer.name} is {type(old).__name__}; only Conv2d and Linear are rewritten")
    if bias is not None and new.bias is not None:
        new.bias.copy_(bias)
    new.train(old.training)
    model.set_submodule(layer.name, new)
