"""Steps compiled by ``torch.compile``, whose complaints become ours."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from compressnet.errors import TrainingError, first_line
from compressnet.recipe import FinetuneSection, TrainSection


def check_recompute(settings: TrainSection, compile: bool) -> None:
    """Refuse compiled steps in which indices are made.

    Raises:
        TrainingError: the settings and the command want both.
    """
    if compile and isinstance(settings, FinetuneSection) and settings.recompute:
        raise TrainingError("a compiled step keeps its indices", "finetune.recompute", "leave out one of the two")


@contextmanager
def compiling(backend: str | None) -> Iterator[None]:
    """Run steps that are compiled when they first run.

    Args:
        backend: of ``torch.compile``, or None where nothing is compiled.

    Raises:
        TrainingError: they cannot be compiled.
    """
    try:
        yield
    except Exception as error:
        if backend is None or not isinstance(error, torch._dynamo.exc.TorchDynamoException):
            raise
        what = f"torch.compile cannot compile the model: {first_line(error)}"
        raise TrainingError(what, "--compile", "train without it; on a CPU it needs a C++ compiler") from None
