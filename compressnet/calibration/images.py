"""The images that layers are fitted to, as a caller may give them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compressnet.errors import DataError

CURE = "take module.float().cpu() first, and move it back afterwards"


@contextmanager
def taken(model: nn.Module, images: Tensor) -> Iterator[None]:
    """While the block runs, a model is given images for the first time.

    Args:
        model: dense.
        images: shape (N, C, H, W), or what else the model takes N of.

    Raises:
        DataError: they are no images, or the model cannot take them, or is not one of float32 on the CPU.
    """
    cure = "they are a tensor of shape (N, C, H, W) as the module takes it, with at least one image"
    if not isinstance(images, Tensor) or not images.is_floating_point():
        raise DataError("they are not a tensor of floating point numbers", "images", cure)
    if images.dim() < 2 or not len(images):
        raise DataError(f"their shape is {tuple(images.shape)}", "images", cure)
    if not images.isfinite().all():
        raise DataError("some of their numbers are infinite or not numbers", "images", cure)
    for name, tensor in model.named_parameters():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            what = f"{name} is {str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"
            raise DataError(f"a module fits its layers to images in float32 on the CPU, and {what}", "images", CURE)
    try:
        yield
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        shape = "×".join(map(str, images.shape[1:]))
        raise DataError(f"the module cannot take images of {shape}: {error}", "images") from error
