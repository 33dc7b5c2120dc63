"""Whether a file's plan, its tensors and the model fit each other: all of it before a number is read."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from compressnet.container import Header
from compressnet.errors import FileError, PlanError, listing
from compressnet.plan import PlannedBlock, PlannedLayer, candidates
from compressnet.plan.runs import find_run
from compressnet.structured import StructuredWeight


def check_blocks(model: nn.Module, blocks: Sequence[PlannedBlock], layers: Sequence[PlannedLayer], where: str) -> None:
    """Each block stands for layers of the dense model, and the layer behind it fits.

    Raises:
        FileError: not so.
    """
    fitted = {layer.name: layer for layer in layers if layer.dense_shape}
    for block in blocks:
        head = fitted.pop(block.head, None)
        try:
            run = find_run(model, block.run)
        except PlanError as error:
            raise FileError(f"its block {block.name} does not fit the model: {error}", where) from None
        found = run.names, run.head, run.ins, run.dense_numel
        if found != (block.run, block.head, block.shape[1], block.dense_numel):
            raise FileError(f"its block {block.name} does not fit the model's layers", where)
        if head is None or head.dense_shape is None or head.shape != (head.dense_shape[0], block.shape[0]):
            raise FileError(f"its plan has no layer that fits the block {block.name}", where)
    if fitted or {name for block in blocks for name in block.run} & {layer.name for layer in layers}:
        raise FileError("its plan gives layers to a block that is not there, or twice", where)


def check_plan(model: nn.Module, blocks: Sequence[PlannedBlock], layers: Sequence[PlannedLayer], where: str) -> None:
    """Each layer of the plan is one of the dense model's, and none is left out.

    Raises:
        FileError: not so.
    """
    if len({layer.name for layer in layers}) != len(layers):
        raise FileError("its plan names a layer twice", where)
    own = {layer.name: layer for layer in candidates(model)}
    for layer in layers:
        if layer.name not in own:
            raise FileError(f"its plan names {layer.name}, which the dense model does not have", where)
        found, dense = own[layer.name], layer.dense_shape or layer.shape
        if found.shape != dense:
            raise FileError(f"its plan gives {layer.name} the shape {dense}; the model has {found.shape}", where)
        if (found.kind, found.groups) != (layer.kind, layer.groups):
            raise FileError(f"its plan of {layer.name} is not of the model's layer", where)
    missing = own.keys() - {layer.name for layer in layers} - {name for block in blocks for name in block.run}
    if missing:
        raise FileError(f"its plan does not name {listing(sorted(missing), 4)}", where)


def check_shapes(header: Header, state: Mapping[str, Tensor], where: str) -> None:
    """The file has the tensors of the compressed model, in their shapes.

    Raises:
        FileError: not so.
    """
    missing = [name for name in state if name not in header.spans]
    unexpected = [name for name in header.spans if name not in state]
    if missing or unexpected:
        parts = [f"missing {listing(missing, 4)}"] * bool(missing) + [f"unexpected {listing(unexpected, 4)}"] * bool(
            unexpected
        )
        raise FileError(f"its tensors are not the model's: {'; '.join(parts)}", where)
    for name, tensor in state.items():
        if header.spans[name].shape != tuple(tensor.shape):
            raise FileError(
                f"its tensor {name} has the shape {header.spans[name].shape}; the plan gives {tuple(tensor.shape)}",
                where,
            )


def check_dtypes(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    """Bytes are bytes; floating-point numbers may have any width.

    Raises:
        FileError: not so.
    """
    for name, tensor in wanted.items():
        if tensor.dtype is torch.uint8 and state[name].dtype is not torch.uint8:
            raise FileError(f"its tensor {name} is of {state[name].dtype}, not of bytes", where)


def check_structure(model: nn.Module, where: str) -> None:
    """The numbers of each weight, which is filled, are ones that it can have.

    Raises:
        FileError: not so.
    """
    for name, module in model.named_modules():
        if isinstance(module, StructuredWeight) and (reason := module.damage()):
            layer = name.removesuffix(".structured")
            raise FileError(f"its tensors of {layer} hold no weight: {reason}", where, "fetch it again")
