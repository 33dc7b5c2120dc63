import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import compressnet
from compressnet.container import KEY, read_header
from compressnet.digest import BLANK, digest, seal
from compressnet.errors import CompressnetError, FileError
from compressnet.layers import CompressedLayer


@pytest.fixture
def converted(lenet: dict[str, Any], tmp_path: Path) -> Path:
    del lenet["pretrain"]
    compressnet.convert(lenet, tmp_path / "converted.safetensors", overrides=["data=null"])
    return tmp_path / "converted.safetensors"


def dense_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: m.weight.detach() for n, m in model.named_modules() if isinstance(m, CompressedLayer)}


def rewrite_metadata(path: Path, change: Any) -> None:
    """Write the file again with changed metadata and a digest that fits."""
    meta = dict(read_header(path).meta)
    change(meta)
    meta["sha256"] = BLANK
    save_file(load_file(path), path, {KEY: json.dumps(meta, separators=(",", ":"))})
    data = path.read_bytes()
    header_nbytes = 8 + int.from_bytes(data[:8], "little")
    value, place = digest(path, header_nbytes, BLANK)
    path.write_bytes(data[:place] + value.encode() + data[place + 64 :])


PRINT_WEIGHTS = """
import sys, hashlib, torch, compressnet
from compressnet.layers import CompressedLayer
torch.set_num_threads(int(sys.argv[2]))
model = compressnet.load(sys.argv[1])
for name, module in model.named_modules():
    if isinstance(module, CompressedLayer):
        print(name, hashlib.sha256(module.weight.detach().numpy().tobytes()).hexdigest())
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_another_process_loads_bit_identical_dense_weights(converted: Path, threads: str) -> None:
    import hashlib

    here = [
        f"{name} {hashlib.sha256(weight.numpy().tobytes()).hexdigest()}"
        for name, weight in dense_weights(compressnet.load(converted)).items()
    ]
    there = subprocess.run(
        [sys.executable, "-c", PRINT_WEIGHTS, str(converted), threads], capture_output=True, text=True, check=True
    )
    assert there.stdout.split("\n")[:-1] == here
    assert len(here) == 3


def test_two_conversions_of_one_recipe_give_the_same_bytes(lenet: dict[str, Any], tmp_path: Path) -> None:
    for name in ("a", "b"):
        compressnet.convert(lenet, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_loaded_model_is_ready_for_inference_or_training(converted: Path) -> None:
    model = compressnet.load(converted)
    assert not model.training
    frozen = [m.structured._frozen is not None for m in model.modules() if isinstance(m, CompressedLayer)]
    assert frozen == [True, False, True]  # deepfried runs as a product
    fresh = compressnet.load(converted, form="compressed").train()
    fresh(torch.randn(2, 1, 28, 28)).sum().backward()
    assert all(p.grad is not None for p in fresh.parameters())


def test_no_index_tables_are_stored(converted: Path) -> None:
    assert all(span.dtype == "F32" for span in read_header(converted).spans.values())


def test_a_file_says_what_it_is_with_one_metadata_entry(converted: Path) -> None:
    header = read_header(converted)
    assert header.meta["stage"] == "converted"
    assert header.meta["model"]["name"] == "lenet5"
    assert header.meta["versions"].keys() == {"compressnet", "torch", "torchvision"}
    raw = json.loads(converted.read_bytes()[8 : header.nbytes])
    assert list(raw["__metadata__"]) == ["compressnet"]


@pytest.mark.parametrize("place", ["metadata", "tensor table", "payload"])
def test_a_changed_byte_anywhere_is_noticed(converted: Path, place: str) -> None:
    data = bytearray(converted.read_bytes())
    nbytes = read_header(converted).nbytes
    if place == "payload":
        data[nbytes + 100] ^= 1
    else:
        old, new = {
            "metadata": (b"deepfried", b"deepfrIed"),
            "tensor table": (b"conv1.bias", b"conv1.bIas"),
        }[place]
        assert old in data
        data = data.replace(old, new, 1)
    converted.write_bytes(data)
    with pytest.raises(CompressnetError):
        compressnet.load(converted)


def test_a_changed_payload_is_named_as_such(converted: Path) -> None:
    data = bytearray(converted.read_bytes())
    data[-1] ^= 1
    converted.write_bytes(data)
    with pytest.raises(FileError, match="SHA-256 does not match"):
        compressnet.load(converted)


@pytest.mark.parametrize("kept", [0, 5, 500, -1])
def test_a_truncated_file_is_refused(converted: Path, kept: int) -> None:
    converted.write_bytes(converted.read_bytes()[:kept])
    with pytest.raises(FileError, match="truncated"):
        compressnet.load(converted)


def test_a_longer_file_is_refused(converted: Path) -> None:
    converted.write_bytes(converted.read_bytes() + b"x")
    with pytest.raises(FileError, match="longer than it says"):
        compressnet.load(converted)


def test_a_newer_format_is_refused_with_the_cure(converted: Path) -> None:
    data = converted.read_bytes()
    converted.write_bytes(data.replace(b'{\\"format\\":1', b'{\\"format\\":9', 1))
    with pytest.raises(FileError, match=r"format version 9.*\n.*pip install --upgrade"):
        compressnet.load(converted)


def test_a_header_that_only_safetensors_refuses_is_told(converted: Path) -> None:
    header, whole = read_header(converted), converted.read_bytes()
    table = json.loads(whole[8 : header.nbytes].replace(str(header.meta["sha256"]).encode(), BLANK.encode()))
    table["__metadata__"]["more"] = 1  # it takes texts only
    text = json.dumps(table).encode()
    converted.write_bytes(len(text).to_bytes(8, "little") + text + whole[header.nbytes :])
    seal(converted)
    with pytest.raises(FileError, match=r"cannot be read: .*invalid type"):
        compressnet.load(converted)


def test_foreign_files_are_told_apart(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "plain.safetensors")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pickle.pth")
    (tmp_path / "text.txt").write_text("a text that is long enough to be read as a header")
    for name, kind in [
        ("plain.safetensors", "one of compressnet's"),
        ("pickle.pth", "PyTorch pickle"),
        ("text.txt", "safetensors"),
    ]:
        with pytest.raises(FileError, match=kind):
            compressnet.load(tmp_path / name)


def huge_classes(meta: dict[str, Any]) -> None:
    meta["model"]["num_classes"] = 10**9


def unknown_model(meta: dict[str, Any]) -> None:
    meta["model"]["name"] = "os.system"


def huge_layer(meta: dict[str, Any]) -> None:
    meta["plan"][2]["shape"] = [10**6, 10**6]


def unknown_layer(meta: dict[str, Any]) -> None:
    meta["plan"][2]["name"] = "fc9"


def unknown_method(meta: dict[str, Any]) -> None:
    meta["plan"][2]["method"] = "deepfrid"


def wrong_ratio(meta: dict[str, Any]) -> None:
    meta["plan"][1]["config"]["ratio"] = 2


def no_plan(meta: dict[str, Any]) -> None:
    del meta["plan"]


@pytest.mark.parametrize(
    "change", [huge_classes, unknown_model, huge_layer, unknown_layer, unknown_method, wrong_ratio, no_plan]
)
def test_a_header_is_not_trusted(converted: Path, change: Any) -> None:
    rewrite_metadata(converted, change)
    with pytest.raises(FileError):
        compressnet.load(converted)


def into(*keys: Any) -> Any:
    """What makes a change of the value at a path of keys."""

    def with_value(value: Any) -> Any:
        def change(meta: Any) -> None:
            *path, last = keys
            for key in path:
                meta = meta[key]
            meta[last] = value

        return change

    return with_value


METADATA = "its compressnet metadata is damaged"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (into("results", "finetuned")(3), METADATA),
        (into("results", "finetuned")({"test": {"top1": "x", "count": 3}}), METADATA),
        (into("results", "finetuned")({"test": {"top1": 90.0}}), METADATA),
        (into("results", "projection_errors", "fc1")("abc"), METADATA),
        (into("results", "projection_errors", "fc1")(float("nan")), METADATA),
        (into("results")([]), METADATA),
        (into("format")(-1), METADATA),
        (into("format")(True), METADATA),
        (into("format")("0"), METADATA),
        (into("stage")(None), METADATA),
        (into("stage")("shipped"), METADATA),
        (into("classes")("0123456789"), METADATA),
        (into("classes")([0, 1]), METADATA),
        (into("model", "name")(7), METADATA),
        (into("recipe")([]), METADATA),
        (into("quantisers")([1]), METADATA),
        (into("quantisers")({"fc1.bias": 3}), METADATA),
        (into("plan")({}), METADATA),
        (into("plan", 0)(None), METADATA),
        (into("plan", 2, "macs")("x"), "its plan of fc1 is damaged"),
        (into("plan", 2, "macs")(10**40), "its plan of fc1 is damaged"),
        (into("plan", 2, "shape")([-1, 2]), "its plan of fc1 is damaged"),
        (into("plan", 2, "shape")([True, 2]), "its plan of fc1 is damaged"),
        (into("plan", 2, "shape")([]), "its plan of fc1 is damaged"),
        (into("plan", 2, "groups")(0), "its plan of fc1 is damaged"),
        (into("plan", 2, "remark")(3), "its plan of fc1 is damaged"),
    ],
)
def test_metadata_of_other_types_are_refused_by_load_and_report_alike(
    converted: Path, change: Any, message: str
) -> None:
    rewrite_metadata(converted, change)
    for read in (compressnet.load, compressnet.report):
        with pytest.raises(FileError, match=message):
            read(converted)


@pytest.mark.parametrize(
    "quantiser",
    [
        {"kind": "none"},
        {"kind": "uniform"},
        {"kind": "uniform", "step": "x"},
        {"kind": "uniform", "step": -1.0},
        {"kind": "uniform", "step": 10**400},
        {"kind": "uniform", "step": 1.0, "most": 10**9},
        {"kind": "codebook", "levels": [1.0, 0.0]},
        {"kind": "float", "dtype": "complex64"},
    ],
)
def test_a_quantiser_that_is_none_is_refused(converted: Path, quantiser: dict[str, Any]) -> None:
    rewrite_metadata(converted, into("quantisers")({"fc1.bias": quantiser}))
    with pytest.raises(FileError, match=METADATA):
        compressnet.load(converted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: meta["plan"].pop(0), "its plan does not name conv1"),
        (lambda meta: meta["plan"].append(meta["plan"][0]), "its plan names a layer twice"),
        (into("plan", 0, "groups")(2), "its plan of conv1 is not of the model's layer"),
        (into("plan", 0, "kind")("linear"), "its plan of conv1 is not of the model's layer"),
    ],
)
def test_a_plan_that_is_not_of_the_models_layers_is_refused(converted: Path, change: Any, message: str) -> None:
    rewrite_metadata(converted, change)
    with pytest.raises(FileError, match=message):
        compressnet.load(converted)


@pytest.mark.parametrize(
    ("key", "value"),
    [("dtype", [1]), ("data_offsets", [0.5, 40]), ("data_offsets", [0]), ("shape", "20"), ("shape", [True, 20])],
)
def test_a_table_of_tensors_of_other_types_is_refused(converted: Path, key: str, value: Any) -> None:
    data = converted.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    table = json.loads(data[8:end])
    table["conv1.bias"][key] = value
    header = json.dumps(table).encode()
    converted.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])
    for read in (compressnet.load, compressnet.report):
        with pytest.raises(FileError, match="not a safetensors file"):
            read(converted)


def test_a_file_that_is_there_is_not_overwritten_and_a_failure_leaves_nothing(converted: Path) -> None:
    before = converted.read_bytes()
    model = compressnet.load(converted)
    with pytest.raises(FileError, match="exists already"):
        compressnet.save(model, converted)
    assert converted.read_bytes() == before
    assert [path.name for path in converted.parent.iterdir()] == [converted.name]


def test_a_loaded_model_saves_to_the_same_bytes(converted: Path, tmp_path: Path) -> None:
    compressnet.save(compressnet.load(converted), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == converted.read_bytes()


def test_others_may_read_a_file_as_any_other_new_file(converted: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    assert converted.stat().st_mode == (tmp_path / "plain").stat().st_mode
