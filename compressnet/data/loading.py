"""Batches of a part, in a given order, with errors that read well even from a worker process."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, default_collate

from compressnet.data.datasets import PartDataset
from compressnet.data.memory import InMemory
from compressnet.errors import DataError
from compressnet.maths.hashing import derive


class _Guarded(Dataset[Any]):
    """Gives a DataError as an item: raised in a worker, PyTorch would bury its text in a traceback.

    What is drawn for an image depends on the seed and its index alone: not on the process it is loaded in, nor on the
    images before it.
    """

    def __init__(self, dataset: PartDataset, seed: int) -> None:
        self._dataset, self._seed = dataset, seed

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int] | DataError:
        try:
            with _drawing_from(derive(self._seed, index)):
                return self._dataset[index]
        except DataError as error:
            return error


@contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """Within it torch's generator of the CPU is one of a seed; then it goes on as if nothing had been drawn."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed those of CUDA, too
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _collate(items: list[Any]) -> Any:
    return next((item for item in items if isinstance(item, DataError)), None) or default_collate(items)


class Batches(DataLoader[Any]):
    """A DataLoader of (images, labels) that raises the DataError of an image in the process that iterates."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, DataError):
                raise batch
            yield batch


def make_loader(
    dataset: PartDataset,
    batch_size: int,
    workers: int,
    *,
    order: Sequence[int] | None = None,
    seed: int = 0,
    device: torch.device | str,
) -> DataLoader[Any]:
    """Batches of float32 images (batch, channels, height, width) and int64 labels (batch,).

    Args:
        dataset: the part.
        batch_size: images a batch; the last may have fewer.
        workers: processes that load images; 0 loads them in this one.
        order: indices to give, in this order; each once, in the data set's order, when None.
        seed: of what is drawn to augment each image; the same images come whatever the number of workers.
        device: where the batches go; their memory is pinned for CUDA.

    Raises:
        DataError: a batch size below 1 or fewer than no workers; and while iterating, an unreadable image.
    """
    if batch_size < 1:
        raise DataError(f"{batch_size} images make no batch", "data.batch_size", "give at least 1")
    if workers < 0:
        raise DataError(f"{workers} workers", "data.workers", "give 0 to load in the main process, or more")
    order, pin = range(len(dataset)) if order is None else order, torch.device(device).type == "cuda"
    unused = torch.Generator()  # of seeds for workers; torch's own, which a resumed run restores, would lose a draw
    if isinstance(dataset, InMemory):
        batches = BatchSampler(order, batch_size, drop_last=False)
        return Batches(dataset, batch_size=None, sampler=batches, pin_memory=pin, generator=unused)
    return Batches(
        _Guarded(dataset, seed),
        batch_size=batch_size,
        sampler=order,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin,
        generator=unused,
    )


def ahead(batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels on a device; on CUDA the next batch is copied there while this one is worked on.

    Args:
        batches: in pinned memory, where they go to CUDA.
        device: where they go.
    """
    if device.type != "cuda":
        yield from ((images.to(device), labels.to(device)) for images, labels in batches)
        return
    stream, ready = torch.cuda.Stream(device), None
    for batch in batches:
        with torch.cuda.stream(stream):
            coming = tuple(tensor.to(device, non_blocking=True) for tensor in batch)
        if ready is not None:
            yield _taken(ready, stream)
        ready = coming
    if ready is not None:
        yield _taken(ready, stream)


def _taken(batch: tuple[Tensor, ...], stream: torch.cuda.Stream) -> tuple[Tensor, Tensor]:
    """A batch whose copy on another stream is waited for, and whose memory is kept until this stream is done."""
    current = torch.cuda.current_stream(batch[0].device)
    current.wait_stream(stream)
    for tensor in batch:
        tensor.record_stream(current)
    images, labels = batch
    return images, labels
