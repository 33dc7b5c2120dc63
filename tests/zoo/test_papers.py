import pytest
import torch
from torch.nn import functional as F
from torchvision import models

from compressnet.zoo import papers
from compressnet.zoo.models import IMAGE_SIZES


@pytest.mark.parametrize(
    ("name", "numel"),
    [
        ("lenet5", 431_080),
        ("lenet_300_100", 266_610),
        ("freshnets_cnn", 1_180_000 + 40_960 + 554),
        ("resnet18_cifar", 11_689_512 - 1_000 * 513 + 10 * 513 - 64 * 3 * (49 - 9)),  # torchvision's 11.7 M, less two
    ],
)
def test_a_net_has_the_papers_number_of_parameters(name, numel):
    model = models.get_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == numel


@pytest.mark.parametrize("name", papers.NAMES)
@pytest.mark.parametrize("num_classes", [10, 47])
def test_a_net_answers_its_images_with_its_number_of_classes(name, num_classes):
    model = models.get_model(name, weights=None, num_classes=num_classes)
    side = IMAGE_SIZES[name]
    assert model(torch.zeros(2, getattr(model, "in_channels", 3), side, side)).shape == (2, num_classes)


def test_a_resnet_for_small_images_leaves_4x4_for_its_last_pooling():
    model = models.get_model("resnet18_cifar")
    sides = []
    model.avgpool.register_forward_pre_hook(lambda module, given: sides.append(given[0].shape))
    model(torch.zeros(2, 3, 32, 32))
    assert sides == [(2, 512, 4, 4)]
    assert list(model.state_dict()) == list(models.get_model("resnet18").state_dict())


def test_the_layers_of_lenet5_have_caffes_names():
    state = models.get_model("lenet5").state_dict()
    assert list(dict.fromkeys(name.split(".")[0] for name in state)) == ["conv1", "conv2", "fc1", "fc2"]


def test_lenet5_is_the_papers_composition_of_its_layers():
    model = models.get_model("lenet5")
    x = torch.randn(3, 1, 28, 28)
    y = F.max_pool2d(F.relu(model.conv1(x)), 2)
    y = F.max_pool2d(F.relu(model.conv2(y)), 2).flatten(1)
    assert torch.equal(model(x), model.fc2(F.relu(model.fc1(y))))
