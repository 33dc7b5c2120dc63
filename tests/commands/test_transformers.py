"""ViT-B/16 and Swin-T with hashed attention, at their real size."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import compressnet
from compressnet.plan import make_plan
from compressnet.pretrained import dense_model
from compressnet.recipe import read_recipe
from compressnet.rewrite import project_
from compressnet.zoo import models
from compressnet.zoo.models import ModelSpec

pytestmark = pytest.mark.slow

LOAD = """
import sys, torch, compressnet
file, images, logits = sys.argv[1:]
with torch.no_grad():
    torch.save(compressnet.load(file)(torch.load(images)), logits)
"""


def weights_of(name: str, path: Path) -> Path:
    """Fresh weights, with a head that is not zero as ViT's own is."""
    model = models.fresh(ModelSpec(name, 10, {}), 0)
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and layer.out_features == 10:
            nn.init.normal_(layer.weight)
    torch.save(model.state_dict(), path)
    return path


def loaded_elsewhere(file: Path, images: Tensor, folder: Path) -> Tensor:
    """The logits in a process of its own."""
    torch.save(images, folder / "images.pt")
    arguments = [file, folder / "images.pt", folder / "logits.pt"]
    subprocess.run([sys.executable, "-c", LOAD, *map(str, arguments)], check=True)
    logits: Tensor = torch.load(folder / "logits.pt")
    return logits


@pytest.mark.parametrize("method", ["hashednet", "freshnet"])
@pytest.mark.parametrize(
    ("name", "match", "projections"),
    [
        ("vit_b_16", ["*.self_attention.in_proj", "*.self_attention.out_proj"], 24),
        ("swin_t", ["*.attn.qkv", "*.attn.proj"], 24),
    ],
)
def test_a_loaded_file_gives_the_logits_of_the_model_that_was_saved(
    name: str, match: list[str], projections: int, method: str, tmp_path: Path
) -> None:
    recipe = {
        "model": {"name": name, "weights": str(weights_of(name, tmp_path / "dense.pth")), "num_classes": 10},
        "layers": [{"match": match, "method": method, "ratio": 8}],
    }
    account = compressnet.convert(recipe, tmp_path / "a.safetensors")
    taken = [row for row in account.rows if row.method == method]
    assert len(taken) == projections
    assert all(row.numel == row.dense_numel // 8 for row in taken)
    plan = make_plan(read_recipe(recipe))
    model = dense_model(plan)
    project_(model, plan.layers)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        saved = model.eval()(images)
    assert saved.std() > 0.1
    assert torch.equal(loaded_elsewhere(tmp_path / "a.safetensors", images, tmp_path), saved)


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t"])
def test_a_dense_export_gives_the_same_logits_through_the_ordinary_model(name: str, tmp_path: Path) -> None:
    source = weights_of(name, tmp_path / "dense.pth")
    recipe = {
        "model": {"name": name, "weights": str(source), "num_classes": 10},
        "layers": [
            {"match": ["*attention.*" if name == "vit_b_16" else "*.attn.*"], "method": "hashednet", "ratio": 8}
        ],
    }
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    exported = compressnet.export(tmp_path / "a.safetensors", tmp_path / "plain.safetensors", dense=True)
    assert exported.logits_difference < 1e-4 * max(1.0, exported.logits_scale)
    assert exported.agreement == 1
