import json
from pathlib import Path

import torch
from torch import nn
from torchvision.models import get_model

import compressnet
from compressnet.training.dropout import set_dropout_


def test_without_dropout_training_gives_what_evaluation_does() -> None:
    model, images = get_model("squeezenet1_1", num_classes=3), torch.randn(2, 3, 64, 64)
    assert not torch.equal(model.train()(images), model(images))
    set_dropout_(model, 0)
    torch.testing.assert_close(model(images), model.eval()(images))


def test_dropout_of_any_kind_is_set() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout2d(), nn.AlphaDropout()), nn.ReLU())
    set_dropout_(model, 0.25)
    assert [module.p for module in model.modules() if hasattr(module, "p")] == [0.25] * 3


def test_a_recipe_sets_it_and_no_file_holds_it(tmp_path: Path) -> None:
    data = {"dataset": "fake", "image_size": 64, "samples": 4, "batch_size": 4, "val_fraction": 0.5}
    recipe = {"model": {"name": "squeezenet1_1", "num_classes": 10}, "data": data, "finetune": {"epochs": 1}}
    compressnet.convert(recipe, tmp_path / "converted.safetensors")
    losses = {}
    for dropout in ("null", "0.5", "0"):
        overrides = [f"finetune.dropout={dropout}"]
        trained = compressnet.finetune(tmp_path / "converted.safetensors", tmp_path / dropout, overrides=overrides)
        history = (tmp_path / dropout / "metrics.jsonl").read_text().splitlines()
        losses[dropout] = json.loads(history[1])["loss"]
        model = compressnet.load(trained.path)
        assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.5]
    assert losses["null"] == losses["0.5"] != losses["0"]
