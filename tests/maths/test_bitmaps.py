import numpy as np
import pytest
import torch

from compressnet.maths.bitmaps import pack, positions


@pytest.mark.parametrize("numel", [1, 7, 8, 9, 64, 1001])
def test_a_bitmap_is_numpys_in_little_bit_order(numel: int) -> None:
    kept = torch.rand(numel) < 0.3
    bitmap = pack(kept)
    np.testing.assert_array_equal(bitmap.numpy(), np.packbits(kept.numpy(), bitorder="little"))
    assert bitmap.dtype is torch.uint8
    np.testing.assert_array_equal(positions(bitmap, numel).numpy(), np.flatnonzero(kept.numpy()))
