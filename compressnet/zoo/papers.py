"""The small nets of the compression papers, registered so that ``torchvision.models.get_model`` knows them.

Both take grey 28×28 images; their weights come from a path, as torchvision publishes none.

- ``lenet5``: LeNet-5 as Caffe and Deep Compression have it (20-50-500-10). Y. LeCun, L. Bottou, Y. Bengio, P. Haffner,
  "Gradient-based learning applied to document recognition", Proc. IEEE 1998; S. Han, H. Mao, W. J. Dally, "Deep
  Compression", ICLR 2016, https://arxiv.org/abs/1510.00149.
- ``lenet_300_100``: the fully connected net of the same papers.
"""

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models._api import register_model

NAMES = ("lenet5", "lenet_300_100")
NUM_CLASSES = 10


class LeNet5(nn.Module):
    """Two 5×5 convolutions, each followed by ReLU and 2×2 max pooling, and two FC layers with a ReLU between.

    Caffe's own ``lenet.prototxt`` has no ReLU after the convolutions.

    Input: (batch, 1, 28, 28), or any grey size that leaves 4×4 after both poolings (28 to 31 pixels).
    """

    in_channels = 1

    def __init__(self, num_classes: int = NUM_CLASSES) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (batch, num_classes)."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class LeNet300100(nn.Module):
    """Three FC layers with ReLU between, 784-300-100-10. Input: (batch, 1, 28, 28)."""

    in_channels = 1

    def __init__(self, num_classes: int = NUM_CLASSES) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (batch, num_classes)."""
        x = F.relu(self.fc1(images.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))


@register_model()
def lenet5(*, weights: None = None, num_classes: int = NUM_CLASSES) -> LeNet5:
    """LeNet-5 for grey 28×28 images; ``weights`` is there for ``get_model``, none are published."""
    return LeNet5(num_classes)


@register_model()
def lenet_300_100(*, weights: None = None, num_classes: int = NUM_CLASSES) -> LeNet300100:
    """LeNet-300-100 for grey 28×28 images; ``weights`` is there for ``get_model``, none are published."""
    return LeNet300100(num_classes)
