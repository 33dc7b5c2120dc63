import pytest
import torch
from torch.nn import functional as F
from torchvision import models

from compressnet.zoo import papers
from compressnet.zoo.models import IMAGE_SIZES


@pytest.mark.parametrize(
    ("name", "numel"), [("lenet5", 431_080), ("lenet_300_100", 266_610), ("freshnets_cnn", 1_180_000 + 40_960 + 554)]
)
def test_a_net_has_the_papers_number_of_parameters(name, numel):
    model = models.get_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == numel


@pytest.mark.parametrize("name", papers.NAMES)
@pytest.mark.parametrize("num_classes", [10, 47])
def test_a_net_answers_its_images_with_its_number_of_classes(name, num_classes):
    model = models.get_model(name, weights=None, num_classes=num_classes)
    side = IMAGE_SIZES[name]
    assert model(torch.zeros(2, model.in_channels, side, side)).shape == (2, num_classes)


def test_the_layers_of_lenet5_have_caffes_names():
    state = models.get_model("lenet5").state_dict()
    assert list(dict.fromkeys(name.split(".")[0] for name in state)) == ["conv1", "conv2", "fc1", "fc2"]


def test_lenet5_is_the_papers_composition_of_its_layers():
    model = models.get_model("lenet5")
    x = torch.randn(3, 1, 28, 28)
    y = F.max_pool2d(F.relu(model.conv1(x)), 2)
    y = F.max_pool2d(F.relu(model.conv2(y)), 2).flatten(1)
    assert torch.equal(model(x), model.fc2(F.relu(model.fc1(y))))
