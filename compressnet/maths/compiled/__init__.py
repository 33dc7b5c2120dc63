"""Loops that Numba compiles for the CPU, where operations of torch or numpy cannot reach their speed.

Each file of this package imports numba, and is imported by the first call that needs it. What it does is done by torch
or numpy too: on GPUs, for what is small, in programs that are traced, and where numba is not installed. Machine code is
kept on disk, beside the source or in the user's cache, so that a machine compiles a loop once.
"""

from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])

FROM = 1 << 15
"""Numbers that are worth a call of a compiled loop, and the import of numba, a fifth of a second once."""

LANES = 16
"""Numbers of a vector of :mod:`compressnet.maths.compiled.lanes`."""

LIKE = {torch.float32: np.float32(0), torch.float64: np.float64(0)}
"""What tells a loop the type of numbers that it is given the addresses of."""

_PLAIN = (Tensor, torch.nn.Parameter)
_TYPES = (torch.float32, torch.float64, torch.int32)


@cache
def installed() -> bool:
    """Whether numba is there."""
    return find_spec("numba") is not None


def reads(*tensors: Tensor) -> bool:
    """Whether loops can read these tensors: of one type that they know, on the CPU, in no program that is traced."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    kind = tensors[0].dtype
    for each in tensors:
        if each.dtype is not kind or not each.is_cpu or type(each) not in _PLAIN:
            return False
    return kind in _TYPES and installed()


def takes(numel: int, *tensors: Tensor) -> bool:
    """Whether loops are to do work on so many numbers: they are worth it, and loops can read the tensors."""
    return numel >= FROM and reads(*tensors)


def transformed() -> bool:
    """Whether torch.func transforms what is called, or derivatives go along with numbers, as through torch they do."""
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


def loop(function: Function, any_order: bool = False) -> Function:
    """Compiled for the types that it is called with; it lets go of Python while it runs.

    Args:
        any_order: whether sums may be added in any, which lets a sum take all lanes of a vector unit.
    """
    import numba

    freedom = {"reassoc", "contract", "nsz"} if any_order else False
    compiled = partial(numba.njit, nogil=True, error_model="numpy", fastmath=freedom)
    try:
        return cast(Function, compiled(cache=True)(function))
    except RuntimeError:  # neither the source's folder nor the user's cache can be written to
        return cast(Function, compiled()(function))


summing = partial(loop, any_order=True)


def inlined(function: Function) -> Function:
    """A part of loops, compiled with them."""
    import numba

    return cast(Function, numba.njit(inline="always", error_model="numpy")(function))


@cache
def arrays() -> Callable[..., Any]:
    """A part of loops: ``array(address, shape, like)``, the contiguous numbers there, of the type that ``like`` has.

    An address costs one call of a tensor, an array three, which is what a product of one vector takes.
    """
    import numba
    from numba.core import types
    from numba.extending import intrinsic

    @intrinsic
    def pointer(typing, address, like):  # type: ignore[no-untyped-def]
        def code(context, builder, signature, given):  # type: ignore[no-untyped-def]
            return builder.inttoptr(given[0], context.get_value_type(signature.return_type))

        return types.CPointer(like)(address, like), code

    def array(address, shape, like):  # type: ignore[no-untyped-def]
        return numba.carray(pointer(address, like), shape)

    return inlined(array)
