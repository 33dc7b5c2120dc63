"""Hashed weights on CUDA devices: which value a position reads is worked out where it is read, by Triton's kernels.

No index lies in the device's memory then, and none is copied to it: a device computes faster than it loads. Everything
is done by torch with indices from the CPU too, which is the reference: on other devices, and where Triton is missing.
"""

import warnings
from functools import cache, lru_cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from compressnet.maths.assignment import Assignment
from compressnet.maths.hashing import ROUNDS, Purpose, derive, round_keys, tiles, word_keys
from compressnet.maths.sharing import expand

BLOCK = 1024
"""Positions of one program of a kernel; it walks along cycles until all of them are inside."""
LARGEST = 128
"""Cells of a weight's kernels, which a program holds in registers."""

_LEAST = 128  # weight's kernels of a program: a thread has one at least
_TRIAL = Assignment(300, (0, 1, 1, 2), (5, 20, 7), seed=1)


def runs(assignment: Assignment, device: torch.device) -> bool:
    """Whether it is done so on a device: positions are counted by 31 bits, and a weight's kernels are small."""
    fits = assignment.numel <= 1 << 30 and len(assignment.bands) <= LARGEST
    return device.type == "cuda" and fits and installed() and works(device)


@cache
def installed() -> bool:
    """Whether Triton is there; it comes with torch where that is built for CUDA on Linux."""
    return find_spec("triton") is not None


@cache
def works(device: torch.device) -> bool:
    """Whether what Triton compiles for a device gives the CPU's numbers; where it does not, that is said once."""
    try:
        values, places = torch.arange(1.0, 33.0), _TRIAL.signed_indices()
        made, read = signed_indices(_TRIAL, device), gather(values.to(device), _TRIAL)
        summed = add(read, _TRIAL).cpu()
        if (
            torch.equal(made.cpu(), places)
            and torch.equal(read.cpu(), expand(values, places))
            and torch.equal(summed, values * torch.bincount(places >> 1))
        ):
            return True
        reason = "its numbers are not the CPU's"
    except Exception as error:  # of many kinds: no C compiler, a driver too old, a folder that cannot be written to
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    warnings.warn(f"Triton does not work on {device}, indices are made on the CPU ({reason})", stacklevel=2)
    return False


def signed_indices(assignment: Assignment, device: torch.device) -> Tensor:
    """``assignment.signed_indices()``, made on a device."""
    from compressnet.maths.cuda import kernels

    out = torch.empty(assignment.numel, dtype=torch.int32, device=device)
    _launch(kernels.signed_indices, assignment, BLOCK, out)
    return out


def gather(values: Tensor, assignment: Assignment, transform: Tensor | None = None) -> Tensor:
    """The signed value that each position reads, or what kernels of such values are transformed to.

    Args:
        values: shape (K,), of any floating-point type.
        assignment: of N positions to K values.
        transform: shape (cells, pixels): each kernel, as a row, is multiplied by it.

    Returns:
        shape (N,).
    """
    from compressnet.maths.cuda import kernels

    exact = _exact(values)
    out = exact.new_empty(assignment.numel)
    _launch_transformed(kernels.gather, assignment, transform, out, exact)
    return out.to(values.dtype)


def add(numbers: Tensor, assignment: Assignment, transform: Tensor | None = None) -> Tensor:
    """The signed sum of what positions hold, for each value that they read: the transpose of :func:`gather`.

    Sums are of single or double precision; their order, and so their last bits, differ from call to call.

    Args:
        numbers: shape (N,).
        assignment: of N positions to K values.
        transform: as it was given there.

    Returns:
        shape (K,).
    """
    from compressnet.maths.cuda import kernels

    exact = _exact(numbers)
    sums = exact.new_zeros(sum(assignment.buckets))
    _launch_transformed(kernels.add, assignment, transform, exact, sums)
    return sums.to(numbers.dtype)


def _exact(numbers: Tensor) -> Tensor:
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32)).contiguous()


def _launch_transformed(  # type: ignore[no-untyped-def]
    kernel, assignment: Assignment, transform: Tensor | None, *tensors: Tensor
) -> None:
    size = len(assignment.bands)
    width = 1 << (size - 1).bit_length()
    like = tensors[0]
    matrix = torch.eye(size, dtype=like.dtype, device=like.device) if transform is None else transform.to(like)
    _launch(kernel, assignment, max(_LEAST, BLOCK // width), *tensors, matrix.contiguous(), width=width)


def _launch(kernel, assignment: Assignment, block: int, *tensors: Tensor, **more: int) -> None:  # type: ignore[no-untyped-def]
    cells, rows, halvings = _tables(assignment, tensors[0].device)
    with torch.cuda.device_of(tensors[0]):
        kernel[(-(-assignment.kernels // block),)](
            *tensors,
            cells,
            rows,
            assignment.kernels,
            halvings,
            size=len(assignment.bands),
            balanced=assignment.hashing == "balanced",
            block=block,
            **more,
            enable_fp_fusion=False,
        )


@lru_cache(maxsize=1024)
def _tables(assignment: Assignment, device: torch.device) -> tuple[Tensor, Tensor, int]:
    """What kernels read of an assignment: a row of words for each cell and each tile, and the halvings of a search.

    The words are those that :mod:`compressnet.maths.cuda.kernels` names. Independent hashing has one tile a band.
    """
    cells: list[list[int]] = [[]] * len(assignment.bands)
    rows: list[list[int]] = []
    most = 1
    for band, (first, count) in enumerate(zip(assignment.firsts, assignment.buckets, strict=True)):
        own = assignment.cells(band)
        made = _tiles(assignment, band, first, count, assignment.kernels * len(own))
        signs = word_keys(assignment.seed, Purpose.SIGN, band)
        for rank, cell in enumerate(own):
            cells[cell] = [rank, len(own), len(rows), len(rows) + len(made), *signs]
        rows += made
        most = max(most, len(made))
    with torch.inference_mode(False):  # they outlive the call
        words = [torch.from_numpy(np.array(table, np.uint32)).to(device) for table in (cells, rows)]
    return words[0], words[1], (most - 1).bit_length()


def _tiles(assignment: Assignment, band: int, first: int, count: int, numel: int) -> list[list[int]]:
    seed, rows = assignment.seed, []
    if assignment.hashing == "independent":
        return [[0, numel, first, count, 0, 0, *word_keys(seed, Purpose.BUCKET, band), *[0] * (2 * ROUNDS - 2)]]
    for tile, (start, positions, before, owned) in enumerate(tiles(numel, count)):
        bits = max(1, (positions - 1).bit_length())
        rounds = round_keys(derive(seed, band, tile), Purpose.BUCKET, 0)
        keys = [key for pair in rounds for key in pair]
        rows.append([start, positions, first + before, owned, (1 << bits) - 1, -(-bits // 3), *keys])
    return rows
