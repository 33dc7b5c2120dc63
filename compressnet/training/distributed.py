"""Several processes that train one model, one process a device, as ``torchrun`` starts them.

Each takes its share of every batch, and gradients are averaged: a step is that of one process with the whole batch. All
see the same files; process 0 alone writes them and tells how far it is. What a process decides that concerns the
others, such as to stop, is agreed on. With one process, which is the usual case, nothing here does anything.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from compressnet.errors import CompressnetError, DataError, DeviceError, TrainingError
from compressnet.maths.hashing import derive

_joined = False
"""Whether this process is one of ours: a script may have a process group for purposes of its own."""


@contextmanager
def together() -> Iterator[None]:
    """Join the processes that ``torchrun`` has started; also a decorator. The first that fails tells why, for all.

    Raises:
        CompressnetError: of this process, or another has ended without a word.
        SystemExit: another process has failed, and tells why.
    """
    global _joined
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    store, own, processes = next(rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=dist.PrefixStore("compressnet", store), rank=own, world_size=processes)
    _joined = True
    try:
        yield
    except Exception as error:
        if store.compare_set("compressnet/failed", "", f"{own}") != f"{own}".encode():
            raise SystemExit(error.exit_code if isinstance(error, CompressnetError) else 1) from None
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            cure = "torchrun tells below which; --resume goes on from the last state"
            raise TrainingError("another process has ended, or cannot be reached", "torchrun", cure) from None
        raise
    finally:
        _joined = False
        dist.destroy_process_group()


def count() -> int:
    """How many processes train."""
    return dist.get_world_size() if _joined else 1


def rank() -> int:
    """Which of them this one is; 0 writes files."""
    return dist.get_rank() if _joined else 0


def own_device(device: torch.device) -> torch.device:
    """The device of this process: of several on one machine, each has a CUDA device of its own.

    Raises:
        DeviceError: there are fewer, or one is asked for by its number.
    """
    if count() == 1 or device.type != "cuda":
        return device
    number = int(os.environ["LOCAL_RANK"])
    if device.index is not None:
        raise DeviceError("torchrun gives each process a device", f"--device {device}", "--device cuda leaves it to it")
    if number >= torch.cuda.device_count():
        cure = f"--nproc-per-node {torch.cuda.device_count()} starts as many processes as there are"
        raise DeviceError(f"process {number} of this machine has no CUDA device", "torchrun", cure)
    torch.cuda.set_device(number)  # where NCCL looks for it
    return torch.device("cuda", number)


def own_seed(seed: int) -> int:
    """Of dropout and augmentation, in which processes differ."""
    return derive(seed, rank()) if rank() else seed


def check_shares(batch_size: int, images: int) -> None:
    """Refuse batches that cannot be shared equally.

    Args:
        batch_size: images a step, of all processes together.
        images: how many there are to train on.

    Raises:
        DataError: they cannot.
    """
    processes = count()
    if batch_size % processes:
        near = max(1, round(batch_size / processes)) * processes
        what = f"{batch_size} images cannot be shared equally by {processes} processes"
        raise DataError(what, "data.batch_size", f"give a multiple of {processes}, such as {near}")
    if processes > 1 and images < batch_size:
        what = f"{batch_size} are more than the {images} images there are to train on, which processes would share"
        raise DataError(what, "data.batch_size", "give less, or train with one process")


def share(order: Sequence[int]) -> Sequence[int]:
    """This process's part of images: of each batch equally many, where the batch size is a multiple of the count."""
    return order[rank() :: count()]


def total(*numbers: float) -> Sequence[float]:
    """Sums over all processes."""
    if not _joined:
        return numbers
    sums = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(sums)
    return [float(each) for each in sums.tolist()]


def agreed(number: int) -> int:
    """The largest of what each process says, so that all do the same."""
    if not _joined:
        return number
    largest = torch.tensor(number)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def everyones(value: Any) -> list[Any]:
    """What each process has, in their order."""
    if not _joined:
        return [value]
    found: list[Any] = [None] * count()
    dist.all_gather_object(found, value)
    return found


def wait() -> None:
    """Until all are here."""
    agreed(0)


@contextmanager
def one_first() -> Iterator[None]:
    """Process 0 runs the block before the others do, so that it alone downloads what is not there."""
    if rank():
        wait()
    yield
    if not rank():
        wait()


def parallel(module: nn.Module, fixed: Iterable[str] = ()) -> nn.Module:
    """A module whose gradients are averaged over all processes in the backward pass.

    Its parameters start as those of process 0. Buffers are not sent: tables are the same everywhere, and norm
    statistics are averaged by :func:`average_`.

    Args:
        module: to train.
        fixed: names of parameters that get no gradient.
    """
    if not _joined:
        return module
    ignored = [*fixed, *(name for name, _ in module.named_buffers())]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, ignored)
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # of one channel any do
    return DistributedDataParallel(module)


def norm_statistics(model: nn.Module) -> list[Tensor]:
    """Running means and variances, which training moves without a gradient."""
    moved = ("running_mean", "running_var")
    return [tensor for name, tensor in model.named_buffers() if name.rpartition(".")[2] in moved]


def average_(tensors: Sequence[Tensor]) -> None:
    """Put the mean over all processes in the place of each tensor."""
    if not _joined or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= count()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))
