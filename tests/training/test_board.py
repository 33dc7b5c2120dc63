import json
import sys
from pathlib import Path
from typing import Any

import pytest

import compressnet
from compressnet.errors import TrainingError
from tests.training.stopping import DieAfter, Died


@pytest.fixture
def converted(lenet: dict[str, Any], tmp_path: Path) -> Path:
    compressnet.convert(lenet, tmp_path / "converted.safetensors")
    return tmp_path / "converted.safetensors"


def test_tensorboard_has_what_the_metrics_have_even_after_a_run_died(converted: Path, tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder, overrides = tmp_path / "out", ["finetune.epochs=3"]
    with pytest.raises(Died):
        compressnet.finetune(converted, folder, overrides=overrides, tensorboard=True, progress=DieAfter(50))
    compressnet.finetune(converted, folder, overrides=overrides, tensorboard=True, resume=True)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    events = accumulators.EventAccumulator(str(folder / "tensorboard")).Reload()
    shown = {tag: {each.step: each.value for each in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    assert shown["val/top1"] == pytest.approx({line["epoch"]: line["val"]["top1"] for line in lines})
    for key in ("loss", "top1", "lr", "skipped", "seconds", "images_per_s"):
        assert shown[f"train/{key}"] == pytest.approx({line["epoch"]: line[key] for line in lines[1:]}), key


def test_without_the_package_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(TrainingError, match=r"--tensorboard: it needs the package tensorboard.*\n  pip install"):
        compressnet.finetune("nowhere.safetensors", tmp_path, tensorboard=True)
