"""A dense model as an ONNX file, for runtimes other than torch. The only importer of onnx and onnxruntime."""

import warnings
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressnet.errors import FileError, first_line, listing
from compressnet.interchange.program import BATCHES, trace

INPUT, OUTPUT = "images", "logits"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INSTALL = "pip install --upgrade 'compressnet[onnx]'"
MOST_NBYTES = (1 << 31) - (1 << 20)
"""Of a model's numbers in one file: ONNX files are Protocol Buffers, which end at 2 GiB, graph included."""


def check() -> None:
    """Refuse before any work where a package is missing.

    Raises:
        FileError: naming it.
    """
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise FileError(f"it needs {listing(PACKAGES)}; {listing(missing)} cannot be found", "--onnx", INSTALL)


def write(model: nn.Module, images: Tensor, path: Path, facts: Mapping[str, str]) -> None:
    """Write the model with torch's exporter, in the opset that it writes by default, and with facts as properties.

    Args:
        model: of ordinary layers, in evaluation mode.
        images: such as it takes, shape (N, C, H, W); of their sizes all but N are the file's.
        path: of the file.
        facts: what a user should know.

    Raises:
        FileError: the model is too large, torch cannot follow it, or cannot put it in ONNX's words.
    """
    import onnx

    nbytes = sum(tensor.nbytes for tensor in model.state_dict().values())
    if nbytes > MOST_NBYTES:
        raise FileError(
            f"an ONNX file ends at 2 GiB; the dense numbers are {nbytes:,} bytes", "--onnx", "--pt2 can hold them"
        )
    program = trace(model, images)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(
                program,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=BATCHES,  # again, for the name of the first side
                external_data=False,
                verbose=False,
            )
    except RuntimeError as error:
        raise FileError(f"torch.onnx cannot write the model: {first_line(error)}", "--onnx", INSTALL) from None
    assert exported is not None
    proto = exported.model_proto
    _forget_notes(proto.graph, *_parts(proto.graph))
    onnx.helper.set_model_props(proto, dict(facts))
    onnx.save(proto, path)


def run(path: Path, images: Tensor) -> Tensor:
    """The logits that onnxruntime gives with a written file on the CPU, shape (N, classes).

    Raises:
        FileError: it cannot run it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        (logits,) = session.run([OUTPUT], {INPUT: images.numpy()})
    except Exception as error:  # onnxruntime's have no class in common but this
        raise FileError(f"onnxruntime cannot run what was written: {first_line(error)}", "--onnx", INSTALL) from None
    return torch.from_numpy(logits)


def _parts(graph: Any) -> Iterable[Any]:
    return (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer)


def _forget_notes(*parts: Any) -> None:
    """The exporter notes for each part where it comes from, with files of this machine."""
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""
