"""How much memory a model takes once it is loaded, counted before any of it is taken: a header is never trusted."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from compressnet.block import Block
from compressnet.errors import FileError
from compressnet.structured import StructuredWeight

Form = Literal["frozen", "compressed", "dense"]
FORMS: tuple[Form, ...] = get_args(Form)
MAX_BYTES = 8 << 30
"""What loading may take unless the caller says otherwise: every model of torchvision's takes less."""


def needed(model: nn.Module, form: Form, dtype: torch.dtype | None = None) -> dict[str, int]:
    """Bytes of a loaded model by what they are: stored numbers, tables that are made of none, and dense weights.

    Args:
        model: compressed; its shapes are enough, so it may be on ``meta``.
        form: frozen, compressed or dense.
        dtype: that floating-point numbers will have; None keeps theirs.
    """
    compressed = [module for module in model.modules() if isinstance(module, StructuredWeight | Block)]
    tables = [
        tensor for module in compressed for name, tensor in module.named_buffers() if name not in module.state_dict()
    ]
    return {
        "stored numbers": sum(tensor.numel() * _itemsize(tensor, dtype) for tensor in model.state_dict().values()),
        "tables": sum(tensor.numel() * _itemsize(tensor, dtype) for tensor in tables),
        "dense weights": sum(
            _dense_numel(module, form) * _itemsize(next(iter(module.state_dict().values())), dtype)
            for module in compressed
        ),
    }


def check_memory(model: nn.Module, form: Form, dtype: torch.dtype | None, max_bytes: int, where: str) -> None:
    """Refuse a model that would take more memory than it may.

    Args:
        model: compressed, on ``meta`` as far as a file says what is in it.
        form: that it will have.
        dtype: of its floating-point numbers; None keeps theirs.
        max_bytes: what it may take.
        where: it comes from.

    Raises:
        FileError: it would take more.
    """
    nbytes = needed(model, form, dtype)
    total = sum(nbytes.values())
    if total > max_bytes:
        parts = ", ".join(f"{count:,} for {what}" for what, count in nbytes.items() if count)
        raise FileError(
            f"loading it would take {total:,} bytes of memory, more than {max_bytes:,}: {parts}",
            where,
            f"where you trust the file, load(path, max_bytes={total}) loads it",
        )


def _dense_numel(module: StructuredWeight | Block, form: Form) -> int:
    """How many dense numbers are made of it."""
    if isinstance(module, Block):
        return module.ordinary_numel if form == "dense" else 0
    kept = form == "dense" or (form == "frozen" and not module.runs_product(module.shape))
    return module.shape.numel() if kept else 0


def _itemsize(tensor: Tensor, dtype: torch.dtype | None) -> int:
    return (dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype).itemsize
