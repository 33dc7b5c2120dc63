"""Fastfood: blocks of diagonals between Walsh–Hadamard transforms, as functions of tensors.

Le, Sarlós, Smola: Fastfood – approximating kernel expansions in loglinear time, ICML 2013, https://arxiv.org/abs/1408.3060

    V = 1 / (σ √d) · S H G Π H B        (H with entries ±1; ours, orthonormal, is 1/√d times that)

One block has d rows, d the inputs padded to a power of two; blocks are stacked until they give enough rows. S is held
only for rows, and B only for columns, that are used. Independent copies of all that may stand side by side.
"""

import math
from functools import partial

import torch
from torch import Tensor

from compressnet.maths.cache import in_cache
from compressnet.maths.hadamard import hadamard, next_power_of_two, transform
from compressnet.maths.hadamard import macs as transform_macs
from compressnet.maths.hashing import Purpose, derive, normal, permutation, uniform

_ROWS = 1024  # of a block that are made dense at a time


def layout(rows: int, ins: int) -> tuple[int, int]:
    """The width d of a block and how many are stacked."""
    width = next_power_of_two(ins)
    return width, -(-rows // width)


def macs(rows: int, ins: int) -> int:
    """Multiply–accumulates of one input: three diagonals and two transforms a block, as executed by dense factors."""
    width, blocks = layout(rows, ins)
    transforms = transform_macs(width, width, ins) + transform_macs(width, min(width, rows), width)
    return blocks * (ins + width + transforms) + rows


def gain(width: int, sigma: float) -> float:
    """√d / σ: the paper's 1 / (σ √d) for a Hadamard matrix of entries ±1/√d."""
    return math.sqrt(width) / sigma


def draw(rows: int, ins: int, seed: int, copies: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """The paper's draw, from the specified hash: B = ±1, G normal, S such that row norms are chi-distributed.

    Returns:
        S of shape (copies, rows), G of shape (copies · blocks, d) and B of shape (copies · blocks, ins), in float64.
    """
    width, blocks = layout(rows, ins)
    gauss = normal(copies * blocks * width, seed, stream=0).view(-1, width)
    signs = (uniform(copies * blocks * ins, seed, stream=1).view(-1, ins) < 0.5).double()
    # a chi variable of d ≥ 16 degrees is normal with mean √(d − ½) and variance ½, to a per cent
    chi = math.sqrt(width - 0.5) + normal(copies * rows, seed, stream=2).view(copies, rows) * math.sqrt(0.5)
    norms = gauss.norm(dim=1).repeat_interleave(width).view(copies, -1)[:, :rows]
    return chi.clamp(min=0.1) / norms, gauss, 2 * signs - 1


def orders(blocks: int, width: int, seed: int, device: torch.device | str) -> Tensor:
    """Π of each block, as positions among all blocks: int64 of shape (blocks · d,); on ``meta`` the shape alone."""
    order = torch.empty((blocks, width), dtype=torch.int64, device=device)
    if order.device.type != "meta":
        for block in range(blocks):
            part = permutation(width, derive(seed, block), Purpose.ORDER)
            order[block] = torch.from_numpy(part.astype("int64")) + block * width
    return order.view(-1)


def mix(x: Tensor, gauss: Tensor, signs: Tensor, order: Tensor, rows: int) -> Tensor:
    """``H G Π H B x`` of every copy, with orthonormal H.

    Args:
        x: shape (…, ins).
        gauss: G, shape (copies · blocks, d).
        signs: B, shape (copies · blocks, ins).
        order: Π of each block; see :func:`orders`.
        rows: how many outputs a copy gives.

    Returns:
        shape (…, copies, rows).
    """
    run = partial(_mix, gauss=gauss, signs=signs, order=order, rows=rows)
    y = in_cache(run, x.reshape(-1, x.shape[-1]), gauss.numel())
    return y.view(*x.shape[:-1], *y.shape[1:])


def _mix(x: Tensor, gauss: Tensor, signs: Tensor, order: Tensor, rows: int) -> Tensor:
    """:func:`mix` of the rows of a matrix, all at once."""
    (count, ins), width = signs.shape, gauss.shape[1]
    mixed = transform((x.unsqueeze(1) * signs).reshape(-1, ins), width)
    mixed = mixed.view(len(x), count * width).index_select(1, order).view(len(x), count, width) * gauss
    made = transform(mixed.view(-1, width), width, min(width, rows))
    blocks = -(-rows // width)
    made = made.reshape(len(x), count // blocks, blocks * made.shape[1])
    return made if made.shape[2] == rows else made[..., :rows]


def dense(gauss: Tensor, signs: Tensor, order: Tensor, rows: int) -> Tensor:
    """The matrix of :func:`mix`, of shape (copies, rows, ins): row m of a block is B H Πᵀ G on row m of H."""
    width = gauss.shape[1]
    places = order.view_as(gauss) % width
    identity = torch.eye(min(width, rows), dtype=gauss.dtype, device=gauss.device)
    made = []
    for units in identity.split(_ROWS):
        mixed = hadamard(units, width)[:, None] * gauss
        mixed = torch.zeros_like(mixed).scatter(-1, places.expand_as(mixed), mixed)
        made.append(hadamard(mixed, width, signs.shape[1]) * signs)
    blocks = -(-rows // width)
    return torch.cat(made).unflatten(1, (-1, blocks)).permute(1, 2, 0, 3).flatten(1, 2)[:, :rows]
