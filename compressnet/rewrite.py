"""Swap the layers of a model as planned, keeping everything else of them."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from compressnet.attention import CompressedMultiheadAttention
from compressnet.block import Block
from compressnet.layers import CompressedConv2d, CompressedLayer, CompressedLinear
from compressnet.plan import PlannedBlock, PlannedLayer
from compressnet.structured import StructuredWeight

OnLayer = Callable[[PlannedLayer, float, float | None], None]
"""Told a layer, the relative error of its weight, and that of its outputs where they are known."""
_TINY = 1e-30


def rewrite_(
    model: nn.Module,
    layers: Sequence[PlannedLayer],
    blocks: Sequence[PlannedBlock] = (),
    device: str | torch.device | None = None,
) -> nn.Module:
    """Place every block, swap every planned layer for its compressed form.

    The weights hold their initial values: see :func:`project_` for those of the dense layer.

    Args:
        model: changed in place.
        layers: of the plan.
        blocks: of the plan.
        device: of what is new, such as ``meta``, where nothing is allocated; by default that of what it replaces.

    Returns:
        ``model``.
    """
    for block in blocks:
        place_(model, block, device)
    for layer in layers:
        if layer.method:
            where = model.get_parameter(layer.parameter).device if device is None else device
            swap_(model, layer, layer.build(str(where)))
    return model


@torch.no_grad()
def place_(
    model: nn.Module, planned: PlannedBlock, device: str | torch.device | None = None
) -> tuple[Block, nn.Linear]:
    """Put a block where the first of its layers is, and behind it a linear layer that fits its features.

    Of the others nothing is left that stores anything: the last dropout is kept, as a block has none itself.

    Returns:
        the block as drawn, and the layer, of zeros.
    """
    old = model.get_submodule(planned.head)
    assert isinstance(old, nn.Linear)
    where = old.weight.device if device is None else device
    block, modes = planned.build(str(where)), {name: model.get_submodule(name).training for name in planned.run}
    head = nn.Linear(block.outs, old.out_features, old.bias is not None, "meta", old.weight.dtype)
    head = head.to_empty(device=where)
    for parameter in head.parameters():
        parameter.zero_()
    dropouts = [name for name in planned.run if isinstance(model.get_submodule(name), nn.Dropout)]
    for name in planned.run[1:]:
        if name not in dropouts[-1:]:
            model.set_submodule(name, nn.Identity().train(modes[name]))
    model.set_submodule(planned.name, block.train(modes[planned.name]))
    model.set_submodule(planned.head, head.train(old.training))
    return block, head


def project_(
    model: nn.Module,
    layers: Sequence[PlannedLayer],
    on_layer: OnLayer | None = None,
    *,
    untrained: bool = False,
    tables: bool = True,
) -> dict[str, tuple[float, float | None]]:
    """Swap every planned layer for a compressed form that is as near to it as its method can make it.

    One layer at a time, so that the memory needed above the model is that of a layer.

    Args:
        model: dense; changed in place. Projections are computed on the CPU, in float32.
        layers: of the plan.
        on_layer: told each layer and its error when it is done.
        untrained: the dense weights are only drawn; see :func:`keep_norm_`.
        tables: of the new layers are kept, so that the model runs; a file needs none, and they can be as large as the
            dense weights.

    Returns:
        the relative error ‖W − Ŵ‖ / ‖W‖ of each weight that is made dense in a forward pass, or, where a weight is run
        as a product, of its outputs on Gaussian inputs; and None, as the error of the layer's outputs is not known.
    """
    errors: dict[str, tuple[float, float | None]] = {}
    for layer in layers:
        if layer.method:
            weight, error = _projected(layer, model.get_parameter(layer.parameter), untrained)
            errors[layer.name] = error, None
            if not tables:
                weight.remake_("meta")
            swap_(model, layer, weight)
            if on_layer:
                on_layer(layer, *errors[layer.name])
    return errors


def _projected(layer: PlannedLayer, parameter: Tensor, untrained: bool) -> tuple[StructuredWeight, float]:
    """The compressed form of a layer's weight, where that is, and its relative error."""
    dense, weight = parameter.detach().float().cpu(), layer.build()
    weight.project_(dense)
    if untrained:
        keep_norm_(weight, dense)
    error = relative_error(weight, dense)
    return weight.to(parameter.device), error


def pack_(model: nn.Module, layers: Sequence[PlannedLayer]) -> tuple[PlannedLayer, ...]:
    """Put in the place of every compressed layer's weight the same in fewer bytes, where its method has such a form.

    Args:
        model: rewritten; changed in place.
        layers: of its plan.

    Returns:
        the layers as they are now.
    """
    packed = []
    for layer in layers:
        if layer.method:
            held = model.get_submodule(layer.name)
            assert isinstance(held, CompressedLayer)
            held.structured = held.structured.packed()
            layer = dataclasses.replace(layer, config=held.structured.config.model_dump())
        packed.append(layer)
    return tuple(packed)


@torch.no_grad()
def relative_error(weight: StructuredWeight, dense: Tensor, inputs: Tensor | None = None) -> float:
    """‖W − Ŵ‖ / ‖W‖, or for a product ‖X Wᵀ − X Ŵᵀ‖ / ‖X Wᵀ‖ on the given or on Gaussian inputs.

    Of a convolution without inputs it is the error of the weight, which is small enough to be made.
    """
    norms = [((given - wanted).norm(), wanted.norm()) for given, wanted in _compared(weight, dense, inputs)]
    error, norm = torch.tensor(norms).norm(dim=0)
    return (error / norm.clamp(min=_TINY)).item()


@torch.no_grad()
def keep_norm_(weight: StructuredWeight, dense: Tensor) -> None:
    """Scale a weight to the norm of a dense one: a net that is trained from its start needs the scale of its drawing.

    Projections shrink what has no structure: random values that share one number average out.
    """
    norms = [(given.norm(), wanted.norm()) for given, wanted in _compared(weight, dense, None)]
    given, wanted = torch.tensor(norms).norm(dim=0)
    weight.scale_((wanted / given.clamp(min=_TINY)).item())


def _compared(weight: StructuredWeight, dense: Tensor, inputs: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """What a weight gives and what it should: the weights, some rows at a time, or for a product its outputs."""
    if not weight.runs_product(weight.shape) or (inputs is None and dense.dim() == 4):
        first = 0
        for rows in weight.rows():
            yield rows, dense[first : first + len(rows)]
            first += len(rows)
        return
    if inputs is None:
        inputs = torch.randn(256, dense.shape[1], generator=torch.Generator().manual_seed(0))
    yield weight.matmul(inputs), inputs @ dense.flatten(1).T


@torch.no_grad()
def swap_(model: nn.Module, layer: PlannedLayer, weight: StructuredWeight, bias: Tensor | None = None) -> None:
    """Put a weight, and a bias where one is given, in the place of a layer's."""
    place, _, projection = layer.name.rpartition(".")
    owner = model.get_submodule(place)
    if type(owner) is nn.MultiheadAttention:
        owner = CompressedMultiheadAttention(owner)
        model.set_submodule(place, owner)
    if isinstance(owner, CompressedMultiheadAttention) and layer.kind == "attention":
        owner.hold_(projection, weight, bias)
        return
    old = model.get_submodule(layer.name)
    new: CompressedLayer
    if isinstance(old, nn.Conv2d):
        new = CompressedConv2d.like(old, weight)
    elif isinstance(old, nn.Linear):
        new = CompressedLinear.like(old, weight)
    else:
        raise TypeError(
            f"{layer.name} is {type(old).__name__}; only Conv2d, Linear and MultiheadAttention are rewritten"
        )
    if bias is not None and new.bias is not None:
        new.bias.copy_(bias)
    new.train(old.training)
    model.set_submodule(layer.name, new)
