"""Training on a CUDA device does what it does on the CPU; run with ``pytest -m gpu``."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import compressnet
from compressnet.data.loading import ahead
from compressnet.training.interrupt import Interrupted
from compressnet.training.precision import half_of
from tests.training.stopping import StopAfter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]
QUANTISED = ["finetune.quantise={start: 0.5}", "export.bits=4"]


@pytest.fixture
def converted(lenet: dict[str, Any], tmp_path: Path) -> Path:
    lenet["finetune"] |= {"optimizer": "sgd", "lr": 0.02}
    compressnet.convert(lenet, tmp_path / "converted.safetensors")
    return tmp_path / "converted.safetensors"


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["val"]["loss"] for line in lines]


def trained(converted: Path, folder: Path, device: str, *overrides: str, **more: Any) -> list[float]:
    compressnet.finetune(converted, folder, device=device, overrides=overrides, **more)
    return losses(folder)


@pytest.mark.parametrize(("amp", "within"), [("off", 0.01), ("bfloat16", 0.05), ("float16", 0.05), ("auto", 0.05)])
def test_training_ends_near_where_it_does_on_the_cpu(converted: Path, tmp_path: Path, amp: str, within: float) -> None:
    expected = trained(converted, tmp_path / "cpu", "cpu", "finetune.amp=off")
    given = trained(converted, tmp_path / "cuda", "cuda", f"finetune.amp={amp}")
    assert given == pytest.approx(expected, rel=within)


def test_training_through_quantisers_ends_near_where_it_does_on_the_cpu(converted: Path, tmp_path: Path) -> None:
    expected = trained(converted, tmp_path / "cpu", "cpu", "finetune.amp=off", *QUANTISED)
    assert trained(converted, tmp_path / "cuda", "cuda", "finetune.amp=off", *QUANTISED) == pytest.approx(
        expected, rel=0.05
    )


def test_auto_takes_a_type_that_the_device_has() -> None:
    device = torch.device("cuda")
    bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    assert half_of("auto", device) is (torch.bfloat16 if bfloat16 else torch.float16)


@pytest.mark.parametrize("overrides", [[], QUANTISED], ids=["plain", "quantised"])
def test_an_interrupted_training_goes_on_to_about_the_same_loss(
    converted: Path, tmp_path: Path, overrides: list[str]
) -> None:
    whole = trained(converted, tmp_path / "whole", "cuda", *overrides)
    with pytest.raises(Interrupted):
        trained(converted, tmp_path / "parts", "cuda", *overrides, progress=StopAfter(25, signal.SIGINT))
    assert trained(converted, tmp_path / "parts", "cuda", *overrides, resume=True) == pytest.approx(whole, rel=0.02)


def test_training_without_indices_ends_near_where_it_does_with_them(converted: Path, tmp_path: Path) -> None:
    kept = trained(converted, tmp_path / "kept", "cuda", "finetune.amp=off")
    made = trained(converted, tmp_path / "made", "cuda", "finetune.amp=off", "finetune.recompute=true")
    assert made == pytest.approx(kept, rel=0.01)


def test_compiled_steps_train_to_about_the_same_loss(converted: Path, tmp_path: Path) -> None:
    torch.compiler.reset()
    plain = trained(converted, tmp_path / "plain", "cuda", "finetune.amp=off")
    compiled = trained(converted, tmp_path / "compiled", "cuda", "finetune.amp=off", compile=True)
    assert compiled == pytest.approx(plain, rel=1e-2)


def test_what_was_trained_on_cuda_is_exported_and_runs_on_the_cpu(converted: Path, tmp_path: Path) -> None:
    trained(converted, tmp_path / "out", "cuda")
    best, model = tmp_path / "out" / "best.safetensors", tmp_path / "model.safetensors"
    compressnet.export(best, model, with_recipe=True, overrides=["export.bits=6"])
    here, there = (compressnet.evaluate(model, device=device) for device in ("cpu", "cuda"))
    assert there.count == here.count == 360
    assert there.loss == pytest.approx(here.loss, rel=0.01)


def test_batches_that_are_copied_ahead_are_those_that_were_given() -> None:
    batches = [(torch.full((8, 3, 32, 32), float(n)).pin_memory(), torch.full((8,), n).pin_memory()) for n in range(5)]
    for number, (images, labels) in enumerate(ahead(batches, torch.device("cuda"))):
        torch.cuda._sleep(1_000_000)
        assert images.is_cuda
        assert images.unique().tolist() == labels.unique().tolist() == [number]
    assert number == 4


def test_a_resnet_trains_with_channels_last_images(tmp_path: Path) -> None:
    recipe = {
        "model": {"name": "resnet18_cifar", "num_classes": 10},
        "data": {"dataset": "fake", "samples": 32, "batch_size": 16},
        "layers": [{"match": "layer*.conv?", "method": "freshnet", "ratio": 16}],
        "calibration": None,
        "finetune": {"epochs": 1, "lr": 0.0001},
    }
    compressnet.convert(recipe, tmp_path / "converted.safetensors")
    expected, given = (
        trained(tmp_path / "converted.safetensors", tmp_path / device, device, "finetune.amp=auto")
        for device in ("cpu", "cuda")
    )
    assert given == pytest.approx(expected, rel=0.1)
