"""Every torchvision classifier plans and, rewritten, keeps its output shape."""

import pytest
import torch
from torch import nn

from compressnet.attention import CompressedMultiheadAttention
from compressnet.plan import make_plan
from compressnet.recipe import read_recipe
from compressnet.rewrite import rewrite_
from compressnet.zoo import models
from compressnet.zoo.models import IMAGE_SIZES

LAYERS = [{"match": {"min_numel": 512}, "method": "freshnet", "ratio": 8}]


@pytest.mark.parametrize("name", models.names())
def test_it_plans_converts_and_keeps_its_output_shape(name: str) -> None:
    size = IMAGE_SIZES.get(name, 224)
    recipe = {"model": {"name": name, "num_classes": 12}, "layers": LAYERS}
    plan = make_plan(read_recipe(recipe, ["data.dataset=fake", f"data.image_size={size}"]))
    assert plan.spec is not None
    model = rewrite_(models.skeleton(plan.spec), plan.layers).to("meta")
    assert plan.preprocessing is not None
    with torch.no_grad():
        logits = model(torch.empty(2, plan.preprocessing.channels, size, size, device="meta"))
    assert logits.shape == (2, 12)
    attention = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    assert all(isinstance(module, CompressedMultiheadAttention) for module in attention)
    assert bool(attention) == name.startswith("vit_")
    rewritten = sum(layer.dense_numel for layer in plan.layers if layer.method)
    assert rewritten > 0
    assert plan.numel < plan.dense_numel
    assert all(layer.method or layer.remark for layer in plan.layers)
