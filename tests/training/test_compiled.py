import json
from pathlib import Path
from typing import Any

import pytest
import torch

import compressnet
from compressnet.errors import TrainingError

QUANTISED = ["finetune.quantise={start: 0.5}", "export.bits=4"]


@pytest.fixture
def converted(lenet: dict[str, Any], tmp_path: Path) -> Path:
    lenet["finetune"] |= {"optimizer": "sgd", "lr": 0.02}
    compressnet.convert(lenet, tmp_path / "converted.safetensors")
    return tmp_path / "converted.safetensors"


def test_compiled_steps_train_the_same_through_quantisers_too(converted: Path, tmp_path: Path) -> None:
    torch.compiler.reset()
    histories = []
    for backend in (False, "aot_eager"):
        folder = tmp_path / f"{backend}"
        compressnet.finetune(converted, folder, device="cpu", overrides=QUANTISED, compile=backend)
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        histories.append([json.loads(line).get("loss", 0) for line in lines])
    assert histories[1] == pytest.approx(histories[0], abs=1e-5)
    assert torch._dynamo.utils.counters["graph_break"] == {}
    assert {name.split(".")[0] for name in compressnet.load(tmp_path / "aot_eager/best.safetensors").state_dict()} == {
        "conv1", "conv2", "fc1", "fc2"
    }  # fmt: skip


def test_a_run_compiles_both_its_trainings(lenet: dict[str, Any], tmp_path: Path) -> None:
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compressnet.run(lenet, tmp_path, device="cpu", overrides=["finetune.epochs=1"], compile="eager")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2


def test_what_cannot_be_compiled_is_told(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"^--compile: torch\.compile cannot compile the model: .*nonsense"):
        compressnet.finetune(converted, tmp_path / "out", device="cpu", compile="nonsense")


@pytest.mark.slow
def test_the_usual_backend_trains_to_about_the_same_loss(converted: Path, tmp_path: Path) -> None:
    torch.compiler.reset()
    plain, compiled = (
        compressnet.finetune(converted, tmp_path / f"{compile}", device="cpu", compile=compile)
        for compile in (False, True)
    )
    assert compiled.best.loss == pytest.approx(plain.best.loss, rel=1e-3)


def test_compiled_steps_cannot_recompute(converted: Path, tmp_path: Path) -> None:
    wanted = ["finetune.recompute=true"]
    with pytest.raises(TrainingError, match=r"^finetune\.recompute: a compiled step keeps its indices\n"):
        compressnet.finetune(converted, tmp_path / "out", device="cpu", overrides=wanted, compile="eager")
