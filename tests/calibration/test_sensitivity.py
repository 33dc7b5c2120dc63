import pytest
import torch
from torch import nn

from compressnet.calibration import sensitivity
from compressnet.calibration.calls import Place
from compressnet.calibration.sensitivity import Sensitivity
from compressnet.plan import candidates, plan_layers
from compressnet.recipe import read_recipe


def places(module: nn.Module) -> dict[int, Place]:
    rule = {"match": "*", "grouped": True, "method": "hashednet", "ratio": 2}
    layers = plan_layers(read_recipe({"layers": [rule]}), candidates(module))
    weights = [(layer, module.get_parameter(layer.parameter)) for layer in layers]
    return {id(weight): Place(layer, weight) for layer, weight in weights}


def test_of_logits_it_is_the_fisher_information_of_the_answer_with_all_images_alike() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(6, 4))
    images = torch.randn(4000, 6, 1, 1)
    found = places(module)
    Sensitivity(found).measure_(module, images, 1000)
    (cost,) = [place.cost for place in found.values()]
    assert cost is not None
    answer = module(images).softmax(1).detach()
    wrong = torch.eye(4) - answer[:, None]  # of each class that may be drawn
    wrong = torch.nn.functional.normalize(wrong, dim=2)
    fisher = torch.einsum("nc,nci,ncj->ij", answer, wrong, wrong) / len(answer)
    expected = 0.95 * fisher / fisher.diagonal().mean() + 0.05 * torch.eye(4)
    torch.testing.assert_close(cost[0], expected, atol=0.06, rtol=0)


def test_it_is_of_each_group_or_a_diagonal_where_a_layer_is_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5))
    monkeypatch.setattr(sensitivity, "WIDEST", 4)
    found = places(module)
    Sensitivity(found).measure_(module, torch.randn(8, 4, 4, 4), 8)
    assert [tuple(place.cost.shape) for place in found.values() if place.cost is not None] == [(2, 3, 3), (1, 5, 1)]


def test_a_layer_that_the_answer_does_not_depend_on_has_none() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Threshold(1e9, 0.0), nn.Flatten(), nn.Linear(16, 5))
    found = places(module)
    Sensitivity(found).measure_(module, torch.randn(2, 3, 2, 2), 2)
    assert [place.cost is None for place in found.values()] == [True, False]


def test_an_answer_that_is_no_row_of_logits_counts_as_it_is() -> None:
    module = nn.Conv2d(3, 4, 1)
    found = places(nn.Sequential(module))
    Sensitivity(found).measure_(module, torch.randn(64, 3, 8, 8), 64)
    (cost,) = [place.cost for place in found.values()]
    assert cost is not None
    torch.testing.assert_close(cost[0], torch.eye(4), atol=0.1, rtol=0)
