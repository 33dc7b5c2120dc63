"""Parameters that reproduce a layer's outputs: least squares where the weight is linear in them, else regression."""

from compressnet.fitting.head import fit_head_
from compressnet.fitting.linear import fit_linear_
from compressnet.fitting.pairs import Inputs, Pairs
from compressnet.fitting.regression import fit_

__all__ = ["Inputs", "Pairs", "fit_", "fit_head_", "fit_linear_"]
