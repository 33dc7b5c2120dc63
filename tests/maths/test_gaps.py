"""Gaps against a reader that goes bit by bit."""

import pytest
import torch

from compressnet.maths.gaps import BITS, encode, fewest, pack_codes, positions

DENSITIES = [0.001, 0.02, 0.1, 0.5, 0.9]


def kept(numel: int, density: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    mask = torch.rand(numel, generator=generator) < density
    mask[-1] = True
    return mask.nonzero().flatten().int()


def read_slowly(packed: torch.Tensor, bits: int, codes: int) -> list[int]:
    stream = int.from_bytes(bytes(packed.tolist()), "little")
    found, here = [], 0
    for _ in range(codes):
        code, stream = stream % 2**bits, stream >> bits
        here += code
        if code < 2**bits - 1:
            found.append(here)
            here += 1
    assert stream == 0
    return found


@pytest.mark.parametrize("bits", [2, 3, 4, 7, 11, 16])
@pytest.mark.parametrize("density", DENSITIES)
def test_random_positions_come_back(density: float, bits: int) -> None:
    wanted = kept(20_011, density)
    codes = encode(wanted, bits)
    packed = pack_codes(codes, bits)
    assert packed.dtype is torch.uint8
    assert len(packed) == -(-len(codes) * bits // 8)
    assert positions(packed, bits, len(codes)).tolist() == wanted.tolist()
    assert read_slowly(packed, bits, len(codes)) == wanted.tolist()


@pytest.mark.parametrize("wanted", [[0], [2], [3], [6, 7], [131_071], list(range(9)), [0, 65_535, 131_070]])
@pytest.mark.parametrize("bits", BITS)
def test_gaps_at_the_edge_of_a_code_come_back(wanted: list[int], bits: int) -> None:
    codes = encode(torch.tensor(wanted), bits)
    assert positions(pack_codes(codes, bits), bits, len(codes)).tolist() == wanted


@pytest.mark.parametrize("density", DENSITIES)
def test_no_other_number_of_bits_takes_fewer_bytes(density: float) -> None:
    wanted = kept(20_011, density)
    bits, codes = fewest(wanted)
    nbytes = {each: len(pack_codes(encode(wanted, each), each)) for each in BITS}
    assert codes == len(encode(wanted, bits))
    assert nbytes[bits] == min(nbytes.values())


def test_the_example_of_the_format_page() -> None:
    wanted = torch.tensor([0, 2, 9, 30])
    assert encode(wanted, 3).tolist() == [0, 1, 6, 7, 7, 6]
    assert bytes(pack_codes(encode(wanted, 3), 3).tolist()) == bytes.fromhex("887F03")
