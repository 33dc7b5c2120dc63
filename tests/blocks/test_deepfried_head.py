import math
from typing import Any, ClassVar

import pytest
import torch
from scipy.linalg import hadamard

from compressnet.blocks.deepfried_head import DeepFriedHead, DeepFriedHeadConfig
from tests.blocks.contract import BlockContract


class TestDeepFriedHead(BlockContract):
    block = DeepFriedHead
    config: ClassVar = {"features": 64}


class TestFixedFastfood(BlockContract):
    block = DeepFriedHead
    config: ClassVar = {"features": 64, "adaptive": False, "bias": False}


def built(ins: int, **config: Any) -> DeepFriedHead:
    return DeepFriedHead(ins, DeepFriedHeadConfig(**config), seed=5)


@pytest.mark.parametrize(("ins", "features"), [(16, 16), (16, 48), (10, 32), (33, 64)])
def test_the_features_are_the_papers(ins: int, features: int) -> None:
    block = DeepFriedHead(ins, DeepFriedHeadConfig(features=features, sigma=1.7), seed=5, dtype=torch.float64)
    torch.nn.init.normal_(block.bias)
    blocks, d = block.gauss.shape
    H = torch.tensor(hadamard(d), dtype=torch.float64)  # entries ±1
    rows = []
    for k in range(blocks):
        P = torch.eye(d, dtype=torch.float64)[block.order.view(blocks, d)[k] - k * d]
        B = torch.zeros(d, dtype=torch.float64)
        B[:ins] = block.signs[k].detach()
        rows.append(H @ torch.diag(block.gauss[k].detach()) @ P @ H @ torch.diag(B))
    V = block.scale.detach()[:, None] * torch.cat(rows)[:, :ins] / (1.7 * math.sqrt(d))
    x = torch.randn(7, ins, dtype=torch.float64)
    torch.testing.assert_close(block(x), torch.relu(x @ V.T + block.bias))


@pytest.mark.parametrize(("features", "padded"), [(1024, 38_812), (2048, 52_124)])
def test_lenet5_has_the_papers_number_of_parameters_when_padding_is_counted(features: int, padded: int) -> None:
    convolutions, softmax = 500 + 25_000, 10 * features
    assert convolutions + 3 * features + softmax == padded
    stored = built(800, features=features, bias=False).numel
    assert stored == 2 * features + features // 1024 * 800
    assert built(800, features=features).numel == stored + features


@pytest.mark.parametrize(("features", "stored"), [(16_384, 41_984), (32_768, 83_968)])
def test_alexnets_head_stores_b_for_its_9216_inputs_alone(features: int, stored: int) -> None:
    block = DeepFriedHead(9216, DeepFriedHeadConfig(features=features, bias=False), seed=5, device="meta")
    assert block.numel == stored < 3 * features


def test_fixed_fastfood_is_stored_and_not_trained() -> None:
    fixed, adaptive = built(20, features=32, adaptive=False), built(20, features=32)
    assert fixed.state_dict().keys() == adaptive.state_dict().keys()
    assert [name for name, _ in fixed.named_parameters()] == ["bias"]
    x = torch.randn(3, 20)
    assert torch.equal(fixed(x), adaptive(x))


def test_a_draw_is_random_features_of_the_arc_cosine_kernel() -> None:
    block = built(64, features=1 << 14, sigma=1.0, bias=False)
    x, y = torch.nn.functional.normalize(torch.randn(2, 50, 64, generator=torch.Generator().manual_seed(0)), dim=2)
    angle = torch.acos((x * y).sum(1))
    kernel = (torch.sin(angle) + (math.pi - angle) * torch.cos(angle)) / math.pi  # of order 1
    torch.testing.assert_close(2 * (block(x) * block(y)).mean(1), kernel, rtol=0, atol=0.05)


@pytest.mark.parametrize(("features", "near"), [(1500, "1,024 or 2,048"), (1000, "1,024 or 2,048")])
def test_features_that_are_no_multiple_of_the_padded_inputs_are_refused(features: int, near: str) -> None:
    reason = str(DeepFriedHead.rejects(800, DeepFriedHeadConfig(features=features)))
    assert (
        reason == f"features {features:,} is no multiple of 1,024, to which its 800 inputs are padded; such as {near}"
    )
