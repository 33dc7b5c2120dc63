"""Large weights of shared values, made and trained by several threads, and matrices a cache-full at a time.

:func:`compressnet.maths.sharing.expand` with ordinary operations is the reference of everything here. Indices are given
as they are, or as an assignment, from which each pass makes what it reads, and keeps nothing.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from compressnet.maths import compiled, cuda
from compressnet.maths.assignment import Assignment
from compressnet.maths.dct import kernel, kernels
from compressnet.maths.indices import ALL
from compressnet.maths.sharing import Reader, Sums, expand

Indices = Tensor | Assignment
NUMBERS = 1 << 22
"""Of a matrix that are made at a time: products have enough rows then, and the last-level cache holds them."""


def read(indices: Indices, device: torch.device, part: slice = ALL) -> Tensor:
    """Indices themselves, of some positions; those of an assignment are made on the device, or else on the CPU."""
    if isinstance(indices, Tensor):
        return indices[part]
    if device.type == "meta":
        return torch.empty(indices.numel, dtype=torch.int32, device=device)[part]
    if cuda.runs(indices, device):
        return cuda.signed_indices(indices, device)[part]
    return indices.signed_indices(part).to(device)


def by_parts(values: Tensor, numel: int) -> bool:
    """Whether that is better for a weight of so many numbers: large, on the CPU, in no program that is traced."""
    plain = type(values) in (Tensor, torch.nn.Parameter) and not torch.compiler.is_compiling()
    return plain and values.device.type == "cpu" and numel >= compiled.FROM


def spread(values: Tensor, indices: Indices) -> Tensor:
    """``expand(values, indices)``, by as many threads as torch has.

    Args:
        values: shape (K,).
        indices: int32 of shape (N,), or what they are made of.

    Returns:
        shape (N,), differentiable in ``values``.
    """
    indices = _in_order(indices, values.device)
    if isinstance(indices, Tensor) and not by_parts(values, len(indices)):
        return expand(values, indices)
    return _Spread.apply(values, indices, None)


def spread_kernels(values: Tensor, indices: Indices, transform: Tensor, shape: torch.Size) -> Tensor:
    """``kernels(spread(values, indices), transform, shape)``, at once on CUDA devices, and of 3×3 kernels on the CPU.

    Args:
        values: shape (K,).
        indices: int32 of shape (out · in · kh · kw,), or what they are made of.
        transform: :func:`compressnet.maths.dct.dct2_matrix` of the kernels.
        shape: out, in, kh, kw; or out, in.

    Returns:
        shape ``shape``, differentiable in ``values``.
    """
    indices, numel = _in_order(indices, values.device), shape.numel()
    if _by_kernels(indices, values.device) or (kernel(shape) == (3, 3) and compiled.takes(numel, values)):
        return _Spread.apply(values, indices, transform).view(shape)
    return kernels(spread(values, indices), transform, shape)


def linear(x: Tensor, values: Tensor, indices: Indices, shape: tuple[int, int]) -> Tensor:
    """``F.linear(x, expand(values, indices).view(shape))`` with a weight that is never whole, nor is its gradient.

    Args:
        x: shape (…, in).
        values: shape (K,).
        indices: int32 of shape (out · in,), or what they are made of.
        shape: out, in.

    Returns:
        shape (…, out), differentiable once in ``x`` and ``values``.
    """
    y = _Linear.apply(x.reshape(-1, shape[1]), values, indices, shape)
    return y.view(*x.shape[:-1], shape[0])


def rows(values: Tensor, indices: Indices, shape: tuple[int, int], count: int) -> Iterator[Tensor]:
    """``expand(values, indices).view(shape)``, so many rows at a time, each of which is overwritten by the next ones.

    Args:
        values: shape (K,).
        indices: int32 of shape (out · in,).
        shape: out, in.
        count: of rows.

    Returns:
        of shape (at most ``count``, in) each, without gradients.
    """
    made = _Rows(values.detach(), indices, shape, count)
    return (made.weight(some, read_by) for some, read_by in made)


def _by_kernels(indices: Indices, device: torch.device) -> TypeGuard[Assignment]:
    """Whether a CUDA device does it without indices."""
    return isinstance(indices, Assignment) and cuda.runs(indices, device)


def _in_order(indices: Indices, device: torch.device) -> Indices:
    """Indices, where their kernels would sum in another order in every run, and torch is asked for the same one."""
    asked = torch.are_deterministic_algorithms_enabled()
    return read(indices, device) if asked and _by_kernels(indices, device) else indices


class _Spread(torch.autograd.Function):
    """Values at their positions, or with a transform the kernels whose coefficients they are."""

    @staticmethod
    def forward(values: Tensor, indices: Indices, transform: Tensor | None) -> Tensor:
        if _by_kernels(indices, values.device):
            return cuda.gather(values, indices, transform)
        index = read(indices, values.device)
        out = values.new_empty(len(index))
        Reader(values, len(index), transform is not None).gather_(out, index)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Indices, Tensor | None], output: Tensor) -> None:
        values, ctx.indices, ctx.transform = inputs
        ctx.count = len(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Collect.apply(grad, ctx.indices, ctx.count, ctx.transform), None, None


class _Collect(torch.autograd.Function):
    """The transpose of :class:`_Spread`."""

    @staticmethod
    def forward(numbers: Tensor, indices: Indices, count: int, transform: Tensor | None) -> Tensor:
        if _by_kernels(indices, numbers.device):
            return cuda.add(numbers, indices, transform)
        sums = Sums(numbers, count, len(numbers), transform is not None)
        sums.add_(read(indices, numbers.device), numbers.contiguous())
        return sums.total()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Indices, int, Tensor | None], output: Tensor) -> None:
        ctx.indices, ctx.transform = inputs[1], inputs[3]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _Spread.apply(grad, ctx.indices, ctx.transform), None, None, None


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, indices: Indices, shape: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, values)
        ctx.indices, ctx.shape = indices, shape
        y, rows = x.new_empty(len(x), shape[0]), _Rows(values, indices, shape)
        for some, read_by in rows:
            torch.mm(x, rows.weight(some, read_by).T, out=y[:, some])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, values = ctx.saved_tensors
        rows = _Rows(values, ctx.indices, ctx.shape)
        grad_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        sums = Sums(values, len(values), rows.numel)
        for some, read_by in rows:
            if grad_x is not None:
                grad_x.addmm_(grad[:, some], rows.weight(some, read_by))
            of_weight = torch.mm(grad[:, some].T, x, out=rows.buffer(some))
            sums.add_(read_by, of_weight.view(-1))
        return grad_x, sums.total(), None, None


class _Rows:
    """Rows of a weight, some at a time in one buffer, with the indices of their positions."""

    def __init__(self, values: Tensor, indices: Indices, shape: tuple[int, int], step: int | None = None) -> None:
        self.indices, (self.count, self.width) = indices, shape
        self.numel = self.count * self.width
        self.step = step or max(1, NUMBERS // self.width)
        self.numbers = values.new_empty(min(self.step, self.count), self.width)
        self.values = values

    @cached_property
    def reader(self) -> Reader:
        return Reader(self.values, self.numel)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        for first in range(0, self.count, self.step):
            rows = slice(first, min(first + self.step, self.count))
            yield rows, read(self.indices, self.values.device, slice(rows.start * self.width, rows.stop * self.width))

    def buffer(self, rows: slice) -> Tensor:
        return self.numbers[: rows.stop - rows.start]

    def weight(self, rows: slice, read_by: Tensor) -> Tensor:
        weight = self.buffer(rows)
        self.reader.gather_(weight.view(-1), read_by)
        return weight
