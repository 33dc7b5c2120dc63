"""Loops that Numba compiles for the CPU, where operations of torch or numpy cannot reach their speed.

Each file of this package imports numba, and is imported by the first call that needs it. What it does is done by torch
or numpy too: on GPUs, for what is small, in programs that are traced, and where numba is not installed. Machine code is
kept on disk, beside the source or in the user's cache, so that a machine compiles a loop once.
"""

from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])

FROM = 1 << 15
"""Numbers that are worth a call of a compiled loop, and the import of numba, a fifth of a second once."""


@cache
def installed() -> bool:
    """Whether numba is there."""
    return find_spec("numba") is not None


def reads(*tensors: Tensor) -> bool:
    """Whether loops can read these tensors: of one type that they know, on the CPU, in no program that is traced."""
    kinds = {(each.device.type, each.dtype) for each in tensors}
    return (
        installed()
        and kinds in ({("cpu", torch.float32)}, {("cpu", torch.float64)}, {("cpu", torch.int32)})
        and all(type(each) in (Tensor, torch.nn.Parameter) for each in tensors)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def loop(function: Function) -> Function:
    """Compiled for the types that it is called with; it lets go of Python while it runs."""
    import numba

    compiled = partial(numba.njit, nogil=True, error_model="numpy")
    try:
        return cast(Function, compiled(cache=True)(function))
    except RuntimeError:  # neither the source's folder nor the user's cache can be written to
        return cast(Function, compiled()(function))


def inlined(function: Function) -> Function:
    """A part of loops, compiled with them."""
    import numba

    return cast(Function, numba.njit(inline="always", error_model="numpy")(function))
