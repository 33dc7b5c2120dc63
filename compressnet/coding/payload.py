"""A whole state as the one tensor of a coded file, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressnet.coding import tensors
from compressnet.coding.quantisers import FLOATS, Float, Quantiser
from compressnet.coding.records import DamagedError, Reader, Writer
from compressnet.coding.symbols import Coder
from compressnet.coding.tensors import REPEAT, Coded
from compressnet.index import deflated


def on_grid(state: Mapping[str, Tensor], quantisers: Mapping[str, Quantiser]) -> dict[str, Tensor]:
    """The numbers of a state as a coded file gives them back.

    Args:
        state: tensors by name.
        quantisers: of those that are quantised.
    """
    return {name: _quantised(tensor, quantisers.get(name)) for name, tensor in state.items()}


def _quantised(tensor: Tensor, quantiser: Quantiser | None) -> Tensor:
    tensor = tensor.detach().cpu()
    if quantiser is None:
        return tensor
    if isinstance(quantiser, Float):
        return tensor.to(FLOATS[quantiser.dtype])
    return quantiser(tensor.float())


def encode(
    state: Mapping[str, Tensor], quantisers: Mapping[str, Quantiser], coder: Coder = "range"
) -> dict[str, Coded]:
    """Code every tensor; one that repeats an earlier one only says so.

    Args:
        state: of numbers that their quantisers have, see :func:`on_grid`.
        quantisers: of those that are quantised.
        coder: of symbols.
    """
    coded: dict[str, Coded] = {}
    seen: dict[Any, int] = {}
    for place, (name, tensor) in enumerate(state.items()):
        made = tensors.encode(tensor, quantisers.get(name), coder)
        key = made.dtype, made.shape, _content(tensor)
        if key in seen and made.nbytes > 2:
            record = Writer()
            record.byte(REPEAT)
            record.count(seen[key])
            made = Coded(made.dtype, made.shape, bytes(record.data), ())
        seen.setdefault(key, place)
        coded[name] = made
    return coded


def _content(tensor: Tensor) -> int:
    return hash(tensor.contiguous().reshape(-1, 1).view(torch.uint8).numpy().tobytes())


def join(meta: Mapping[str, Any], coded: Mapping[str, Coded]) -> Tensor:
    """The bytes of a coded file behind its header: index, records and streams.

    Args:
        meta: what the file says of itself.
        coded: its tensors.

    Returns:
        uint8 of shape (bytes,).
    """
    listed = []
    for name, each in coded.items():
        dtype = [] if each.dtype == "F32" else [each.dtype]
        listed.append([name, list(each.shape), [len(stream) for stream in each.streams], *dtype])
    records = b"".join(each.record for each in coded.values())
    index = deflated({**meta, "tensors": listed, "records": len(records)})
    streams = b"".join(stream for each in coded.values() for stream in each.streams)
    whole = len(index).to_bytes(4, "little") + index + records + streams
    return torch.from_numpy(np.frombuffer(whole, dtype=np.uint8).copy())


def decode(
    records: bytes,
    data: np.ndarray,
    spans: Mapping[str, tuple[str, Sequence[int], int]],
    streams: Mapping[str, Sequence[int]],
) -> dict[str, Tensor]:
    """The state of a coded file.

    Args:
        records: of all tensors, one after the other.
        data: the payload, from the index on.
        spans: of each tensor the dtype, the shape, and where its streams start in ``data``.
        streams: bytes of each tensor's streams.

    Raises:
        DamagedError: they are not what :func:`encode` makes.
    """
    reader, state = Reader(records), {}
    earlier: list[Tensor] = []
    for name, (dtype, shape, place) in spans.items():
        parts = []
        for nbytes in streams[name]:
            parts.append(data[place : place + nbytes].tobytes())
            place += nbytes
        state[name] = tensors.decode(reader, dtype, shape, parts, earlier)
        earlier.append(state[name])
    if reader.place != len(records):
        raise DamagedError
    return state
