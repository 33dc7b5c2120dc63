"""A dense weight that is kept for inference, and never used once it is stale."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn


class Freezable(nn.Module):
    """A module that can keep the dense weight its parameters make.

    The copy is dropped by ``train()``, ``load_state_dict``, ``copy.deepcopy`` and another dtype; by a parameter that is
    replaced, or changed in place where torch counts it (not through ``.data``). ``.to()`` a device takes it along.
    A compiled graph counts no changes: there, a forward pass with gradients drops it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._frozen: Tensor | None = None
        self._frozen_of: list[tuple[int, int]] = []  # the versions of the parameters that made it

    @abstractmethod
    def to_dense(self) -> Tensor:
        """The dense weight, differentiable in the parameters."""

    def dense(self) -> Tensor:
        """The dense weight: the kept copy where :meth:`frozen` gives one, else made anew."""
        kept = self.frozen()
        return self.to_dense() if kept is None else kept

    def frozen(self) -> Tensor | None:
        """The kept copy, where there is one of the parameters as they are and no gradient is wanted."""
        if self._frozen is None:
            return None
        compiling = torch.compiler.is_compiling()
        if torch.is_grad_enabled():
            if compiling and not torch.compiler.is_exporting():
                self.unfreeze()
            return None
        if not compiling and self._frozen_of != self._versions():
            self.unfreeze()
        return self._frozen

    def keep(self) -> None:
        """Make the dense weight, and keep it."""
        with torch.no_grad():
            self._frozen = self.to_dense().detach().contiguous()
        self._frozen_of = self._versions()

    def unfreeze(self) -> None:
        """Forget the kept dense weight."""
        self._frozen = None

    def _versions(self) -> list[tuple[int, int]]:
        """Where the parameters lie, and how often each was changed; inference tensors do not count that."""
        own = [parameter for parameter in self._parameters.values() if parameter is not None]
        return [(p.data_ptr(), -1 if p.is_inference() else p._version) for p in own]

    def train(self, mode: bool = True) -> Self:
        """Training never uses a kept weight."""
        if mode:
            self.unfreeze()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        with torch.no_grad():
            kept = self.frozen()
        super()._apply(fn, recurse)
        self.unfreeze()
        if kept is not None and (moved := fn(kept)).dtype == kept.dtype:
            self._frozen, self._frozen_of = moved, self._versions()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.unfreeze()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """A copy, and a pickle, has none."""
        return self.__dict__ | {"_frozen": None}
