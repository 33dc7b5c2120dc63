"""The compressnet file: save a model with its plan, and get it back with nothing else at hand.

The only importer of safetensors.
"""

import json
import os
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from compressnet.coding.payload import decode, encode, join
from compressnet.coding.quantisers import Quantiser
from compressnet.coding.records import DamagedError
from compressnet.coding.symbols import Coder
from compressnet.container import CODED, KEY, PACKED, Header, read_header
from compressnet.description import Description
from compressnet.digest import BLANK, seal, verify
from compressnet.errors import FileError, PlanError, listing
from compressnet.layers import freeze as freeze_
from compressnet.layers import remake_
from compressnet.output import replacing
from compressnet.plan import PlannedBlock, PlannedLayer, candidates
from compressnet.plan.runs import find_run
from compressnet.rewrite import rewrite_
from compressnet.structured import StructuredWeight
from compressnet.tensors import check_state
from compressnet.zoo import models

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def save(model: nn.Module, path: str | Path, description: Description, *, force: bool = False) -> None:
    """Write a file; it appears whole or not at all.

    Args:
        model: the state to store.
        path: of the file.
        description: what the file says of itself.
        force: whether a file that is there is replaced.

    Raises:
        FileError: the file exists and ``force`` is not given, it cannot be written, or it cannot hold the state.
    """
    check_state(model.state_dict(), str(path))
    with replacing(Path(path), force) as temporary:
        write(model, temporary, description)


def write(model: nn.Module, path: Path, description: Description) -> None:
    """Write a file within :func:`replacing`, which makes it whole or nothing."""
    entry = json.dumps(description.to_json(), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    _save_file(model.state_dict(), path, {KEY: entry})
    seal(path)


def write_coded(
    state: Mapping[str, Tensor],
    path: Path,
    description: Description,
    quantisers: Mapping[str, Quantiser],
    coder: Coder = "range",
) -> None:
    """Write a coded file within :func:`replacing`.

    Args:
        state: the model's state_dict, of numbers that the quantisers have.
        path: of the file.
        description: what the file says of itself.
        quantisers: of the tensors that are quantised.
        coder: of symbols.
    """
    meta = {key: value for key, value in description.to_json().items() if key not in ("format", "sha256")}
    payload = join(meta | {"seed": description.recipe.get("seed", 0)}, encode(state, quantisers, coder))
    entry = json.dumps({"format": CODED, "sha256": BLANK}, separators=(",", ":"))
    _save_file({PACKED: payload}, path, {KEY: entry})
    seal(path)


def write_state_dict(state: Mapping[str, Tensor], path: Path) -> None:
    """Write an ordinary state_dict as safetensors within :func:`replacing`, without a word of ours."""
    _save_file(state, path, {"format": "pt"})


def _save_file(state: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """What the system refuses is an OSError, as of any other file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        reason = (int(number[1]), os.strerror(int(number[1]))) if number else (str(error),)
        raise OSError(*reason) from None


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    into: nn.Module | None = None,
    dtype: torch.dtype | None = torch.float32,
    freeze: bool = True,
) -> nn.Module:
    """Build the model of a file and give it the file's weights.

    Args:
        path: of a file of any stage.
        device: where the model goes; tables and, when frozen, dense weights are made on the CPU first, so that they are
            the same bits everywhere.
        into: the dense module of the caller's own from whose like the file was made; changed in place.
        dtype: of floating-point tensors; None keeps the file's.
        freeze: keep dense weights for inference; training starts from ``freeze=False``.

    Returns:
        the model, in evaluation mode.

    Raises:
        FileError: the file is damaged, foreign, newer, or not of this module.
    """
    header = read_header(path)
    description = Description.read(header)
    if into is None and description.spec is None:
        raise FileError(
            "it holds a module that is not torchvision's", str(path), "load(path, into=module) fills your own"
        )
    model = _skeleton(description, into, str(path))
    _check_shapes(header, model.state_dict(), str(path))
    verify(header)
    state = _read_state(header)
    _check_dtypes(model.state_dict(), state, str(path))
    if dtype is not None:
        state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}
    fill_(model, state)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    remake_(model, "cpu")
    _check_structure(model, str(path))
    model.eval()
    model._compressnet = description  # type: ignore[assignment]
    if freeze:
        freeze_(model)
    return model.to(device)


def _read_state(header: Header) -> dict[str, Tensor]:
    try:
        state = load_file(header.path)
    except (OSError, SafetensorError) as error:
        raise FileError(f"cannot be read: {error}", str(header.path)) from None
    if not header.coded:
        return state
    places = {name: (span.dtype, span.shape, span.start) for name, span in header.spans.items()}
    try:
        return decode(header.records, state[PACKED].numpy(), places, header.streams)
    except DamagedError:
        raise FileError("its coded numbers are damaged", str(header.path), "fetch it again") from None


def fill_(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a model its tensors as they are, in today's layout: MNASNet refuses a state that names no version."""
    given = OrderedDict(state)
    given._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]
    model.load_state_dict(given, assign=True)


def _skeleton(description: Description, into: nn.Module | None, where: str) -> nn.Module:
    model = models.skeleton(description.spec) if into is None and description.spec else into
    assert model is not None
    _check_blocks(model, description.blocks, description.layers, where)
    _check_plan(model, description.blocks, description.layers, where)
    return rewrite_(model, description.layers, description.blocks)


def _check_blocks(model: nn.Module, blocks: Sequence[PlannedBlock], layers: Sequence[PlannedLayer], where: str) -> None:
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


def _check_plan(model: nn.Module, blocks: Sequence[PlannedBlock], layers: Sequence[PlannedLayer], where: str) -> None:
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


def _check_shapes(header: Header, state: Mapping[str, Tensor], where: str) -> None:
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


def _check_dtypes(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in wanted.items():
        if tensor.dtype is torch.uint8 and state[name].dtype is not torch.uint8:
            raise FileError(f"its tensor {name} is of {state[name].dtype}, not of bytes", where)


def _check_structure(model: nn.Module, where: str) -> None:
    for name, module in model.named_modules():
        if isinstance(module, StructuredWeight) and (reason := module.damage()):
            layer = name.removesuffix(".structured")
            raise FileError(f"its tensors of {layer} hold no weight: {reason}", where, "fetch it again")
