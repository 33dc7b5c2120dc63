import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressnet
from compressnet.layers import CompressedLinear
from compressnet.plan import PlannedLayer
from compressnet.training.averaging import MovingAverage

DECAY = 0.75


def network() -> nn.Module:
    """With a table, a mask, and the statistics of a norm."""
    torch.manual_seed(0)
    hashed = PlannedLayer("0", "linear", (8, 8), method="hashednet", config={"ratio": 4}, seed=1)
    pruned = PlannedLayer("2", "linear", (8, 8), method="pruned", config={"density": 0.5}, seed=1)
    return nn.Sequential(CompressedLinear(hashed.build()), nn.BatchNorm1d(8), CompressedLinear(pruned.build())).train()


def test_the_average_is_that_of_its_formula() -> None:
    model = network()
    average, expected = MovingAverage(model, DECAY), dict[str, torch.Tensor]()
    for step in range(5):
        model(torch.randn(6, 8))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update()
        for name, tensor in model.state_dict().items():
            before = expected.get(name, tensor) if step else tensor
            expected[name] = DECAY * before + (1 - DECAY) * tensor if tensor.is_floating_point() else tensor.clone()
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with average.applied():
        torch.testing.assert_close(dict(model.state_dict()), expected)
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())


def test_before_the_first_step_there_is_no_average() -> None:
    model = network()
    average = MovingAverage(model, DECAY)
    with torch.no_grad():
        model[1].weight.mul_(3)  # type: ignore[operator, union-attr]
    with average.applied():
        assert (model[1].weight == 3).all()


def test_neither_tables_nor_masks_are_averaged_or_stored() -> None:
    model = network()
    floats = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    state = MovingAverage(model, DECAY).state_dict()
    assert sorted(t.numel() for t in state.values()) == sorted([*(t.numel() for t in floats), 1])
    assert sum(buffer.numel() for buffer in model.buffers()) > sum(t.numel() for t in state.values())


@pytest.fixture
def converted(lenet: dict[str, Any], tmp_path: Path) -> Path:
    compressnet.convert(lenet, tmp_path / "converted.safetensors")
    return tmp_path / "converted.safetensors"


@pytest.mark.parametrize("quantise", [[], ["finetune.quantise={start: 0.5}", "export.bits=4"]], ids=["plain", "4 bits"])
def test_what_is_evaluated_and_saved_is_the_average(converted: Path, tmp_path: Path, quantise: list[str]) -> None:
    trained = {}
    for ema in ("null", "0.9"):
        overrides = ["finetune.schedule=constant", f"finetune.ema={ema}", "finetune.lr=0.01", *quantise]
        trained[ema] = compressnet.finetune(converted, tmp_path / ema, overrides=overrides)
    last = [torch.load(tmp_path / ema / "last.pt", weights_only=True) for ema in trained]
    assert all(torch.equal(tensor, last[1]["model"][name]) for name, tensor in last[0]["model"].items())
    assert trained["0.9"].best.loss < trained["null"].best.loss, "steps of a constant rate wander, their mean does not"
    best = tmp_path / "0.9" / "best.safetensors"
    lines = [json.loads(line) for line in (tmp_path / "0.9" / "metrics.jsonl").read_text().splitlines()]
    assert compressnet.evaluate(best, part="val").to_json() == pytest.approx(lines[trained["0.9"].best_epoch]["val"])
    assert compressnet.evaluate(best) == trained["0.9"].test
