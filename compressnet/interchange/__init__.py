"""A dense model as a program that others run, verified by running what was written."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from compressnet.description import Description
from compressnet.errors import FileError
from compressnet.interchange import onnx, program

TOLERANCE = 1e-4
"""Of the largest logit: how far those of what was written may be from the model's."""


@dataclass(frozen=True)
class Way:
    """A kind of program.

    Args:
        words: what it is called.
        check: refuses before any work where something is missing.
        write: takes a model of ordinary layers, images such as it takes, a path, and facts for the user.
        run: gives the logits of what was written for images of any number.
    """

    words: str
    check: Callable[[], None]
    write: Callable[[nn.Module, Tensor, Path, Mapping[str, str]], None]
    run: Callable[[Path, Tensor], Tensor]


WAYS: Mapping[str, Way] = {
    "onnx": Way("an ONNX model", onnx.check, onnx.write, onnx.run),
    "pt2": Way("a torch.export program", program.check, program.write, program.run),
}


def facts(description: Description) -> dict[str, str]:
    """What a program says of itself beside its graph: the model, its images as JSON, and its classes as JSON."""
    said = {"producer": f"compressnet {version('compressnet')}"}
    if description.spec:
        said["model"] = description.spec.name
    if description.preprocessing:
        said["preprocessing"] = json.dumps(description.preprocessing.to_json())
    if description.classes:
        said["classes"] = json.dumps(description.classes)
    return said


def write_verified(
    way: Way, model: nn.Module, images: Tensor, expected: Tensor, path: Path, facts: Mapping[str, str], where: str
) -> Tensor:
    """Write a program and run it, on all images at once and on the first alone.

    Args:
        way: of :data:`WAYS`.
        model: of ordinary layers, in evaluation mode, on the CPU.
        images: shape (N, C, H, W), N at least 2.
        expected: the logits for them, shape (N, classes).
        path: where it is written.
        facts: that it carries.
        where: it will be.

    Returns:
        the logits that it gives.

    Raises:
        FileError: it cannot be written or run, or gives other logits.
    """
    way.write(model, images, path, facts)
    found = way.run(path, images)
    alone = way.run(path, images[:1])
    difference = torch.cat((found - expected, alone - expected[:1])).abs().max().item()
    scale = expected.abs().max().item()
    if not difference <= TOLERANCE * scale:
        raise FileError(
            f"what was written gives other logits, by up to {difference:.3g} where the largest is {scale:.3g}",
            where,
            "it is not kept",
        )
    return found
