"""Monarch: a weight as two block-diagonal factors with a transposition between.

Tri Dao, Beidi Chen, Nimit Sohoni, Arjun Desai, Michael Poli, Jessica Grogan, Alexander Liu, Aniruddh Rao, Atri Rudra,
Christopher Ré: Monarch: Expressive Structured Matrices for Efficient and Accurate Training, ICML 2022,
https://arxiv.org/abs/2204.00595

| paper | here |
|---|---|
| M = P L Pᵀ R, n = m² | the weight; out and in need not be equal, nor squares |
| m | ``blocks`` b, of each factor |
| R[k, j, i] | ``right[j, i']``, i' = input i of block k |
| L[j, l, k] | ``left[o, k]``, o = l · b + j |
| P | the stride b of the outputs that share j |
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.maths import monarch, vectors
from compressnet.product import ProductWeight
from compressnet.structured import MethodConfig

RIDGE = 1e-3  # of the mean of a Gram matrix's diagonal


class MonarchConfig(MethodConfig):
    """``monarch`` in a recipe.

    Args:
        blocks: of each factor; by default about the fourth root of out · in, the square root for a square weight.
    """

    sizes = ("blocks",)

    blocks: int | None = Field(default=None, ge=1)


class MonarchWeight(ProductWeight):
    """A weight, read as a matrix of out rows and in·kh·kw columns, as P L Pᵀ R with block-diagonal L and R.

    Columns are the inputs of a product, ``in`` for short. They are cut into b blocks of ⌈in / b⌉ neighbours, rows into
    b groups of every b-th one. The tile of a group and a block is an outer product:

        W[o, i] = left[o, i // ⌈in / b⌉] · right[o mod b, i]

    Every tile has numbers of its own, so the least-squares projection is closed: the leading singular vectors of each.
    Sizes that b does not divide are padded while computing; what is stored is not.

    Stored: b · (out + in) floats, as many as a rank of b, for a weight of full rank.
    Re-made: nothing.   Cost: two batched products, about b · (out + in) multiply–accumulates.

    Source: Dao et al. 2022 (the definition, and the projection of square weights).

    Example:
        >>> weight = MonarchWeight((16, 20), MonarchConfig(blocks=4), seed=1)
        >>> weight.numel, weight.to_dense().shape
        (144, torch.Size([16, 20]))
    """

    name = "monarch"
    Config = MonarchConfig
    exact_projection = True

    @classmethod
    def rejects(cls, shape: Sequence[int], config: Any) -> str | None:
        """Every block is used, and it stores fewer numbers than the dense weight has."""
        outs, ins = _matrix(shape)
        blocks = _blocks(shape, config)
        if blocks > outs or not _every_block_is_used(ins, blocks):
            most = min(blocks, (outs * ins - 1) // (outs + ins))  # that store fewer numbers than the dense weight
            cure = f"; {_fitting(outs, ins, most)} would not" if most else ""
            return f"{blocks} blocks would leave some empty{cure}"
        return super().rejects(shape, config)

    @classmethod
    def config_near(cls, shape: Sequence[int], ratio: float) -> MonarchConfig:
        """The number of blocks that comes nearest, of those that leave none empty."""
        outs, ins = _matrix(shape)
        wanted = outs * ins / ratio / (outs + ins)
        fitting = (blocks for blocks in range(1, outs + 1) if _every_block_is_used(ins, blocks))
        return MonarchConfig(blocks=min(fitting, key=lambda blocks: abs(blocks - wanted)))

    @classmethod
    def macs_per_input(cls, shape: Sequence[int], config: Any) -> int:
        """Two batched products, padding included."""
        blocks, (outs, ins) = _blocks(shape, config), _matrix(shape)
        return blocks * blocks * (-(-outs // blocks) - (-ins // blocks))

    def _allocate_(self, device: torch.device, dtype: torch.dtype) -> None:
        outs, ins = _matrix(self.shape)
        self.blocks = _blocks(self.shape, self.config)
        self.left = nn.Parameter(torch.zeros(outs, self.blocks, device=device, dtype=dtype))
        self.right = nn.Parameter(torch.zeros(self.blocks, ins, device=device, dtype=dtype))

    def _factors(self) -> tuple[Tensor, Tensor]:
        """L as (output l, group j, block k) and R as (group j, block k, input i), padded by zeros."""
        b, missing = self.blocks, -len(self.left) % self.blocks
        left = F.pad(self.left, (0, 0, 0, missing)) if missing else self.left
        return left.view(-1, b, b), _padded(self.right, b).view(b, b, -1)

    @torch.no_grad()
    def scale_(self, factor: float) -> None:
        """Multiply the weight by a number: L takes it."""
        self.left.mul_(factor)

    @torch.no_grad()
    def scale_rows_(self, factors: Tensor) -> bool:
        """L takes them."""
        self.left.mul_(factors[:, None])
        return True

    def matmul(self, x: Tensor) -> Tensor:
        """``x Wᵀ`` for x of shape (…, in·kh·kw), by two batched products."""
        return self.affine(x, None)

    def affine(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """:meth:`matmul` and a bias."""
        b, outs, ins = self.blocks, len(self.left), self.right.shape[1]
        if outs % b == ins % b == 0 and vectors.runs(x, self.right, self.left, bias):
            return vectors.through(x, self.right, self.left, bias, b)
        left, right = self._factors()
        y = monarch.multiply(_padded(x.reshape(-1, ins), b), right, left, None if bias is None else _padded(bias, b))
        return y[:, :outs].reshape(*x.shape[:-1], outs)

    def to_dense(self) -> Tensor:
        """The dense weight: every tile's outer product."""
        left, right = self._factors()
        outs, ins = _matrix(self.shape)
        tiles = left[..., None] * right
        return tiles.reshape(-1, self.blocks * right.shape[2])[:outs, :ins].reshape(self.shape)

    @torch.no_grad()
    def project_(self, dense: Tensor, inputs: Tensor | None = None) -> Self:
        """The nearest outer product to every tile; with inputs, nearest on them, and L fitted to the outputs.

        Tiles of one output add up, so with inputs the tiles alone are no optimum; L given R is one, in closed form.

        Args:
            dense: shape ``shape``.
            inputs: shape (samples, in·kh·kw).
        """
        b, (outs, ins) = self.blocks, _matrix(self.shape)
        padded = F.pad(dense.flatten(1), (0, -ins % b, 0, -outs % b))
        tiles = padded.view(-1, b, b, padded.shape[1] // b).permute(1, 2, 0, 3)
        left, right = self.left.new_zeros(b, b, tiles.shape[2]), self.right.new_zeros(b, b, tiles.shape[3])
        seen = (
            None if inputs is None else F.pad(inputs.double(), (0, -ins % b)).view(len(inputs), b, -1).transpose(0, 1)
        )
        moments = None if seen is None else _ridged(seen.mT @ seen)
        for group in range(b):
            own = tiles[group].double()
            u, v = _outer_product(own, moments)
            if seen is not None:
                features = torch.einsum("kni,ki->nk", seen, v)
                missing = torch.einsum("kni,kli->nl", seen, own) - features @ u
                u = u + torch.linalg.solve(_ridged(features.T @ features), features.T @ missing)
            left[group], right[group] = u, v
        self.left.copy_(left.permute(2, 0, 1).reshape(-1, b)[:outs])
        self.right.copy_(right.reshape(b, -1)[:, :ins])
        return self


def _padded(rows: Tensor, blocks: int) -> Tensor:
    """As many numbers more, zeros, as equal blocks need."""
    missing = -rows.shape[-1] % blocks
    return F.pad(rows, (0, missing)) if missing else rows


def _ridged(gram: Tensor) -> Tensor:
    """Gram matrices with a little of the identity, so that directions no sample shows still count."""
    mean = gram.diagonal(dim1=-2, dim2=-1).mean().clamp(min=torch.finfo(gram.dtype).tiny)
    return gram + RIDGE * mean * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)


def _outer_product(tiles: Tensor, moments: Tensor | None) -> tuple[Tensor, Tensor]:
    """The nearest u vᵀ of each matrix of a batch, on inputs of given second moments; both of the same norm."""
    wide = moments is not None or tiles.shape[1] <= tiles.shape[2]
    near = tiles if wide else tiles.mT
    gram = near @ near.mT if moments is None else near @ moments @ near.mT
    u = torch.linalg.eigh(gram)[1][:, :, -1:]
    v = near.mT @ u
    root = v.norm(dim=1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny).sqrt()
    short, long = (u * root).squeeze(2), (v / root).squeeze(2)
    return (short, long) if wide else (long, short)


def _matrix(shape: Sequence[int]) -> tuple[int, int]:
    return shape[0], torch.Size(shape[1:]).numel()


def _blocks(shape: Sequence[int], config: Any) -> int:
    if config.blocks is not None:
        return int(config.blocks)
    outs, ins = _matrix(shape)
    root = min(round((outs * ins) ** 0.25), outs)
    even = [b for b in range(-(-root // 2), 2 * root) if outs % b == 0 and ins % b == 0]
    return min(even, key=lambda b: (max(b / root, root / b), b)) if even else _fitting(outs, ins, root)


def _fitting(outs: int, ins: int, blocks: int) -> int:
    """The largest number of blocks up to a given one that are all used."""
    return next(b for b in range(min(blocks, outs, ins), 0, -1) if _every_block_is_used(ins, b))


def _every_block_is_used(ins: int, blocks: int) -> bool:
    return (blocks - 1) * -(-ins // blocks) < ins
