"""A part of a data set that is kept in memory as the model sees it, so that small data is read and decoded once."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from compressnet.data.datasets import PartDataset
from compressnet.progress import SILENT, Progress

LIMIT = 1 << 30  # bytes


class InMemory(PartDataset):
    """A part whose images are one float32 tensor of shape (images, channels, height, width).

    ``[indices]`` gives a whole batch: its images, and its labels as int64.
    """

    def __init__(self, images: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | Sequence[int]) -> tuple[Tensor, int | Tensor]:  # type: ignore[override]
        if isinstance(index, int):
            return self.images[index], int(self.labels[index])
        return self.images[index], self.labels[index]


def fits(dataset: PartDataset, limit: int = LIMIT) -> bool:
    """Whether all images of a part take at most so many bytes; they are of one shape."""
    return 4 * dataset[0][0].numel() * len(dataset) <= limit


def keep(loader: DataLoader, dataset: PartDataset, progress: Progress = SILENT) -> InMemory:
    """Read a part once.

    Args:
        loader: of all its images, in order.
        dataset: the part.
        progress: is told.
    """
    shape, images, labels, done = dataset[0][0].shape, torch.empty(0), [], 0
    with progress.task("reading images", len(loader)) as advance:
        for batch, found in loader:
            if not done:
                images = torch.empty(len(dataset), *shape)
            images[done : done + len(batch)] = batch
            labels.append(found)
            done += len(batch)
            advance()
    return InMemory(images, torch.cat(labels), dataset.classes)
