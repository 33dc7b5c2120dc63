"""A whole model, coded as finely as its answers ask for or as its file has room for."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressnet.allocation.form import CodedForm
from compressnet.allocation.search import search
from compressnet.allocation.sensitivity import divergence
from compressnet.coding.quantisers import Quantiser
from compressnet.errors import FileError
from compressnet.plan import PlannedBlock, PlannedLayer
from compressnet.progress import SILENT, Progress
from compressnet.recipe import ExportSection

SLACK = 0.1  # of log₂ D: so near below the tolerance is near enough
UNUSED = 0.01  # of the bytes that a file may have
_TINY = 1e-15  # nats


@dataclass(frozen=True)
class Target:
    """How many bytes a file may have.

    Args:
        nbytes: of the file.
        measure: gives them for a model whose numbers are on the grids of quantisers.
    """

    nbytes: int
    measure: Callable[[nn.Module, Mapping[str, Quantiser]], int]


@dataclass(frozen=True)
class Allocated:
    """How the numbers of a model are stored.

    Args:
        quantisers: by the tensor's name.
        distortion: D, what the error of a number costs on average; where there are images, in nats.
        divergence: of the coded model's answers from its own before, in nats, on the images it is judged by.
    """

    quantisers: dict[str, Quantiser]
    distortion: float
    divergence: float


def allocate_(
    model: nn.Module,
    layers: Sequence[PlannedLayer | PlannedBlock],
    settings: ExportSection,
    images: Tensor | None,
    judges: Tensor,
    target: Target | None = None,
    progress: Progress = SILENT,
) -> Allocated:
    """Put the numbers of a model on the largest steps within ``export.tolerance``, or the smallest that a file holds.

    Args:
        model: in evaluation mode, on the CPU, not frozen; its numbers are overwritten by ones that the quantisers have.
        layers: and blocks of its plan.
        settings: the recipe's export section.
        images: unlabelled, of shape (N, C, H, W), that tell what an error of each number costs; see
            :class:`compressnet.allocation.form.CodedForm` for what is done without.
        judges: others, on which the coded model's answers are compared with its own before.
        target: of the file; None codes to the tolerance.
        progress: is told every trial.

    Raises:
        FileError: no steps are fine enough for the tolerance, or coarse enough for the bytes.
    """
    wanted = _answers(model, judges)
    form = CodedForm(model, layers, settings, images)
    with progress.task("choosing steps") as advance:

        def distance(distortion: float) -> float:
            form.code_(distortion)
            found = divergence(wanted, _answers(model, judges))
            advance(1, divergence=found)
            return found

        def size(distortion: float) -> int:
            assert target is not None
            found = target.measure(model, form.code_(distortion))
            advance(1, nbytes=found)
            return found

        chosen = within(form, settings.tolerance, distance) if target is None else fitting(form, target.nbytes, size)
    quantisers = form.code_(chosen)
    return Allocated(quantisers, chosen, divergence(wanted, _answers(model, judges)))


def within(form: CodedForm, tolerance: float, distance: Callable[[float], float]) -> float:
    """The largest D whose distance, which is about in proportion to D, is within a tolerance."""

    def excess(exponent: float) -> float:
        return math.log2(max(distance(2.0**exponent), _TINY) / tolerance)

    found = search(excess, math.log2(2 * tolerance / max(form.numel, 1)), SLACK, form.bounds)
    if found is None:
        cure = "raise it, or give more bits to the rules that name theirs"
        raise FileError(f"no steps keep the answers within {tolerance:g} nats", "export.tolerance", cure)
    return 2.0**found


def fitting(form: CodedForm, nbytes: int, size: Callable[[float], float]) -> float:
    """The smallest D whose file has no more bytes; a quarter of D takes a bit a number."""
    each = 16 / max(form.numel, 1)  # of −log₂ D, for a byte

    def excess(fineness: float) -> float:
        return (size(2.0**-fineness) - nbytes) * each

    start = (nbytes - sum(cost.bits for cost in form.costs.values()) / 8) * each
    finest, coarsest = form.bounds
    found = search(excess, start, UNUSED * nbytes * each, (-coarsest, -finest))
    if found is None:
        cure = "give it more, or compress more layers"
        raise FileError(f"no steps make the file fit {nbytes:,} bytes", "--target-size", cure)
    return 2.0**-found


@torch.no_grad()
def _answers(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(batch) for batch in images.split(32)])
