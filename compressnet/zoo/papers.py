"""The small nets of the compression papers, registered so that ``torchvision.models.get_model`` knows them.

Their weights come from a path, as torchvision publishes none. The LeNets are ``nn.Sequential``, so that a block may
stand for a run of their layers.

- ``lenet5``: LeNet-5 as Caffe and Deep Compression have it (20-50-500-10). Y. LeCun, L. Bottou, Y. Bengio, P. Haffner,
  "Gradient-based learning applied to document recognition", Proc. IEEE 1998; S. Han, H. Mao, W. J. Dally, "Deep
  Compression", ICLR 2016, https://arxiv.org/abs/1510.00149.
- ``lenet_300_100``: the fully connected net of the same papers. Both take grey 28×28 images.
- ``freshnets_cnn``: the net of 5×5 convolutions that FreshNets compresses. W. Chen, J. Wilson, S. Tyree, K. Weinberger,
  Y. Chen, "Compressing Convolutional Neural Networks in the Frequency Domain", KDD 2016,
  https://arxiv.org/abs/1506.04449. It takes 32×32 images in colour.
"""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models._api import register_model

NAMES = ("lenet5", "lenet_300_100", "freshnets_cnn")
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


class FreshNetsCNN(nn.Module):
    """Five 5×5 convolutions of 32, 64, 64, 128 and 256 filters and one FC layer.

    Padding keeps the sides; 2×2 max pooling and dropout follow the second, fourth and fifth convolution.

    Input: (batch, 3, 32, 32), or any size that leaves 4×4 after three poolings (32 to 39 pixels).

    Args:
        num_classes: width of the last layer.
        dropout: the share of features that dropout takes; the paper does not say.
    """

    in_channels = 3

    def __init__(self, num_classes: int = NUM_CLASSES, dropout: float = 0.25) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.conv3 = nn.Conv2d(64, 64, 5, padding=2)
        self.conv4 = nn.Conv2d(64, 128, 5, padding=2)
        self.conv5 = nn.Conv2d(128, 256, 5, padding=2)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(4096, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (batch, num_classes)."""
        x = self._halve(self.conv2(F.relu(self.conv1(images))))
        x = self._halve(self.conv4(F.relu(self.conv3(x))))
        x = self._halve(self.conv5(x))
        return self.fc(x.flatten(1))

    def _halve(self, x: Tensor) -> Tensor:
        return F.relu(self.dropout(F.max_pool2d(x, 2)))


@register_model()
def lenet5(*, weights: None = None, num_classes: int = NUM_CLASSES) -> LeNet5:
    """LeNet-5 for grey 28×28 images; ``weights`` is there for ``get_model``, none are published."""
    return LeNet5(num_classes)


@register_model()
def lenet_300_100(*, weights: None = None, num_classes: int = NUM_CLASSES) -> LeNet300100:
    """LeNet-300-100 for grey 28×28 images; ``weights`` is there for ``get_model``, none are published."""
    return LeNet300100(num_classes)


@register_model()
def freshnets_cnn(*, weights: None = None, num_classes: int = NUM_CLASSES) -> FreshNetsCNN:
    """The FreshNets CNN for 32×32 images in colour; ``weights`` is there for ``get_model``, none are published."""
    return FreshNetsCNN(num_classes)
