"""The history of a run for TensorBoard, where its package is installed."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from compressnet.errors import TrainingError


def check() -> None:
    """Refuse before any work where the package is missing.

    Raises:
        TrainingError: with how to install it.
    """
    if find_spec("tensorboard") is None:
        cure = "pip install 'compressnet[tensorboard]'"
        raise TrainingError("it needs the package tensorboard, which cannot be found", "--tensorboard", cure)


class Board:
    """Writes each epoch as it ends, as scalars ``train/…`` and ``val/…`` whose step is the epoch.

    Args:
        folder: of the event files; those of an interrupted run are continued.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: Any = None

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Write a line of ``metrics.jsonl``."""
        from torch.utils.tensorboard import SummaryWriter

        epoch = record["epoch"]
        if self.writer is None:  # what a run that died has told of this epoch and later ones is withdrawn
            self.writer = SummaryWriter(str(self.folder), purge_step=epoch)
        for name, value in _scalars(record):
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def close(self) -> None:
        """End the file."""
        if self.writer is not None:
            self.writer.close()


def _scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The names of a line's numbers, and these.

    >>> list(_scalars({"epoch": 1, "lr": 0.1, "val": {"count": 9, "top1": 50.0}}))
    [('train/lr', 0.1), ('val/top1', 50.0)]
    """
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}/{name}", number) for name, number in value.items() if name != "count")
        elif key != "epoch":
            yield f"train/{key}", value
