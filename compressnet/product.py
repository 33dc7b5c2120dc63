"""Weights that a layer multiplies by without making them."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from compressnet.fitting import fit_
from compressnet.fitting.regression import LEARNING_RATE
from compressnet.maths.hashing import normal
from compressnet.structured import ConvGeometry, StructuredWeight

_ROWS = 1024  # of the identity at a time
_SAMPLES = 512  # of the inputs, where none are known
_STREAM = 3  # of the hash that makes them; those below are for what methods draw


class ProductWeight(StructuredWeight):
    """A matrix of out rows and in·kh·kw columns whose product with a vector is cheaper than the matrix.

    A method gives ``matmul``, on vectors of in·kh·kw numbers; the rest follows. Fully connected layers and 1×1
    convolutions run as the product. A k×k kernel meets far more positions than it has rows, and the patches that they
    see are kh·kw times the image: such a convolution, and one with groups, is run with the dense weight, which is made
    once.
    """

    linear = False
    runs = "product"
    uses_inputs = True

    @classmethod
    def rejects(cls, shape: Sequence[int], config: Any) -> str | None:
        """It stores fewer numbers than the dense weight has."""
        stored, numel = cls(shape, config, 0, device="meta").numel, torch.Size(shape).numel()
        if stored >= numel:
            return f"its {stored:,} numbers would not be fewer than the {numel:,} of the dense weight"
        return None

    @classmethod
    def runs_product(cls, shape: Sequence[int], groups: int = 1) -> bool:
        """Fully connected layers and 1×1 convolutions without groups are."""
        return groups == 1 and torch.Size(shape[2:]).numel() == 1

    def conv2d(self, x: Tensor, geometry: ConvGeometry) -> Tensor:
        """A product at every position of a 1×1 convolution; of any other, the convolution with the dense weight."""
        if self.runs_product(self.shape, geometry.groups):
            return self.matmul(geometry.sample(x)).permute(0, 3, 1, 2)
        return super().conv2d(x, geometry)

    def to_dense(self) -> Tensor:
        """The dense weight, by a product with the identity."""
        numbers = next(self.parameters())
        identity = torch.eye(self.columns, dtype=numbers.dtype, device=numbers.device)
        return torch.cat([self.matmul(rows) for rows in identity.split(_ROWS)]).T.reshape(self.shape)

    @property
    def columns(self) -> int:
        """in·kh·kw, of the matrix."""
        return self.shape[1:].numel()


class FittedWeight(ProductWeight):
    """A product without a closed projection: from a start of its own, its outputs are fitted by regression.

    A method gives ``draw_`` and ``solve_``, and the keys ``init`` and ``steps`` in its configuration.
    """

    exact_projection = False

    @property
    def learning_rate(self) -> float:
        """Of the regression's first step."""
        return LEARNING_RATE

    @abstractmethod
    def draw_(self) -> None:
        """Set the parameters to the start, from the specified hash."""

    @abstractmethod
    def solve_(self, inputs: Tensor, targets: Tensor) -> None:
        """Set the parameters in which the outputs are linear to their least-squares values.

        Args:
            inputs: shape (samples, in·kh·kw).
            targets: shape (samples, out).
        """

    def project_(self, dense: Tensor, inputs: Tensor | None = None) -> Self:
        """Regress the dense layer's outputs on its inputs, from the start; with another ``init``, only start.

        Args:
            dense: shape ``shape``.
            inputs: shape (samples, in·kh·kw); standard normal vectors where there are none.
        """
        self.draw_()
        if self.config.init != "fitted":
            return self
        numbers = next(self.parameters()).detach()
        if inputs is None:
            inputs = normal(_SAMPLES * self.columns, self.seed, stream=_STREAM).view(_SAMPLES, -1)
        inputs = inputs.to(numbers)
        targets = F.linear(inputs, dense.detach().to(numbers).flatten(1))
        self.solve_(inputs, targets)
        fit_(self, inputs, targets, steps=self.config.steps, lr=self.learning_rate)
        self.solve_(inputs, targets)
        return self
