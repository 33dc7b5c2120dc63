"""The small nets of the compression papers, registered so that ``torchvision.models.get_model`` knows them.

Both take grey 28×28 images; their weights come from a path, as torchvision publishes none. They are ``nn.Sequential``,
so that a block may replace a run of their layers.

- ``lenet5``: LeNet-5 as Caffe and Deep Compression have it (20-50-500-10). Y. LeCun, L. Bottou, Y. Bengio, P. Haffner,
  "Gradient-based learning applied to document recognition", Proc. IEEE 1998; S. Han, H. Mao, W. J. Dally, "Deep
  Compression", ICLR 2016, https://arxiv.org/abs/1510.00149.
- ``lenet_300_100``: the fully connected net of the same papers.
"""

from collections import OrderedDict

from torch import nn
from torchvision.models._api import register_model

NAMES = ("lenet5", "lenet_300_100")
NUM_CLASSES = 10


class LeNet5(nn.Sequential):
    """Two 5×5 convolutions, each followed by ReLU and 2×2 max pooling, and two FC layers with a ReLU between.

    Caffe's own ``lenet.prototxt`` has no ReLU after the convolutions.

    Input: (batch, 1, 28, 28), or any grey size that leaves 4×4 after both poolings (28 to 31 pixels). Output: logits of
    shape (batch, num_classes).
    """

    in_channels = 1

    def __init__(self, num_classes: int = NUM_CLASSES) -> None:
        children: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (ins, outs) in enumerate(((1, 20), (20, 50)), 1):
            children[f"conv{number}"] = nn.Conv2d(ins, outs, 5)
            children[f"relu{number}"] = nn.ReLU()
            children[f"pool{number}"] = nn.MaxPool2d(2)
        children["flatten"] = nn.Flatten()
        children["fc1"] = nn.Linear(800, 500)
        children["relu3"] = nn.ReLU()
        children["fc2"] = nn.Linear(500, num_classes)
        super().__init__(children)


class LeNet300100(nn.Sequential):
    """Three FC layers with ReLU between, 784-300-100-10.

    Input: (batch, 1, 28, 28). Output: logits of shape (batch, num_classes).
    """

    in_channels = 1

    def __init__(self, num_classes: int = NUM_CLASSES) -> None:
        children: OrderedDict[str, nn.Module] = OrderedDict()
        children["flatten"] = nn.Flatten()
        children["fc1"] = nn.Linear(784, 300)
        children["relu1"] = nn.ReLU()
        children["fc2"] = nn.Linear(300, 100)
        children["relu2"] = nn.ReLU()
        children["fc3"] = nn.Linear(100, num_classes)
        super().__init__(children)


@register_model()
def lenet5(*, weights: None = None, num_classes: int = NUM_CLASSES) -> LeNet5:
    """LeNet-5 for grey 28×28 images; ``weights`` is there for ``get_model``, none are published."""
    return LeNet5(num_classes)


@register_model()
def lenet_300_100(*, weights: None = None, num_classes: int = NUM_CLASSES) -> LeNet300100:
    """LeNet-300-100 for grey 28×28 images; ``weights`` is there for ``get_model``, none are published."""
    return LeNet300100(num_classes)
