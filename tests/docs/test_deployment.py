"""The scripts of the page on deployment run as they stand."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import compressnet

PAGE = Path(__file__).parent.parent.parent / "docs" / "deployment.md"
SCRIPTS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe: dict[str, Any] = {
        "model": {"name": "squeezenet1_1", "weights": None, "num_classes": 7},
        "layers": [{"match": "features.*", "method": "freshnet", "ratio": 4}],
    }
    folder = tmp_path_factory.mktemp("deployment")
    compressnet.convert(recipe, folder / "converted.safetensors")
    compressnet.export(folder / "converted.safetensors", folder / "model.safetensors")
    return folder / "model.safetensors"


def script(word: str) -> str:
    """The one that has a word."""
    (found,) = (text for text in SCRIPTS if word in text)
    assert len(found.splitlines()) <= 20
    return found


LOADED = "\nprint(model(torch.ones(1, 3, 64, 64)).sum().item(), 'compressnet' in sys.modules)"


def test_a_file_becomes_a_state_dict_that_torchvision_loads_without_compressnet(exported: Path) -> None:
    written = exported.with_name("torchvision.pth")
    subprocess.run([sys.executable, "-c", script("to_torchvision.py"), str(exported), str(written)], check=True)
    there = subprocess.run(
        [sys.executable, "-c", script("there.py") + LOADED, str(written), "squeezenet1_1", "7"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    with torch.no_grad():
        expected = compressnet.load(exported)(torch.ones(1, 3, 64, 64)).sum().item()
    assert float(there[0]) == pytest.approx(expected, rel=1e-4)
    assert there[1] == "False"


@pytest.mark.parametrize(("way", "name"), [("onnx", "model.onnx"), ("pt2", "model.pt2")])
def test_a_program_is_run_as_the_page_says(
    way: str, name: str, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compressnet.export(exported, exported.with_name(name), **{way: True})  # type: ignore[arg-type]
    monkeypatch.chdir(exported.parent)
    names: dict[str, Any] = {}
    exec(script(f'"{name}"'), names)
    if way == "onnx":
        assert names["logits"].shape == (1, 7)
    else:
        assert names["model"](torch.zeros(3, 3, 224, 224)).shape == (3, 7)
        assert names["facts"]["model"] == "squeezenet1_1"
