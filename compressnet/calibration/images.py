"""The images that layers are fitted to, as a caller may give them."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from compressnet.errors import DataError


@contextmanager
def taken(images: Tensor) -> Iterator[None]:
    """While the block runs, a model is given images for the first time.

    Args:
        images: shape (N, C, H, W).

    Raises:
        DataError: they are no images, or the model cannot take them.
    """
    cure = "they are a tensor of shape (N, C, H, W) as the module takes it, with at least one image"
    if not isinstance(images, Tensor) or not images.is_floating_point():
        raise DataError("they are not a tensor of floating point numbers", "images", cure)
    if images.dim() != 4 or not len(images):
        raise DataError(f"their shape is {tuple(images.shape)}", "images", cure)
    if not images.isfinite().all():
        raise DataError("some of their numbers are infinite or not numbers", "images", cure)
    try:
        yield
    except RuntimeError as error:
        shape = "×".join(map(str, images.shape[1:]))
        raise DataError(f"the module cannot take images of {shape}: {error}", "images") from error
