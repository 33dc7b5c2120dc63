"""Every method travels: converted, trained, exported and loaded, at the price that its plan said."""

from pathlib import Path
from typing import Any

import pytest
import torch

import compressnet
from compressnet.methods import BY_NAME
from tests.conftest import LENET

KEYS: dict[str, dict[str, Any]] = {
    "pruned": {"density": 0.2},
    "deepfried": {"steps": 5},
    "acdc": {"depth": 2, "steps": 5},
    "monarch": {},
}


@pytest.mark.parametrize("method", BY_NAME)
def test_a_method_is_converted_trained_exported_and_loaded_at_the_price_of_its_plan(
    method: str, tmp_path: Path
) -> None:
    rule = {"match": {"name": "fc1"}, "method": method, **KEYS.get(method, {"ratio": 4})}
    recipe = {**LENET, "layers": [rule], "finetune": {"epochs": 1}, "export": {"dtype": "float32"}}
    planned = compressnet.convert(recipe, dry_run=True)
    files = [tmp_path / name for name in ("converted.safetensors", "run/best.safetensors", "exported.safetensors")]
    account = compressnet.convert(recipe, files[0])
    assert [row.numel for row in account.rows if row.name == "fc1"] == [
        row.numel for row in planned.rows if row.name == "fc1"
    ]
    assert account.same_dtype_nbytes == 4 * 431_080
    compressnet.finetune(files[0], files[1].parent)
    compressnet.export(files[1], files[2])
    x = torch.randn(3, 1, 28, 28)
    trained, exported, first = (compressnet.load(files[index])(x) for index in (1, 2, 0))
    assert torch.equal(trained, exported)
    assert not torch.equal(trained, first)
