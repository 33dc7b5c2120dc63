"""The ratios and bits that a recipe leaves to its budget: chosen so that what the file has room for loses least.

What a layer loses is measured, on images or, without, on its weight. Options of a layer, a ratio and a step each, have
an estimated size; of every layer one is taken, such that the next byte would save as much anywhere.
"""

from compressnet.sizing.overhead import check_budget
from compressnet.sizing.price import expected
from compressnet.sizing.resolve import Sized, resolve

__all__ = ["Sized", "check_budget", "expected", "resolve"]
