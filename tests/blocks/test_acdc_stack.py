from typing import ClassVar

import pytest
import torch

from compressnet.blocks.acdc_stack import ACDCStack, ACDCStackConfig
from compressnet.maths.dct import dct_matrix
from tests.blocks.contract import BlockContract


class TestACDCStack(BlockContract):
    block = ACDCStack
    config: ClassVar = {"depth": 3}


class TestWiderACDCStack(BlockContract):
    block = ACDCStack
    config: ClassVar = {"depth": 2, "features": 40}


@pytest.mark.parametrize(("ins", "features"), [(12, 12), (9, 14), (14, 9)])
def test_the_layers_are_the_papers(ins: int, features: int) -> None:
    block = ACDCStack(ins, ACDCStackConfig(depth=3, features=features), seed=5, dtype=torch.float64)
    torch.nn.init.normal_(block.bias)
    n = max(ins, features)
    C = dct_matrix(n)
    x = torch.rand(7, ins, dtype=torch.float64)
    h = torch.cat((x, torch.zeros(7, n - ins, dtype=torch.float64)), 1)
    A = torch.cat((block.spatial[:ins], torch.zeros(n - ins), block.spatial[ins:])).detach().view(3, n)
    for k in range(3):
        h = h if k == 0 else h @ torch.eye(n, dtype=torch.float64)[:, block.order[k - 1]]
        h = torch.relu((h @ torch.diag(A[k]) @ C.T @ torch.diag(block.spectral[k]) + block.bias[k]) @ C)
    torch.testing.assert_close(block(x), h[:, :features])


def test_without_noise_it_passes_what_a_relu_gave_in_another_order() -> None:
    block, x = ACDCStack(50, ACDCStackConfig(depth=12, noise=0), seed=5), torch.rand(2, 50)
    torch.testing.assert_close(block(x).sort(1).values, x.sort(1).values)


@pytest.mark.parametrize(
    ("depth", "ins", "numel"),
    [
        (6, 9216, 165_888),  # all of AlexNet's inputs: the layout that a recipe can write
        (12, 4608, 165_888),
    ],
)
def test_the_papers_number_of_parameters_comes_of_these_layouts(depth: int, ins: int, numel: int) -> None:
    assert ACDCStack(ins, ACDCStackConfig(depth=depth), seed=5, device="meta").numel == numel
