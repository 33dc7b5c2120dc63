"""In which floating-point types a step is computed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from compressnet.errors import TrainingError


def half_of(amp: str, device: torch.device, title: str = "finetune") -> torch.dtype | None:
    """The half type of autocast, or None where everything is float32.

    Args:
        amp: a recipe's word: auto, off, bfloat16 or float16.
        device: to train on.
        title: of the recipe's section, for errors.

    Raises:
        TrainingError: the device has no such type.

    >>> half_of("auto", torch.device("cpu")), half_of("bfloat16", torch.device("cpu"))
    (None, torch.bfloat16)
    """
    cuda = device.type == "cuda"
    if amp == "off" or (amp == "auto" and not cuda):
        return None
    if amp == "float16" and not cuda:
        raise TrainingError("float16 needs a CUDA device", f"{title}.amp", "take bfloat16, or auto")
    bfloat16 = not cuda or torch.cuda.is_bf16_supported(including_emulation=False)
    if amp == "bfloat16" and not bfloat16:
        raise TrainingError("this CUDA device has no bfloat16", f"{title}.amp", "take float16, or auto")
    return torch.bfloat16 if bfloat16 and amp != "float16" else torch.float16


@contextmanager
def float32_products(fast: bool) -> Iterator[None]:
    """How CUDA multiplies float32: by TF32, which keeps 10 bits of the fraction, or exactly; restored at the end.

    Source: NVIDIA A100 Tensor Core GPU Architecture, 2020.

    Args:
        fast: by TF32.
    """
    places: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "tf32" if fast else "ieee"
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision
