"""The compressnet file: save a model with its plan, and get it back with nothing else at hand.

The only importer of safetensors.
"""

import json
import os
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from compressnet.coding.payload import decode, encode, join
from compressnet.coding.quantisers import Quantiser
from compressnet.coding.records import DamagedError
from compressnet.coding.symbols import Coder
from compressnet.consistency import check_blocks, check_dtypes, check_plan, check_shapes, check_structure
from compressnet.container import CODED, KEY, PACKED, PLAIN, Header, read_header
from compressnet.dense import dense_, expansion
from compressnet.description import Description
from compressnet.digest import BLANK, seal, verify
from compressnet.errors import FileError, did_you_mean
from compressnet.layers import freeze, remake_
from compressnet.limits import FORMS, MAX_BYTES, Form, check_memory
from compressnet.output import replacing
from compressnet.rewrite import rewrite_
from compressnet.tensors import check_state
from compressnet.zoo import models


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
    entry = json.dumps(
        _numbered(PLAIN) | description.to_json(), ensure_ascii=True, separators=(",", ":"), allow_nan=False
    )
    _save_file(model.state_dict(), path, {KEY: entry})
    seal(path)


def write_coded(
    state: Mapping[str, Tensor],
    path: Path,
    description: Description,
    quantisers: Mapping[str, Quantiser],
    coder: Coder = "range",
    seed: int = 0,
) -> None:
    """Write a coded file within :func:`replacing`.

    Args:
        state: the model's state_dict, of numbers that the quantisers have.
        path: of the file.
        description: what the file says of itself.
        quantisers: of the tensors that are quantised.
        coder: of symbols.
        seed: of the recipe; the seeds of layers that are made from it are not written.
    """
    payload = join(description.to_json() | {"seed": seed}, encode(state, quantisers, coder))
    entry = json.dumps(_numbered(CODED), separators=(",", ":"))
    _save_file({PACKED: payload}, path, {KEY: entry})
    seal(path)


def _numbered(version: int) -> dict[str, int | str]:
    """What the metadata of every version begin with; the digest is written by :func:`seal`."""
    return {"format": version, "sha256": BLANK}


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
    form: Form = "frozen",
    max_bytes: int = MAX_BYTES,
) -> nn.Module:
    """Build the model of a file and give it the file's weights.

    Args:
        path: of a file of any stage.
        device: where the model goes; tables and dense weights are made on the CPU first, so that they are the same
            bits everywhere.
        into: the dense module of the caller's own from whose like the file was made; changed in place.
        dtype: of floating-point tensors; None keeps the file's.
        form: ``compressed``, of few numbers, each of which can be trained; ``frozen``, the same with the dense weights
            kept for inference beside them; ``dense``, the ordinary module with dense weights in the place of what is
            compressed and no class of compressnet inside. Blocks become Linear and ReLU there, with a warning that
            says how many numbers they have.
        max_bytes: of memory that the model may take: stored numbers, tables and dense weights. It is counted before
            any of it is taken, with four bytes for a number whose dtype is the file's.

    Returns:
        the model, in evaluation mode.

    Raises:
        FileError: the file is damaged, foreign, newer, not of this module, or would take too much memory.
    """
    if form not in FORMS:
        raise FileError(f"unknown form '{form}'; {did_you_mean(str(form), FORMS)}", "load(form=…)")
    header = read_header(path)
    description = Description.read(header)
    if into is None and description.spec is None:
        raise FileError(
            "it holds a module that is not torchvision's", str(path), "load(path, into=module) fills your own"
        )
    model = models.skeleton(description.spec) if into is None and description.spec else into
    assert model is not None
    check_blocks(model, description.blocks, description.layers, str(path))
    check_plan(model, description.blocks, description.layers, str(path))
    with _restoring(model):
        rewrite_(model, description.layers, description.blocks, "meta")
        check_shapes(header, model.state_dict(), str(path))
        check_memory(model, form, dtype, max_bytes, str(path))
        verify(header)
        state = _read_state(header)
        check_dtypes(model.state_dict(), state, str(path))
    if dtype is not None:
        state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}
    fill_(model, state)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    remake_(model, "cpu")
    check_structure(model, str(path))
    model.eval()
    if form == "dense":
        if grown := expansion(model):
            warnings.warn(f"{path}: {grown}", stacklevel=2)
        return dense_(model).to(device)
    model._compressnet = description  # type: ignore[assignment]
    if form == "frozen":
        freeze(model)
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


@contextmanager
def _restoring(model: nn.Module) -> Iterator[None]:
    """Where the block fails, a module of the caller's own is as it was."""
    children = [(module, dict(module.named_children())) for module in model.modules()]
    try:
        yield
    except FileError:
        for module, before in children:
            for name, child in before.items():
                setattr(module, name, child)
        raise
