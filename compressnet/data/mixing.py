"""Mixing the images of a batch, and their labels with them."""

from torch import Tensor


class Mixing:
    """Each image of a batch is mixed with another of it, as a whole or by a rectangle.

    - MixUp, λ·image + (1 − λ)·other: Zhang, Cissé, Dauphin, Lopez-Paz: mixup, ICLR 2018,
      https://arxiv.org/abs/1710.09412
    - CutMix, a rectangle of the other: Yun, Han, Oh, Chun, Choe, Yoo: CutMix, ICCV 2019,
      https://arxiv.org/abs/1905.04899

    λ is drawn from Beta(α, α) for each batch, by torch's random generator of the CPU, whose state a resumed run has.
    Where both are given, it is one of the two for each batch, by the same generator.

    Args:
        num_classes: of the labels.
        mixup: α, or None.
        cutmix: α, or None.
    """

    def __init__(self, num_classes: int, mixup: float | None = None, cutmix: float | None = None) -> None:
        from torchvision.transforms import v2

        ways = ((v2.MixUp, mixup), (v2.CutMix, cutmix))
        chosen = [way(alpha=alpha, num_classes=num_classes) for way, alpha in ways if alpha is not None]
        self.num_classes = num_classes
        self.mix = chosen[0] if len(chosen) == 1 else v2.RandomChoice(chosen)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            images: shape (N, C, H, W).
            labels: classes, shape (N,). Where there are none to learn from, they may be any integers.

        Returns:
            images of the same shape, and the share of each class in them, shape (N, classes).
        """
        mixed, shares = self.mix(images, labels.clamp(0, self.num_classes - 1))
        return mixed, shares
