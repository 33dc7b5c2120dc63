"""Weights whose positions share signed values, by a table of indices that a hash makes."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from compressnet.maths.assignment import Assignment
from compressnet.maths.spreading import Indices, by_parts, linear, read, rows
from compressnet.structured import ConvGeometry, StructuredWeight


class HashedWeight(StructuredWeight):
    """A weight that is linear in ``buckets``, each of whose positions reads one of them.

    A method gives ``spread`` and ``assignment``. In training, a large matrix is multiplied by a few rows at a time.
    Where :meth:`recompute_` asks for it, neither the indices nor the dense weight outlive the pass that needs them.
    """

    linear = True
    exact_projection = True
    runs = "dense"

    buckets: nn.Parameter
    assignment: Assignment
    indices: Tensor | None
    recomputes = False

    @abstractmethod
    def spread(self, values: Tensor) -> Tensor:
        """The dense weight that has these values in the place of ``buckets``."""

    def remake_(self, device: torch.device | str) -> None:
        """Make the signed index of every position."""
        indices = None if self.recomputes else read(self.assignment, torch.device(device))
        self.register_buffer("indices", indices, persistent=False)

    def recompute_(self, recomputes: bool = True) -> None:
        """Make the indices whenever they are read, and the dense weight for each pass; or keep them, as at first."""
        self.recomputes = recomputes
        self.remake_(self.buckets.device)

    @property
    def reads(self) -> Indices:
        """The indices, or what they are made of."""
        return self.assignment if self.indices is None else self.indices

    def to_dense(self) -> Tensor:
        """The dense weight."""
        return self.spread(self.buckets)

    def rows(self) -> Iterator[Tensor]:
        """The dense weight, some rows at a time; a large matrix is never whole."""
        if len(self.shape) == 2 and by_parts(self.buckets, self.shape.numel()):
            return rows(self.buckets, self.reads, (self.shape[0], self.shape[1]), self._rows_at_once)
        return super().rows()

    def matmul(self, x: Tensor) -> Tensor:
        """``x Wᵀ``; while it is trained in float32 on the CPU, that of a large matrix by rows."""
        if self._by_rows(x):
            return linear(x, self.buckets, self.reads, (self.shape[0], self.shape[1]))
        with self._unkept(self.dense(), x) as weight:
            return nn.functional.linear(x, weight.flatten(1))

    def conv2d(self, x: Tensor, geometry: ConvGeometry) -> Tensor:
        """The convolution of x, of shape (N, C, H, W), with this weight."""
        with self._unkept(self.dense(), x) as weight:
            return geometry.convolve(x, weight)

    def _by_rows(self, x: Tensor) -> bool:
        return (
            len(self.shape) == 2
            and torch.is_grad_enabled()
            and self.buckets.requires_grad
            and x.dtype is self.buckets.dtype is torch.float32
            and not torch.is_autocast_enabled("cpu")
            and by_parts(self.buckets, self.shape.numel())
        )

    @contextmanager
    def _unkept(self, weight: Tensor, x: Tensor) -> Iterator[Tensor]:
        """The weight for one operation, whose backward pass makes it anew where it is not to be kept."""
        if not (self.recomputes and weight.requires_grad):
            yield weight
            return
        kind = x.device.type
        half, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        weight = weight.to(dtype) if half else weight
        address, values = weight.data_ptr(), self.buckets

        def pack(saved: Tensor) -> object:
            return saved if saved.data_ptr() != address else partial(anew, saved.shape, saved.stride())

        def anew(size: torch.Size, stride: tuple[int, ...]) -> Tensor:
            with torch.autocast(kind, dtype, enabled=half):
                made = self.spread(values.detach())
            return (made.to(dtype) if half else made).as_strided(size, stride)

        def unpack(kept: object) -> Tensor:
            return kept() if callable(kept) else kept  # type: ignore[return-value]

        with saved_tensors_hooks(pack, unpack):
            yield weight


@contextmanager
def recomputing(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Where it is wanted, the weights of a model keep neither indices nor dense weights while the block runs.

    Indices that are not kept are made twice a step, and dense weights of convolutions once more in the backward pass.
    """
    weights = [module for module in model.modules() if wanted and isinstance(module, HashedWeight)]
    for weight in weights:
        weight.recompute_()
    try:
        yield
    finally:
        for weight in weights:
            weight.recompute_(False)
