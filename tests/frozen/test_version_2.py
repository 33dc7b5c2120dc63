"""Coded files of format version 2 that are kept for ever, with the digest of every tensor as it was written.

python -m tests.frozen.test_version_2    # wrote them; never again
"""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import compressnet
from compressnet.checkpoint import write_coded
from compressnet.coding.payload import on_grid
from compressnet.coding.quantisers import Codebook, Float, Quantiser, Uniform, fit_codebook
from compressnet.coding.symbols import Coder
from compressnet.description import describe
from compressnet.maths.hashing import normal
from tests.docs.test_coded_reader import read
from tests.frozen.test_version_1 import FILE as VERSION_1
from tests.frozen.test_version_1 import net

FOLDER = Path(__file__).parent
CODERS: tuple[Coder, ...] = ("range", "huffman")
DIGESTS = FOLDER / "version_2.json"


def file_of(coder: Coder) -> Path:
    return FOLDER / f"version_2_{coder}.safetensors"


def digests(state: dict[str, Tensor]) -> dict[str, str]:
    """Of every tensor's numbers as float64, which holds them all."""
    return {name: hashlib.sha256(tensor.double().numpy().tobytes()).hexdigest() for name, tensor in state.items()}


@pytest.mark.parametrize("coder", CODERS)
def test_the_file_gives_the_numbers_that_were_written(coder: Coder) -> None:
    state = compressnet.load(file_of(coder), into=net(), dtype=None).state_dict()
    assert digests(state) == json.loads(DIGESTS.read_text())


def test_the_files_have_every_kind_of_record_and_every_shape() -> None:
    records = [read(file_of(coder))[2] for coder in CODERS]
    assert set.union(*(each.kinds for each in records)) == set(range(8))
    assert set.union(*(each.shapes for each in records)) == set(range(6))


def frozen_state() -> tuple[dict[str, Tensor], dict[str, Quantiser]]:
    """The tensors of version 1's file, quantised in every way."""
    state = compressnet.load(VERSION_1, into=net()).state_dict()
    quantisers: dict[str, Quantiser] = {}
    for place, (name, tensor) in enumerate(state.items()):
        spread = tensor.float().std().item() if tensor.numel() > 1 else 1.0
        if not tensor.is_floating_point() or not spread > 0:
            continue
        ways: tuple[Quantiser, ...] = (
            Uniform(spread / 8),
            Uniform(spread, rows=tuple(range(-len(tensor) // 2, len(tensor) - len(tensor) // 2))[: len(tensor)]),
            fit_codebook(tensor, 9),
            Codebook((-1.0, -0.25, 0.0, 0.5)),
            Float("float16"),
            Float("bfloat16"),
            Uniform(spread / 2, 3),
        )
        quantisers[name] = ways[place % len(ways)]
    state["fc1.bias"] = torch.full_like(state["fc1.bias"], 0.125)
    state["fc3.bias"] = state["fc2.bias"].clone()
    quantisers |= {"fc1.bias": Float("float32"), "fc3.bias": quantisers["fc2.bias"]}
    buckets = normal(len(state["fc2.bias"]), seed=1).float()
    state["fc4.bias"], quantisers["fc4.bias"] = buckets, Uniform(0.02)
    return on_grid(state, quantisers), quantisers


if __name__ == "__main__":
    state, quantisers = frozen_state()
    described = dataclasses.replace(describe(VERSION_1), stage="exported", recipe={}, results={})
    for coder in CODERS:
        write_coded(state, file_of(coder), described, quantisers, coder)
    DIGESTS.write_text(json.dumps(digests(state), indent=0) + "\n")
