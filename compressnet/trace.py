"""What a forward pass does with each parameter: whether it runs at all, and how many multiply–accumulates it costs.

The model runs once on the ``meta`` device, where nothing is computed, and every matrix product and convolution is
attributed to the parameter it reads, however it got there (attention passes its weights to ``F.linear`` itself).
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_PRODUCTS = {
    torch.ops.aten.mm: (0, 1),
    torch.ops.aten.bmm: (0, 1),
    torch.ops.aten.addmm: (1, 2),
    torch.ops.aten.baddbmm: (1, 2),
}


class _Uses(TorchDispatchMode):
    def __init__(self, names: Mapping[Any, str]) -> None:
        super().__init__()
        self.names = names
        self.macs: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves((args, kwargs)):
            self._add(tensor, 0)
        if func.overloadpacket is torch.ops.aten.convolution:
            self._add(args[1], out.numel() * args[1].shape[1:].numel())
        elif func.overloadpacket in _PRODUCTS:
            left, right = (args[i] for i in _PRODUCTS[func.overloadpacket])
            self._add(left, left.numel() * right.shape[-1])
            self._add(right, left.numel() * right.shape[-1])
        return out

    def _add(self, tensor: Any, macs: int) -> None:
        name = self.names.get(_storage(tensor)) if isinstance(tensor, Tensor) else None
        if name is not None:
            self.macs[name] = self.macs.get(name, 0) + macs


def _storage(tensor: Tensor) -> Any:
    return tensor.untyped_storage()._cdata


def parameter_macs(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """The multiply–accumulates of one forward pass in evaluation mode, by parameter.

    Args:
        model: any module that takes one tensor; it is not changed.
        input_shape: (N, C, H, W).

    Returns:
        the parameters that are read, with their multiply–accumulates (0 for biases and the like). A parameter that is
        not in it never runs in evaluation.
    """
    ghost = copy.deepcopy(model).to("meta").eval()
    uses = _Uses({_storage(p): name for name, p in ghost.named_parameters()})
    with torch.no_grad(), uses:
        ghost(torch.empty(input_shape, device="meta"))
    return uses.macs
