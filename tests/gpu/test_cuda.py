"""What a CUDA device must agree on with the CPU; run with ``pytest -m gpu``."""

from pathlib import Path
from typing import Any

import pytest
import torch

import compressnet
from compressnet.layers import CompressedLayer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]


@pytest.fixture
def converted(lenet: dict[str, Any], tmp_path: Path) -> Path:
    compressnet.convert(lenet, tmp_path / "converted.safetensors")
    return tmp_path / "converted.safetensors"


def layers(model: torch.nn.Module) -> dict[str, CompressedLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, CompressedLayer)}


def test_tables_are_the_same_integers(converted: Path) -> None:
    here, there = layers(compressnet.load(converted)), layers(compressnet.load(converted, "cuda"))
    for name, layer in here.items():
        for key, table in layer.structured.named_buffers():
            if not table.is_floating_point():
                assert torch.equal(there[name].structured.get_buffer(key).cpu(), table)


def test_dense_weights_made_on_the_cpu_first_are_the_same_bits(converted: Path) -> None:
    here, there = layers(compressnet.load(converted)), layers(compressnet.load(converted, "cuda"))
    with torch.no_grad():
        for name in ("conv2", "fc2"):  # deepfried runs as a product and is not made dense
            assert torch.equal(there[name].weight.cpu(), here[name].weight)


def test_outputs_are_equal_to_rounding(converted: Path) -> None:
    x = torch.randn(4, 1, 28, 28)
    with torch.no_grad():
        expected = compressnet.load(converted)(x)
        torch.testing.assert_close(compressnet.load(converted, "cuda")(x.cuda()).cpu(), expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("more", [[], ["finetune.ema=0.9", "finetune.mixup=0.2", "finetune.cutmix=1"]], ids=str)
def test_training_runs_with_mixed_precision(converted: Path, tmp_path: Path, more: list[str]) -> None:
    overrides = ["finetune.epochs=3", *more]
    trained = compressnet.finetune(converted, tmp_path / "out", device="cuda", overrides=overrides)
    assert trained.best.loss < trained.before.loss
    resumed = compressnet.finetune(converted, tmp_path / "out", device="cuda", overrides=overrides, resume=True)
    assert resumed.epochs == 3
