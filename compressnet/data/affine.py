"""Augmentation of a whole batch of images, already prepared: each is turned, scaled and shifted a little."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

DEGREES = 10.0
SCALE = 0.1
SHIFT = 0.08
"""Of the image's side."""


def random_affine(images: Tensor) -> Tensor:
    """Turn, scale and shift each image by its own draw: by up to 10°, 10 % and 8 % of its side, either way.

    What comes in from outside has the value of the nearest pixel at the border, so that a black ground stays black.
    The draws are those of torch's random generator of the CPU, whose state a resumed run has.

    Args:
        images: shape (N, C, H, W).

    Returns:
        the same shape.
    """
    angle, scale, across, down = 2 * torch.rand(4, len(images)) - 1
    angle, scale = angle * math.radians(DEGREES), 1 + SCALE * scale
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    rows = (cosine, -sine, 2 * SHIFT * across), (sine, cosine, 2 * SHIFT * down)  # the image spans −1 … 1
    maps = torch.stack([torch.stack(row, 1) for row in rows], 1).to(images)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
