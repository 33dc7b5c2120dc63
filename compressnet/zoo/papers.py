"""The small nets of the compression papers, registered so that ``torchvision.models.get_model`` knows them.

Their weights come from a path, as torchvision publishes none. The first three are plain ``nn.Sequential``: a block may
stand for a run of their layers, and nothing of ours is needed to run them.

- ``lenet5``: LeNet-5 as Caffe and Deep Compression have it (20-50-500-10). Y. LeCun, L. Bottou, Y. Bengio, P. Haffner,
  "Gradient-based learning applied to document recognition", Proc. IEEE 1998; S. Han, H. Mao, W. J. Dally, "Deep
  Compression", ICLR 2016, https://arxiv.org/abs/1510.00149.
- ``lenet_300_100``: the fully connected net of the same papers. Both take grey 28×28 images.
- ``freshnets_cnn``: the net of 5×5 convolutions that FreshNets compresses. W. Chen, J. Wilson, S. Tyree, K. Weinberger,
  Y. Chen, "Compressing Convolutional Neural Networks in the Frequency Domain", KDD 2016,
  https://arxiv.org/abs/1506.04449. It takes 32×32 images in colour.
- ``resnet18_cifar``: torchvision's ResNet-18 with the first layer that ResNets have for 32×32 images in colour. K. He,
  X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2,
  https://arxiv.org/abs/1512.03385.
"""

from collections import OrderedDict

from torch import nn
from torchvision.models import ResNet, resnet18
from torchvision.models._api import register_model

NAMES = ("lenet5", "lenet_300_100", "freshnets_cnn", "resnet18_cifar")
NUM_CLASSES = 10


@register_model()
def lenet5(*, weights: None = None, num_classes: int = NUM_CLASSES) -> nn.Sequential:
    """Two 5×5 convolutions, each followed by ReLU and 2×2 max pooling, and two FC layers with a ReLU between.

    Caffe's own ``lenet.prototxt`` has no ReLU after the convolutions.

    Args:
        weights: there for ``get_model``; none are published.
        num_classes: width of the last layer.

    Returns:
        (batch, 1, 28, 28), or any grey size that leaves 4×4 after both poolings (28 to 31 pixels), to logits of shape
        (batch, num_classes).
    """
    children: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (ins, outs) in enumerate(((1, 20), (20, 50)), 1):
        children[f"conv{number}"] = nn.Conv2d(ins, outs, 5)
        children[f"relu{number}"] = nn.ReLU()
        children[f"pool{number}"] = nn.MaxPool2d(2)
    children["flatten"] = nn.Flatten()
    children["fc1"] = nn.Linear(800, 500)
    children["relu3"] = nn.ReLU()
    children["fc2"] = nn.Linear(500, num_classes)
    return _sequential(children, in_channels=1)


@register_model()
def lenet_300_100(*, weights: None = None, num_classes: int = NUM_CLASSES) -> nn.Sequential:
    """Three FC layers with ReLU between, 784-300-100-10.

    Args:
        weights: there for ``get_model``; none are published.
        num_classes: width of the last layer.

    Returns:
        (batch, 1, 28, 28) to logits of shape (batch, num_classes).
    """
    children: OrderedDict[str, nn.Module] = OrderedDict()
    children["flatten"] = nn.Flatten()
    children["fc1"] = nn.Linear(784, 300)
    children["relu1"] = nn.ReLU()
    children["fc2"] = nn.Linear(300, 100)
    children["relu2"] = nn.ReLU()
    children["fc3"] = nn.Linear(100, num_classes)
    return _sequential(children, in_channels=1)


@register_model()
def freshnets_cnn(*, weights: None = None, num_classes: int = NUM_CLASSES, dropout: float = 0.25) -> nn.Sequential:
    """Five 5×5 convolutions of 32, 64, 64, 128 and 256 filters, each followed by ReLU, and one FC layer.

    Padding keeps the sides; 2×2 max pooling and dropout follow the second, fourth and fifth convolution.

    Args:
        weights: there for ``get_model``; none are published.
        num_classes: width of the last layer.
        dropout: the share of features that dropout takes; the paper does not say.

    Returns:
        (batch, 3, 32, 32), or any size that leaves 4×4 after three poolings (32 to 39 pixels), to logits of shape
        (batch, num_classes).
    """
    children: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (ins, outs) in enumerate(((3, 32), (32, 64), (64, 64), (64, 128), (128, 256)), 1):
        children[f"conv{number}"] = nn.Conv2d(ins, outs, 5, padding=2)
        if number in (2, 4, 5):
            children[f"pool{number}"] = nn.MaxPool2d(2)
            children[f"dropout{number}"] = nn.Dropout(dropout)
        children[f"relu{number}"] = nn.ReLU()
    children["flatten"] = nn.Flatten()
    children["fc"] = nn.Linear(4096, num_classes)
    return _sequential(children, in_channels=3)


@register_model()
def resnet18_cifar(*, weights: None = None, num_classes: int = NUM_CLASSES) -> ResNet:
    """ResNet-18 with a 3×3 first convolution of stride 1, and no pooling behind it; its layers keep their names.

    torchvision's halves an image twice before its first block, which leaves 8×8 of 32×32 pixels.

    Args:
        weights: there for ``get_model``; none are published.
        num_classes: width of the last layer.

    Returns:
        (batch, 3, 32, 32), or any larger size, to logits of shape (batch, num_classes).
    """
    net = resnet18(num_classes=num_classes)
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's are
    net.maxpool = nn.Identity()
    return net


def _sequential(children: OrderedDict[str, nn.Module], in_channels: int) -> nn.Sequential:
    net = nn.Sequential(children)
    net.in_channels = in_channels  # type: ignore[assignment]
    return net
