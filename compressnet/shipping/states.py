"""Numbers as they are, cast: an ordinary state_dict, or a file of tensors; each is written, and given as it is then."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from compressnet.checkpoint import fill_, load, write, write_state_dict
from compressnet.coding.choose import STATISTICS
from compressnet.coding.quantisers import FLOATS
from compressnet.description import Description
from compressnet.errors import FileError
from compressnet.layers import freeze
from compressnet.pretrained import dense_state
from compressnet.recipe import ExportSection
from compressnet.rewrite import pack_
from compressnet.zoo import models, weights
from compressnet.zoo.models import ModelSpec


def write_dense(file: Path, description: Description, dtype: str, path: Path) -> nn.Module:
    """Write an ordinary state_dict; the model that it is of."""
    assert description.spec is not None
    state = cast(dense_state(load(file), str(file)), FLOATS[dtype], str(file))
    write_state_dict(state, path)
    return plain(description.spec, state)


def read_dense(description: Description, path: Path) -> nn.Module:
    """The ordinary torchvision model of a state_dict that was written."""
    assert description.spec is not None
    return plain(description.spec, weights.read_state_dict(path))


def plain(spec: ModelSpec, state: Mapping[str, Tensor]) -> nn.Module:
    """The ordinary torchvision model with a state_dict."""
    model = models.skeleton(spec)
    fill_(model, {k: t.float() if t.is_floating_point() else t for k, t in state.items()})
    return model.eval()


def write_plain(file: Path, description: Description, settings: ExportSection, path: Path) -> nn.Module:
    """Write tensors as they are, cast, with positions packed; the model that they are of."""
    model, described = without_auxiliary(load(file, form="compressed"), description)
    layers = pack_(model, described.layers)
    state = cast(model.state_dict(), FLOATS[settings.dtype], str(file), set(dict(model.named_buffers())))
    fill_(model, state)
    write(model, path, dataclasses.replace(described, layers=layers))
    freeze(model.float())
    return model


def without_auxiliary(model: nn.Module, description: Description) -> tuple[nn.Module, Description]:
    """The model without the heads that never run in evaluation."""
    assert description.spec is not None
    spec = models.drop_auxiliary_(model, description.spec)
    layers = tuple(layer for layer in description.layers if not layer.auxiliary)
    return model, dataclasses.replace(description, spec=spec, layers=layers)


def cast(state: Mapping[str, Tensor], dtype: torch.dtype, where: str, kept: Collection[str] = ()) -> dict[str, Tensor]:
    """Floating-point tensors in another dtype, but for norm statistics, which are buffers.

    Raises:
        FileError: a number is too large for the dtype.
    """
    result = {}
    for name, tensor in state.items():
        changed = name not in kept and tensor.is_floating_point() and not name.endswith(STATISTICS)
        result[name] = tensor.to(dtype) if changed else tensor
    check_range(state, result, where)
    return result


def check_range(state: Mapping[str, Tensor], result: Mapping[str, Tensor], where: str) -> None:
    """Refuse numbers that were finite and are not any more.

    Raises:
        FileError: naming the tensor.
    """
    for name, tensor in state.items():
        if tensor.isfinite().all() and not result[name].isfinite().all():
            cure = "--dtype bfloat16 holds them"
            raise FileError(f"{name} holds numbers too large for {result[name].dtype}", where, cure)
