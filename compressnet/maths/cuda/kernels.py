"""The specified hash as Triton's kernels: bit for bit what ``docs/format.md`` says, with its names.

Each program works on a block of a weight's kernels, one cell after the other. Words are unsigned: ``>>`` shifts in
zeros, sums and products are modulo 2³². ``halvings`` find a tile among those of a band. Tables are rows of words:

| table | words of a row |
|---|---|
| cells | number in its band, cells of the band, first tile of the band, tile behind its last, two keys of signs |
| tiles | first position, positions, first bucket, buckets, 2^b − 1, d, sixteen keys of rounds (two of a hash) |
"""

# mypy: disallow-untyped-defs=False

import triton
import triton.language as tl

_CELL = tl.constexpr(6)
_TILE = tl.constexpr(22)


@triton.jit
def _mix(word, low, high):
    word ^= low
    word ^= word >> 17
    word = word * 0xED5AD4BB + high
    word ^= word >> 11
    word *= 0xAC4C1B51
    word ^= word >> 15
    word *= 0x31848BAB
    return word ^ (word >> 14)


@triton.jit
def _step(value, tile):
    mask, d = tl.load(tile + 4), tl.load(tile + 5)
    for r in tl.static_range(8):
        value = (value * tl.load(tile + 6 + 2 * r) + tl.load(tile + 7 + 2 * r)) & mask
        value ^= value >> d
    return value


@triton.jit
def _balanced(place, tile):
    positions = tl.load(tile + 1)
    value = _step(place - tl.load(tile), tile)
    outside = value >= positions
    while tl.max(outside.to(tl.int32), 0) > 0:
        value = tl.where(outside, _step(value, tile), value)
        outside = value >= positions
    return tl.load(tile + 2) + value % tl.load(tile + 3)


@triton.jit
def _independent(place, tile):
    word, count = _mix(place, tl.load(tile + 6), tl.load(tile + 7)), tl.load(tile + 3)
    return tl.load(tile + 2) + (word.to(tl.uint64) * count.to(tl.uint64) >> 32).to(tl.uint32)


@triton.jit
def _read(kernel, cell, cells, tiles, halvings, balanced: tl.constexpr):
    """What a cell of kernels reads, and whether its sign is −."""
    cell = cells + cell * _CELL
    place = kernel * tl.load(cell + 1) + tl.load(cell)
    minus = _mix(place, tl.load(cell + 4), tl.load(cell + 5)) >> 31
    tile, end = tl.load(cell + 2) + tl.zeros_like(kernel), tl.load(cell + 3)
    for halving in range(halvings):
        further = tile + (1 << (halvings - 1 - halving))
        start = tl.load(tiles + further * _TILE, mask=further < end, other=0xFFFFFFFF)
        tile = tl.where(start <= place, further, tile)
    row = tiles + tile * _TILE
    bucket = _balanced(place, row) if balanced else _independent(place, row)
    return bucket, minus


@triton.jit
def _kernels(count, block: tl.constexpr):
    """Those of this program, whether there are so many, and for those that there are not the last."""
    kernel = tl.program_id(0) * block + tl.arange(0, block)
    return kernel, kernel < count, tl.minimum(kernel, count - 1).to(tl.uint32)


@triton.jit(do_not_specialize=["count", "halvings"])
def signed_indices(out, cells, tiles, count, halvings, size: tl.constexpr, balanced: tl.constexpr, block: tl.constexpr):
    """``out[i] = 2 · bucket + (1 if the sign is − else 0)``."""
    kernel, exists, known = _kernels(count, block)
    for cell in range(size):
        bucket, minus = _read(known, cell, cells, tiles, halvings, balanced)
        tl.store(out + kernel * size + cell, (2 * bucket + minus).to(tl.int32), mask=exists)


@triton.jit(do_not_specialize=["count", "halvings"])
def gather(
    out,
    values,
    transform,
    cells,
    tiles,
    count,
    halvings,
    size: tl.constexpr,
    balanced: tl.constexpr,
    block: tl.constexpr,
    width: tl.constexpr,
):
    """``out[kernel, pixel] = Σ ± values[bucket of the cell] · transform[cell, pixel]``; ``width`` is a power of two."""
    kernel, exists, known = _kernels(count, block)
    pixel = tl.arange(0, width)
    made = tl.zeros((block, width), values.dtype.element_ty)
    for cell in range(size):
        bucket, minus = _read(known, cell, cells, tiles, halvings, balanced)
        value = tl.load(values + bucket)
        wave = tl.load(transform + cell * size + pixel, mask=pixel < size, other=0.0)
        made += tl.where(minus == 1, -value, value)[:, None] * wave[None, :]
    places = kernel[:, None] * size + pixel[None, :]
    tl.store(out + places, made, mask=exists[:, None] & (pixel < size)[None, :])


@triton.jit(do_not_specialize=["count", "halvings"])
def add(
    numbers,
    sums,
    transform,
    cells,
    tiles,
    count,
    halvings,
    size: tl.constexpr,
    balanced: tl.constexpr,
    block: tl.constexpr,
    width: tl.constexpr,
):
    """``sums[bucket of the cell] += ± Σ numbers[kernel, pixel] · transform[cell, pixel]``."""
    kernel, exists, known = _kernels(count, block)
    pixel = tl.arange(0, width)
    places = kernel[:, None] * size + pixel[None, :]
    given = tl.load(numbers + places, mask=exists[:, None] & (pixel < size)[None, :], other=0.0)
    for cell in range(size):
        bucket, minus = _read(known, cell, cells, tiles, halvings, balanced)
        wave = tl.load(transform + cell * size + pixel, mask=pixel < size, other=0.0)
        number = tl.sum(given * wave[None, :], 1)
        tl.atomic_add(sums + bucket, tl.where(minus == 1, -number, number), mask=exists, sem="relaxed")
