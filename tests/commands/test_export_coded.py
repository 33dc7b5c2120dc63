"""An exported file is small, exact and safe: what is written is what is read, in any process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import compressnet
from compressnet.coding.choose import choose
from compressnet.coding.payload import on_grid
from compressnet.container import read_header
from compressnet.description import describe
from compressnet.digest import seal
from compressnet.errors import FileError
from compressnet.methods import METHODS
from compressnet.recipe import ExportSection

LENET = {"name": "lenet5", "num_classes": 10}
STATES = """
import hashlib, json, sys, torch, compressnet
torch.set_num_threads(int(sys.argv[1]))
for path in sys.argv[2:]:
    model = compressnet.load(path)
    state = {name: t.numpy().tobytes() for name, t in model.state_dict().items()}
    dense = {name: m.weight.detach().numpy().tobytes() for name, m in model.named_modules() if hasattr(m, "structured")}
    print(json.dumps({name: hashlib.sha256(data).hexdigest() for name, data in (state | dense).items()}))
"""


def rule(method: Any) -> dict[str, Any]:
    config = method.config_near((500, 800), 20)
    return {"match": "fc1", "method": method.name, **{key: getattr(config, key) for key in config.model_fields_set}}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """LeNet-5 with its largest layer held by each method."""
    folder = tmp_path_factory.mktemp("methods")
    for method in METHODS:
        compressnet.convert({"model": LENET, "layers": [rule(method)]}, folder / f"{method.name}.safetensors")
    return {method.name: folder / f"{method.name}.safetensors" for method in METHODS}


@pytest.fixture(scope="module")
def exported(converted: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exported")
    for path in converted.values():
        compressnet.export(path, folder / path.name, overrides=["export.bits=4"])
    return {name: folder / path.name for name, path in converted.items()}


def quantised(path: Path, **settings: Any) -> dict[str, Tensor]:
    state = compressnet.load(path).state_dict()
    return on_grid(state, choose(state, describe(path).layers, ExportSection(**settings)))


@pytest.mark.parametrize("threads", [1, 2])
def test_another_process_reads_the_quantised_numbers_bit_for_bit(
    converted: dict[str, Path], exported: dict[str, Path], threads: int
) -> None:
    import hashlib

    command = [sys.executable, "-c", STATES, str(threads), *map(str, exported.values())]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for name, line in zip(exported, lines, strict=True):
        expected = {k: t.numpy().tobytes() for k, t in quantised(converted[name], bits=4).items()}
        model = compressnet.load(exported[name])
        expected["fc1"] = model.get_submodule("fc1").weight.detach().numpy().tobytes()  # type: ignore[union-attr, operator]
        assert json.loads(line) == {k: hashlib.sha256(data).hexdigest() for k, data in expected.items()}, name


def entropy_nbytes(state: dict[str, Tensor]) -> float:
    """The sum of the zero-order entropies of all tensors; of bitmaps that of their bits."""
    total = 0.0
    for tensor in state.values():
        values = np.unpackbits(tensor.numpy()) if tensor.dtype is torch.uint8 else tensor.numpy().ravel()
        counts = np.unique(values, return_counts=True)[1]
        total += len(values) * float(scipy.stats.entropy(counts, base=2)) / 8
    return total


@pytest.mark.parametrize("bits", [2, 4, 6])
@pytest.mark.parametrize("method", [method.name for method in METHODS])
def test_records_and_streams_are_within_a_hundredth_and_100_bytes_of_the_entropy(
    converted: dict[str, Path], tmp_path: Path, method: str, bits: int
) -> None:
    path = tmp_path / "model.safetensors"
    compressnet.export(converted[method], path, overrides=[f"export.bits={bits}"])
    header = read_header(path)
    symbols = header.file_nbytes - header.nbytes - header.index_nbytes
    assert symbols <= 1.01 * entropy_nbytes(quantised(converted[method], bits=bits)) + 100


@pytest.mark.parametrize("bits", [3, 5])
def test_what_is_not_symbols_takes_at_most_600_bytes(tmp_path: Path, bits: int) -> None:
    rules = [
        {"match": "conv1", "method": "hashednet", "ratio": 2},
        {"match": "conv2", "method": "freshnet", "ratio": 8},
        {"match": "fc1", "method": "hashednet", "ratio": 128},
        {"match": "fc2", "method": "hashednet", "ratio": 4},
    ]
    recipe = {"model": LENET, "data": {"dataset": "digits", "image_size": 28}, "layers": rules, "calibration": None}
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    compressnet.export(tmp_path / "a.safetensors", tmp_path / "b.safetensors", overrides=[f"export.bits={bits}"])
    (account,) = compressnet.report(tmp_path / "b.safetensors")
    assert account.overhead.keys() == {"header", "index", "code records"}
    assert sum(account.overhead.values()) <= 600


def test_the_file_carries_the_recipe_and_what_was_measured_only_when_asked(
    converted: dict[str, Path], exported: dict[str, Path], tmp_path: Path
) -> None:
    assert (describe(exported["hashednet"]).recipe, describe(exported["hashednet"]).results) == ({}, {})
    compressnet.export(converted["hashednet"], tmp_path / "a.safetensors", with_recipe=True)
    described = describe(tmp_path / "a.safetensors")
    assert described.recipe["layers"] == [rule(METHODS[1])]
    assert described.results.keys() == {"projection_errors"}


def test_an_exported_file_is_exported_again_and_trained_as_any_other(exported: dict[str, Path], tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    compressnet.export(exported["pruned"], again, dtype="float32")
    before, after = (compressnet.load(path).state_dict() for path in (exported["pruned"], again))
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    data = ["data.dataset=digits", "data.image_size=28", "finetune.epochs=1", "data.batch_size=256"]
    compressnet.finetune(exported["pruned"], tmp_path / "run", overrides=data)
    compressnet.load(tmp_path / "run" / "best.safetensors")


def test_bits_of_a_rule_are_those_of_its_layer(tmp_path: Path) -> None:
    rules = [{"match": "fc1", "method": "hashednet", "ratio": 16, "bits": 2}]
    compressnet.convert({"model": LENET, "layers": rules}, tmp_path / "a.safetensors")
    compressnet.export(tmp_path / "a.safetensors", tmp_path / "b.safetensors", overrides=["export.bits=6"])
    state = compressnet.load(tmp_path / "b.safetensors").state_dict()
    assert state["fc1.structured.buckets"].unique().numel() == 3
    assert 31 < state["conv2.weight"].unique().numel() <= 63


def test_a_number_that_is_not_finite_is_an_error_before_anything_is_written(
    converted: dict[str, Path], tmp_path: Path
) -> None:
    model = compressnet.load(converted["lowrank"])
    with torch.no_grad():
        model.conv1.bias[0] = float("nan")  # type: ignore[union-attr, index, operator]
    compressnet.save(model, tmp_path / "nan.safetensors")
    with pytest.raises(FileError, match=r"conv1.bias holds numbers that are not finite\n.*lower lr"):
        compressnet.export(tmp_path / "nan.safetensors", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_changed_byte_anywhere_is_noticed(exported: dict[str, Path], tmp_path: Path) -> None:
    data = exported["lowrank"].read_bytes()
    for place in np.random.default_rng(0).integers(0, len(data), 60):
        changed = bytearray(data)
        changed[place] ^= 1 << int(place) % 8
        (tmp_path / "x.safetensors").write_bytes(changed)
        with pytest.raises(FileError):
            compressnet.load(tmp_path / "x.safetensors")


def test_a_changed_byte_with_a_digest_that_fits_is_refused_or_gives_other_numbers(
    exported: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    header = read_header(exported["pruned"])
    data, blank = exported["pruned"].read_bytes(), str(header.meta["sha256"]).encode()
    for place in np.random.default_rng(1).integers(header.nbytes, len(data), 150):
        changed = bytearray(data.replace(blank, b"0" * 64))
        changed[place] ^= 1 << int(place) % 8
        path.write_bytes(changed)
        try:
            seal(path)
            compressnet.load(path)
        except FileError:
            continue


def test_an_index_that_inflates_to_too_much_is_refused(exported: dict[str, Path], tmp_path: Path) -> None:
    import zlib

    from compressnet.index import DICTIONARY

    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15, 9, 0, DICTIONARY)
    bomb = squeeze.compress(b'{"stage":"' + b"a" * (1 << 26)) + squeeze.flush()
    header = read_header(exported["pruned"])
    head = exported["pruned"].read_bytes()[: header.nbytes]
    size = header.file_nbytes - header.nbytes
    payload = (len(bomb).to_bytes(4, "little") + bomb).ljust(size, b"\0")
    length = len(payload) - size
    text = head[8:].replace(f"[{size}]".encode(), f"[{size + length}]".encode())
    text = text.replace(f"[0,{size}]".encode(), f"[0,{size + length}]".encode())
    (tmp_path / "bomb.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + payload)
    with pytest.raises(FileError, match="its index is damaged"):
        compressnet.load(tmp_path / "bomb.safetensors")
