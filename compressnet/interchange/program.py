"""A dense model as torch.export's program: what one forward pass computes, for any number of images."""

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from compressnet.errors import FileError, first_line

BATCHES = ({0: Dim("batch", min=1)},)
"""Of the one input, the images: the first side is free."""


def check() -> None:
    """Nothing but torch is needed."""


def trace(model: nn.Module, images: Tensor) -> ExportedProgram:
    """The program of a model.

    Args:
        model: of ordinary layers, in evaluation mode.
        images: such as it takes, shape (N, C, H, W); of their sizes all but N are the program's.

    Raises:
        FileError: torch cannot follow the model.
    """
    try:
        with torch.no_grad():
            program = torch.export.export(model, (images,), dynamic_shapes=BATCHES)
    except RuntimeError as error:
        raise FileError(f"torch.export cannot follow the model: {first_line(error)}", cure=_DENSE) from None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names files of this machine
    return program


def write(model: nn.Module, images: Tensor, path: Path, facts: Mapping[str, str]) -> None:
    """Write the program, with facts beside it as its extra files.

    Raises:
        FileError: torch cannot follow the model.
    """
    program = trace(model, images)
    program.example_inputs = None  # which would travel along
    held = io.BytesIO()  # the archive would have the name of a file inside
    torch.export.save(program, held, extra_files=dict(facts))
    path.write_bytes(held.getbuffer())


def run(path: Path, images: Tensor) -> Tensor:
    """The logits that a written program gives, shape (N, classes)."""
    with path.open("rb") as file:
        program = torch.export.load(file)
    logits: Tensor = program.module()(images)
    return logits.detach()


_DENSE = "--dense writes its numbers for a program of your own"
