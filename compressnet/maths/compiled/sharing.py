"""Signed values by index, and their sums: see :mod:`compressnet.maths.sharing`."""

from typing import Any

import numpy as np
from numpy import int32
from numpy.typing import NDArray

from compressnet.maths.compiled import loop

Reals = NDArray[Any]
Ints = NDArray[np.int32]


@loop
def gather(out: Reals, values: Reals, indices: Ints) -> None:
    """``out[i] = ± values[k]`` with ``indices[i] = 2 k + (1 if the sign is −)``."""
    for i in range(out.size):
        index = indices[i]
        out[i] = values[index >> int32(1)] * out.dtype.type(int32(1) - int32(2) * (index & int32(1)))


@loop
def add(sums: Reals, numbers: Reals, indices: Ints) -> None:
    """``sums[k] += ± numbers[i]``."""
    for i in range(numbers.size):
        index = indices[i]
        sums[index >> int32(1)] += numbers[i] * sums.dtype.type(int32(1) - int32(2) * (index & int32(1)))
