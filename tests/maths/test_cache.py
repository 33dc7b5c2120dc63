import pytest
import torch
from torch import Tensor

from compressnet.maths.cache import in_cache


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("rows", "width"), [(0, 9), (1, 1 << 20), (2, 1 << 19), (100, 1 << 14), (7, 3)])
def test_rows_pass_through_a_chain_as_they_do_together(
    rows: int, width: int, threads: int, gradients: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    factor, x = torch.randn(5, requires_grad=True), torch.randn(rows, 5)

    def run(x: Tensor) -> Tensor:
        return (x * factor).cumsum(1)

    with torch.set_grad_enabled(gradients):
        y = in_cache(run, x, width)
    assert torch.equal(y, run(x))
    assert y.requires_grad is gradients
