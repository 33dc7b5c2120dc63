"""A file of format version 1 that is kept for ever: every method and block, and the outputs it had when it was written.

python tests/frozen/test_version_1.py    # wrote it; never again
"""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import compressnet
from compressnet.blocks import BLOCKS
from compressnet.description import describe
from compressnet.errors import FileError
from compressnet.methods import METHODS
from compressnet.rewrite import pack_

FILE = Path(__file__).with_name("version_1.safetensors")
OUTPUTS = Path(__file__).with_name("version_1.json")
RULES = [
    {"match": "conv1", "method": "freshnet", "ratio": 4},
    {"match": "conv2", "method": "dropfreq", "ratio": 4},
    {"match": "conv3", "method": "dropfilt", "ratio": 2, "grouped": True},
    {"match": "conv4", "method": "lowrank", "ratio": 2, "scheme": "separable"},
    {"match": "fc1", "method": "hashednet", "ratio": 16},
    {"match": "fc2", "method": "deepfried", "copies": 2},
    {"match": "fc3", "method": "monarch", "blocks": 4},
    {"match": "fc4", "method": "acdc", "depth": 3},
    {"match": "fc5", "method": "pruned", "density": 0.1},
    {"match": ["fc6", "relu6"], "block": "deepfried_head", "features": 64},
    {"match": ["fc8", "relu8"], "block": "acdc_stack", "depth": 2},
    {"match": "fc7", "method": "freshnet", "ratio": 4, "hashing": "independent"},
]


def net() -> nn.Sequential:
    made = nn.Sequential()
    for number, (ins, outs, groups) in enumerate([(1, 8, 1), (8, 8, 1), (8, 12, 2), (12, 8, 1)], 1):
        made.add_module(f"conv{number}", nn.Conv2d(ins, outs, (3, 5) if number == 1 else 3, padding=1, groups=groups))
    made.add_module("pool", nn.AdaptiveAvgPool2d(4))
    made.add_module("flat", nn.Flatten())
    for number, (ins, outs) in enumerate([(128, 40)] + 4 * [(40, 40)] + [(40, 48), (48, 24), (24, 24), (24, 10)], 1):
        made.add_module(f"fc{number}", nn.Linear(ins, outs))
        if number in (6, 8):
            made.add_module(f"relu{number}", nn.ReLU())
    return made


def inputs() -> Tensor:
    return torch.linspace(0, 500, 2 * 12 * 12).sin().view(2, 1, 12, 12)


def test_the_file_holds_every_method_and_block() -> None:
    description = describe(FILE)
    assert {layer.method for layer in description.layers} >= {method.name for method in METHODS}
    (pruned,) = [layer for layer in description.layers if layer.method == "pruned"]
    assert "codes" in (pruned.config or {})
    assert {block.block for block in description.blocks} == {block.name for block in BLOCKS}


def test_the_file_gives_what_it_gave_when_it_was_written() -> None:
    loaded = compressnet.load(FILE, into=net())
    with torch.no_grad():
        torch.testing.assert_close(loaded(inputs()), torch.tensor(json.loads(OUTPUTS.read_text())), atol=1e-4, rtol=0)


@pytest.mark.parametrize("read", [compressnet.report, compressnet.load])
def test_the_draft_before_it_is_refused(read: object, tmp_path: Path) -> None:
    draft = tmp_path / "draft.safetensors"
    data = FILE.read_bytes().replace(rb"{\"format\":1,", rb"{\"format\":0,", 1)
    draft.write_bytes(data)
    assert data != FILE.read_bytes()
    with pytest.raises(FileError, match="format version 0, which was never frozen"):
        read(draft)  # type: ignore[operator]


if __name__ == "__main__":
    torch.manual_seed(0)
    dense = net()
    for weight in dense.parameters():
        if weight.dim() > 1:
            nn.init.kaiming_normal_(weight)  # so that the inputs are felt at the end
    module = compressnet.compress(dense, {"layers": RULES}).eval()
    description = module._compressnet
    module._compressnet = dataclasses.replace(description, layers=pack_(module, description.layers))
    compressnet.save(module, FILE, force=True)
    with torch.no_grad():
        OUTPUTS.write_text(json.dumps(module(inputs()).tolist()) + "\n")
