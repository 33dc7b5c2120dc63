from pathlib import Path
from typing import Any

import pytest
import torch

import compressnet
from compressnet.errors import TrainingError
from compressnet.recipe import read_recipe
from compressnet.training.precision import float32_products, half_of

CPU = torch.device("cpu")
CONVOLUTIONS: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]


@pytest.fixture
def converted(lenet: dict[str, Any], tmp_path: Path) -> Path:
    lenet["finetune"] |= {"optimizer": "sgd", "lr": 0.02, "epochs": 1}
    compressnet.convert(lenet, tmp_path / "converted.safetensors")
    return tmp_path / "converted.safetensors"


@pytest.mark.parametrize(("amp", "half"), [("auto", None), ("off", None), ("bfloat16", torch.bfloat16)])
def test_a_cpu_computes_in_float32_unless_bfloat16_is_asked_for(amp: str, half: torch.dtype | None) -> None:
    assert half_of(amp, CPU) is half


def test_float16_is_refused_without_cuda_before_training(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"^finetune\.amp: float16 needs a CUDA device\n  take bfloat16, or auto$"):
        compressnet.finetune(converted, tmp_path / "out", device="cpu", overrides=["finetune.amp=float16"])
    assert not (tmp_path / "out").exists()


def test_off_is_no_boolean(lenet: dict[str, Any]) -> None:
    draft = read_recipe(lenet, ["finetune.amp=off", "pretrain.amp=bfloat16"])
    assert draft.checked().finetune.amp == "off"
    assert draft.checked().pretrain == read_recipe(lenet, ["pretrain.amp='bfloat16'"]).checked().pretrain


def test_bfloat16_trains_to_about_the_same_loss(converted: Path, tmp_path: Path) -> None:
    exact, half = (
        compressnet.finetune(converted, tmp_path / amp, device="cpu", overrides=[f"finetune.amp={amp}"])
        for amp in ("off", "bfloat16")
    )
    assert half.best.loss != exact.best.loss
    assert half.best.loss == pytest.approx(exact.best.loss, rel=0.02)
    assert all(tensor.dtype != torch.bfloat16 for tensor in compressnet.load(half.path).state_dict().values())


@pytest.mark.parametrize(("fast", "word"), [(True, "tf32"), (False, "ieee")])
def test_how_float32_is_multiplied_is_set_and_restored(fast: bool, word: str) -> None:
    before = torch.backends.cuda.matmul.fp32_precision, CONVOLUTIONS.fp32_precision
    with float32_products(fast):
        assert torch.backends.cuda.matmul.fp32_precision == CONVOLUTIONS.fp32_precision == word
    assert (torch.backends.cuda.matmul.fp32_precision, CONVOLUTIONS.fp32_precision) == before
