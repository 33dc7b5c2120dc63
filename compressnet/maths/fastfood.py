"""Fastfood: blocks of diagonals between Walsh–Hadamard transforms, as functions of tensors.

Le, Sarlós, Smola: Fastfood – approximating kernel expansions in loglinear time, ICML 2013, https://arxiv.org/abs/1408.3060

    V = 1 / (σ √d) · S H G Π H B        (H with entries ±1; ours, orthonormal, is 1/√d times that)

One block has d rows, d the inputs padded to a power of two; blocks are stacked until they give enough rows. S is held
only for rows, and B only for columns, that are used.
"""

import math

import torch
from torch import Tensor

from compressnet.maths.hadamard import factors, hadamard, next_power_of_two
from compressnet.maths.hashing import Purpose, derive, normal, permutation, uniform


def layout(rows: int, ins: int) -> tuple[int, int]:
    """The width d of a block and how many are stacked."""
    width = next_power_of_two(ins)
    return width, -(-rows // width)


def macs(rows: int, ins: int) -> int:
    """Multiply–accumulates of one input: three diagonals and two transforms a block, as executed by dense factors."""
    width, blocks = layout(rows, ins)
    transform = width * sum(factor for factor in factors(width) if factor > 1)
    return blocks * (2 * transform + width + ins) + rows


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
    chi = math.sqrt(width - 0.5) + normal(copies * rows, seed, stream=2) * math.sqrt(0.5)
    norms = gauss.norm(dim=1).repeat_interleave(width).view(copies, -1)[:, :rows]
    return chi.clamp(min=0.1).view(copies, rows) / norms, gauss, 2 * signs - 1


def orders(blocks: int, width: int, seed: int, device: torch.device | str) -> Tensor:
    """Π of each block, as positions among all blocks: int64 of shape (blocks · d,); on ``meta`` the shape alone."""
    order = torch.empty((blocks, width), dtype=torch.int64, device=device)
    if order.device.type != "meta":
        for block in range(blocks):
            part = permutation(width, derive(seed, block), Purpose.ORDER)
            order[block] = torch.from_numpy(part.astype("int64")) + block * width
    return order.view(-1)


def mix(x: Tensor, gauss: Tensor, signs: Tensor, order: Tensor, rows: int) -> Tensor:
    """``H G Π H B x`` of every block, with orthonormal H.

    Args:
        x: shape (…, ins).
        gauss: G, shape (blocks, d).
        signs: B, shape (blocks, ins).
        order: Π of each block; see :func:`orders`.
        rows: how many leading outputs of each block are wanted.

    Returns:
        shape (…, blocks, rows).
    """
    mixed = hadamard(x.unsqueeze(-2) * signs, gauss.shape[1]).flatten(-2)
    mixed = mixed.index_select(-1, order).unflatten(-1, gauss.shape) * gauss
    return hadamard(mixed, gauss.shape[1], rows)
