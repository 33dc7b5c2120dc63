"""Which of N positions are kept, as the gaps between them: relative indices of a fixed number of bits.

A code counts the positions that are passed over before one that is kept. The largest code keeps none: it is a filler,
which passes over as many positions as it counts, for gaps that do not fit.

| letter | here |
|---|---|
| b | ``bits`` of a code |
| n | ``codes``, how many there are, fillers included |

Source: Han, Mao, Dally, Deep Compression, ICLR 2016, section 2, https://arxiv.org/abs/1510.00149; there a filler has a
zero among the values, here its code says as much.
"""

import torch
from torch import Tensor

from compressnet.maths.bitmaps import pack, unpack

BITS = range(2, 17)
"""What b may be."""


def encode(kept: Tensor, bits: int) -> Tensor:
    """The codes of the gaps before positions.

    Args:
        kept: the positions, rising, of shape (K,).
        bits: b.

    Returns:
        int64 of shape (n,).

    >>> encode(torch.tensor([0, 2, 9, 30]), 3).tolist()
    [0, 1, 6, 7, 7, 6]
    """
    gaps, filler = _gaps(kept), 2**bits - 1
    fillers = gaps // filler
    codes = gaps.new_full((len(gaps) + int(fillers.sum()),), filler)
    codes[(fillers + 1).cumsum(0) - 1] = gaps % filler
    return codes


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Codes one after the other, b bits each, the lowest first.

    Returns:
        uint8 of shape (⌈n · b / 8⌉,); bits beyond n · b are 0.

    >>> pack_codes(encode(torch.tensor([0, 2, 9, 30]), 3), 3).tolist()
    [136, 127, 3]
    """
    places = torch.arange(bits, device=codes.device)
    return pack(((codes[:, None] >> places) & 1).bool().flatten())


def positions(packed: Tensor, bits: int, codes: int) -> Tensor:
    """The positions that packed codes keep, rising.

    Args:
        packed: uint8 of shape (⌈n · b / 8⌉,).
        bits: b.
        codes: n.

    Returns:
        int64 of shape (K,).

    >>> positions(torch.tensor([136, 127, 3], dtype=torch.uint8), 3, 6).tolist()
    [0, 2, 9, 30]
    """
    each = unpack(packed, bits * codes).view(codes, bits)
    gaps = torch.zeros(codes, dtype=torch.int64, device=packed.device)
    for place in range(bits):
        gaps += each[:, place].long() << place
    return kept_by(gaps, bits)


def kept_by(codes: Tensor, bits: int) -> Tensor:
    """The positions that codes keep, rising.

    Args:
        codes: int64 of shape (n,).
        bits: b.

    Returns:
        int64 of shape (K,).

    >>> kept_by(torch.tensor([0, 1, 6, 7, 7, 6]), 3).tolist()
    [0, 2, 9, 30]
    """
    keeps = codes < 2**bits - 1
    return ((codes + keeps).cumsum(0) - 1)[keeps]


def fewest(kept: Tensor) -> tuple[int, int]:
    """The b whose packed codes are fewest bytes, of equal ones that of fewest codes, and their n.

    >>> fewest(torch.tensor([0, 2, 9, 30]))
    (5, 4)
    """
    gaps = _gaps(kept)
    codes = {bits: len(gaps) + int((gaps // (2**bits - 1)).sum()) for bits in BITS}
    bits = min(BITS, key=lambda bits: (-(-codes[bits] * bits // 8), codes[bits]))
    return bits, codes[bits]


def _gaps(kept: Tensor) -> Tensor:
    """How many positions are passed over before each that is kept."""
    return kept.long().diff(prepend=kept.new_full((1,), -1, dtype=torch.int64)) - 1
