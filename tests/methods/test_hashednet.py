from typing import ClassVar

import pytest
import torch

from compressnet.methods.hashednet import HashedNetConfig, HashedNetWeight
from tests.methods.contract import Contract


class TestHashedNet(Contract):
    weight = HashedNetWeight
    config: ClassVar = {"ratio": 4}


class TestHashedNetWithThePapersHash(Contract):
    weight = HashedNetWeight
    config: ClassVar = {"ratio": 3.5, "hashing": "independent"}


def test_ratio_one_is_lossless() -> None:
    dense = torch.randn(30, 20)
    weight = HashedNetWeight((30, 20), HashedNetConfig(ratio=1), seed=2).project_(dense)
    assert torch.equal(weight.to_dense().abs(), dense.abs())
    torch.testing.assert_close(weight.to_dense(), dense)


def test_every_entry_is_plus_or_minus_a_bucket() -> None:
    weight = HashedNetWeight((20, 30), HashedNetConfig(ratio=8), seed=2)
    with torch.no_grad():
        weight.buckets.copy_(torch.arange(1.0, weight.buckets.numel() + 1))
    dense = weight.to_dense()
    reads = torch.bincount(dense.abs().long().flatten(), minlength=76)[1:]
    assert set(reads.tolist()) == {8}
    assert 0.35 < (dense > 0).double().mean() < 0.65


@pytest.mark.parametrize("ratio", [0.5, 0, -1, float("nan"), float("inf"), "abc"])
def test_a_ratio_below_one_or_not_a_number_is_refused(ratio: object) -> None:
    with pytest.raises(ValueError, match="ratio"):
        HashedNetConfig(ratio=ratio)  # type: ignore[arg-type]


def test_the_projection_keeps_the_share_of_energy_that_the_ratio_leaves() -> None:
    dense = torch.randn(400, 400)
    weight = HashedNetWeight((400, 400), HashedNetConfig(ratio=16), seed=2).project_(dense)
    kept = weight.to_dense().square().sum() / dense.square().sum()
    assert kept.item() == pytest.approx(1 / 16, rel=0.1)
