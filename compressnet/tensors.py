"""Which tensors a file can hold."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from compressnet.errors import FileError, listing

STORED = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip


def check_state(state: Mapping[str, Any], where: str) -> None:
    """Refuse what is no dense tensor of real numbers, and tensors that lie in each other's memory.

    Raises:
        FileError: naming them.
    """
    foreign = [name for name, value in state.items() if not _is_stored(value)]
    if foreign:
        cure = "a file holds dense tensors of floats, integers and booleans"
        raise FileError(f"it cannot hold {listing(foreign, 4)}", where, cure)
    placed = sorted((str(t.device), t.data_ptr(), t.nbytes, name) for name, t in state.items() if t.numel())
    tied = [
        f"{name} and {other}"
        for (device, start, nbytes, name), (place, following, _, other) in pairwise(placed)
        if device == place and following < start + nbytes
    ]
    if tied:
        cure = "every tensor is stored by itself: clone one of them"
        raise FileError(f"it cannot hold what shares its memory: {listing(tied, 4)}", where, cure)


def _is_stored(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.dtype in STORED
