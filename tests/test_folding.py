"""Norm layers in fewer numbers."""

import pytest
import torch
from torch import Tensor, nn

from compressnet.folding import fold_norms_
from compressnet.layers import CompressedConv2d
from compressnet.methods import BY_NAME
from compressnet.zoo.models import ModelSpec, fresh


def with_statistics(model: nn.Module) -> nn.Module:
    """Norms that are anything but the identity."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 2.0),
                (module.weight, -1.5, 1.5),
                (module.bias, -0.3, 0.3),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return model.eval()


def answers(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images)


@pytest.mark.parametrize(
    ("name", "folded", "alone"),
    [("resnet18", 20, 0), ("mobilenet_v2", 52, 0), ("googlenet", 57, 2), ("densenet121", 59, 62)],
)
def test_a_folded_model_computes_the_same(name: str, folded: int, alone: int) -> None:
    model = with_statistics(fresh(ModelSpec(name, 10), seed=0)).double()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before = answers(model, images)
    taken = fold_norms_(model, images[:1])
    torch.testing.assert_close(answers(model, images), before, rtol=1e-8, atol=1e-10)
    assert (sum(layer is not None for layer in taken.values()), sum(map(_is_none, taken.values()))) == (folded, alone)


def test_a_folded_norm_stores_one_number_a_channel_and_one_that_stays_two() -> None:
    model = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)))
    assert fold_norms_(model, torch.ones(1, 3, 5, 5)) == {"1": "0", "3": None}
    varied = {name for name, tensor in model.state_dict().items() if tensor.dim() and tensor.unique().numel() > 1}
    assert varied == {"0.weight", "1.bias", "3.weight", "3.bias"}


@pytest.mark.parametrize(
    ("method", "config", "takes"),
    [
        ("lowrank", {"rank": 2}, True),
        ("pruned", {"density": 0.3}, True),
        ("dropfilt", {"ratio": 2}, True),
        ("hashednet", {"ratio": 2}, False),
        ("freshnet", {"ratio": 2}, False),
    ],
)
def test_a_compressed_convolution_takes_the_scale_where_its_method_can(method: str, config: dict, takes: bool) -> None:
    conv = nn.Conv2d(4, 8, 3)
    weight = BY_NAME[method](conv.weight.shape, BY_NAME[method].Config(**config), 1).project_(conv.weight.detach())
    model = with_statistics(nn.Sequential(CompressedConv2d.like(conv, weight), nn.BatchNorm2d(8)))
    weight.freeze()
    images = torch.randn(2, 4, 6, 6)
    before = answers(model, images)
    assert fold_norms_(model, images[:1]) == {"1": "0" if takes else None}
    torch.testing.assert_close(answers(model, images), before, rtol=1e-4, atol=1e-5)


class Twice(nn.Module):
    """A convolution that is not its norm's alone."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.conv, self.norm, self.way = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), way

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.way == "added":
            return self.norm(y) + y
        if self.way == "again":
            return self.norm(self.conv(self.norm(y)))
        return (self.norm(y), y)[-1] if self.way == "returned" else self.norm(y)


@pytest.mark.parametrize(("way", "layer"), [("alone", "conv"), ("added", None), ("again", None), ("returned", None)])
def test_a_layer_whose_outputs_go_elsewhere_too_stays_as_it_is(way: str, layer: str | None) -> None:
    model = with_statistics(Twice(way))
    images = torch.randn(2, 3, 4, 4)
    before = answers(model, images)
    assert fold_norms_(model, images[:1]) == {"norm": layer}
    torch.testing.assert_close(answers(model, images), before, rtol=1e-4, atol=1e-5)


def _is_none(layer: str | None) -> bool:
    return layer is None
