"""Which quantiser each tensor of a model gets."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from compressnet.coding.quantisers import Float, Quantiser, Uniform, fit_codebook, fit_uniform
from compressnet.plan import PlannedBlock, PlannedLayer
from compressnet.recipe import ExportSection

STATISTICS = ("running_mean", "running_var")
Fit = Callable[[Tensor, int], Quantiser]


def choose(
    state: Mapping[str, Tensor], planned: Sequence[PlannedLayer | PlannedBlock], settings: ExportSection
) -> dict[str, Quantiser]:
    """A quantiser for every tensor of floating-point numbers.

    The numbers that hold a layer's weight get the bits of its rule, else those of the section; vectors that hold none
    (biases, scales and shifts of norm layers) get ``vector_bits``; norm statistics stay as they are where nothing has
    bits, else they are bfloat16.

    Args:
        state: the model's state_dict.
        planned: the layers and blocks of the plan.
        settings: the recipe's export section, whose bits are a number or None.
    """
    default = settings.bits if isinstance(settings.bits, int) else None
    drawn = {name for block in planned if isinstance(block, PlannedBlock) for name in _buffers(block)}
    chosen: dict[str, Quantiser] = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        layer = next((layer for layer in planned if holds_weight(layer, name)), None)
        bits = default if layer is None or layer.bits is None else layer.bits
        if bits is None and name in drawn:
            chosen[name] = Float("float32")
        elif name.endswith(STATISTICS):
            chosen[name] = Float("float32" if default is None else "bfloat16")
        elif layer is None and tensor.dim() < 2:
            chosen[name] = _of(tensor, settings.vector_bits if default else None, settings, fit_uniform)
        else:
            chosen[name] = _of(tensor, bits, settings, _fit(settings))
    return chosen


def _buffers(block: PlannedBlock) -> list[str]:
    """What a block stores but does not learn."""
    return [f"{block.prefix}{name}" for name, _ in block.build("meta").named_buffers()]


def holds_weight(layer: PlannedLayer | PlannedBlock, name: str) -> bool:
    """Whether a tensor is among those that hold the weight of a layer, or the numbers of a block."""
    if isinstance(layer, PlannedLayer) and not layer.method:
        return name == layer.parameter
    return name.startswith(layer.prefix)


def _fit(settings: ExportSection) -> Fit:
    if settings.quantiser == "codebook":
        return lambda tensor, bits: fit_codebook(tensor, 2**bits)
    return fit_rows if settings.group == "row" else fit_uniform


def _of(tensor: Tensor, bits: int | None, settings: ExportSection, fit: Fit) -> Quantiser:
    """Of empty tensors and of those without bits the numbers are kept as they are, but for their type."""
    tensor = tensor.detach().float().cpu()
    if bits is None or tensor.numel() == 0:
        return Float(settings.dtype)
    return fit(tensor, bits)


@torch.no_grad()
def fit_rows(tensor: Tensor, bits: int) -> Quantiser:
    """A step for each slice of the first dimension; of a vector, one for all."""
    whole = fit_uniform(tensor, bits)
    if tensor.dim() < 2:
        return whole
    steps = [fit_uniform(row, bits).step if row.any() else whole.step for row in tensor]
    base = 2.0 ** math.floor(math.log2(min(steps)))
    return Uniform.of_bits(bits, base, tuple(nearest_row(step / base) for step in steps))


def nearest_row(factor: float) -> int:
    """The k whose factor (1 + (k mod 4) / 4) · 2^⌊k / 4⌋ is nearest to one of at least 1.

    >>> [nearest_row(factor) for factor in (1.0, 1.3, 2.0, 7.0)]
    [0, 1, 4, 11]
    """
    octave = math.floor(math.log2(factor))
    return 4 * octave + round(4 * (factor / 2**octave - 1))
