"""A reader of coded files written from docs/format.md alone, with numpy, json and zlib: it finds every number."""

import bisect
import hashlib
import json
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import compressnet
from compressnet.coding import tensors
from compressnet.coding.quantisers import Codebook, Quantiser, Uniform
from compressnet.coding.symbols import Coder
from compressnet.index import DICTIONARY

PAGE = Path(__file__).parent.parent.parent / "docs" / "format.md"
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "u1"}
FULL = 2**64 - 1


class Record:
    """Reads numbers from a record."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0
        self.kinds: set[int] = set()
        self.shapes: set[int] = set()

    def take(self, nbytes: int) -> bytes:
        self.place += nbytes
        return self.data[self.place - nbytes : self.place]

    def byte(self) -> int:
        return self.take(1)[0]

    def count(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.byte()
            value += (byte % 128) << shift
            shift += 7
            if byte < 128:
                return value

    def whole(self) -> int:
        count = self.count()
        return count // 2 if count % 2 == 0 else -(count + 1) // 2

    def levels(self, kinds: int) -> list[int]:
        differences, order = divmod(self.byte(), 16)
        bits = "".join(f"{byte:08b}" for byte in self.data[self.place :])
        at, values = 0, []
        for _ in range(kinds):
            zeros = bits.index("1", at) - at
            width = zeros + 1 + order
            folded = int(bits[at + zeros : at + zeros + width], 2) - 2**order
            at += zeros + width
            values.append(folded // 2 if folded % 2 == 0 else -(folded + 1) // 2)
        self.place += math.ceil(at / 8)
        for _ in range(differences):
            values = np.cumsum(values).tolist()
        return values


def masses(shape: int, lowest: int, kinds: int, record: Record) -> list[int]:
    if shape == 0:
        return [1] * kinds
    if shape == 3:
        return [(4 + (level - 1) % 4) * 2 ** ((level - 1) // 4) if level else 0 for level in record.levels(kinds)]
    first = int.from_bytes(record.take(2), "little")
    at, ratio = [2**30], first
    for _ in range(kinds + abs(lowest)):
        at.append(at[-1] * ratio // 2**16)
        ratio = ratio if shape == 1 else ratio * (first * first // 2**16) // 2**16
    symbols = range(lowest, lowest + kinds)
    peak = min(symbols, key=abs)
    return [max(1, at[abs(symbol - peak)]) if symbol != peak else 2**30 for symbol in symbols]


def weights_of(mass: list[int]) -> list[int]:
    weights = [1 + each * (2**24 - len(mass)) // sum(mass) for each in mass]
    weights[mass.index(max(mass))] += 2**24 - sum(weights)
    return weights


def decode_range(stream: bytes, weights: list[int], count: int) -> list[int]:
    def words() -> Iterator[int]:
        for place in range(0, len(stream), 4):
            yield int.from_bytes(stream[place : place + 4].ljust(4, b"\0"), "big")
        while True:
            yield 0

    following, starts = words(), [0, *np.cumsum(weights).tolist()]
    low, width, point = 0, FULL, next(following) * 2**32 + next(following)
    found = []
    for _ in range(count):
        unit = width // 2**24
        kind = bisect.bisect_right(starts, (point - low & FULL) // unit) - 1
        low, width = low + unit * starts[kind] & FULL, unit * weights[kind]
        if width < 2**32:
            low, width, point = low << 32 & FULL, width << 32, (point << 32 & FULL) + next(following)
        found.append(kind)
    return found


def decode_huffman(stream: bytes, lengths: list[int], count: int) -> list[int]:
    table, code, before = {}, 0, 0
    for length, kind in sorted((length, kind) for kind, length in enumerate(lengths) if length):
        code <<= length - before
        table[f"{code:0{length}b}"] = kind
        code, before = code + 1, length
    found, given = [], ""
    for bit in "".join(f"{byte:08b}" for byte in stream):
        given += bit
        if given in table and len(found) < count:
            found.append(table[given])
            given = ""
    return found


def symbols(record: Record, stream: bytes, count: int) -> np.ndarray:
    shape = record.byte()
    record.shapes.add(shape)
    if shape == 5:
        return np.frombuffer(stream, np.uint8).astype(np.int64)
    lowest, kinds = record.whole(), record.count() + 1
    if shape == 4:
        found = decode_huffman(stream, record.levels(kinds), count)
    else:
        weights = weights_of(masses(shape, lowest, kinds, record))
        found = decode_range(stream, weights, count) if kinds > 1 else [0] * count
    return np.array(found, dtype=np.int64) + lowest


def numbers(record: Record, entry: list[Any], streams: list[bytes], earlier: list[np.ndarray]) -> np.ndarray:
    shape, dtype = entry[1], (entry[3:] or ["F32"])[0]
    kind, count = record.byte(), math.prod(shape)
    record.kinds.add(kind)
    if kind == 0:
        size = np.dtype(DTYPES[dtype]).itemsize
        return np.full(shape, np.frombuffer(record.take(size), DTYPES[dtype])[0])
    if kind == 1:
        return earlier[record.count()]
    if kind == 2:
        planes = [symbols(record, stream, count).astype(np.uint8) for stream in streams]
        return np.frombuffer(np.stack(planes, 1).tobytes(), DTYPES[dtype]).reshape(shape)
    if kind == 7:
        bits, codes = record.byte(), record.count()
        kept, place = np.zeros(8 * count, dtype=np.uint8), 0
        for code in symbols(record, streams[0], codes).tolist():
            place += code
            if code < 2**bits - 1:
                kept[place] = 1
                place += 1
        return np.packbits(kept, bitorder="little").reshape(shape)
    if kind in (5, 6):
        levels, form = record.count(), "f" if kind == 5 else "e"
        table = struct.unpack(f"<{levels}{form}", record.take(levels * struct.calcsize(form)))
        return np.array(table, dtype=np.float32)[symbols(record, streams[0], count)].reshape(shape)
    step = np.frombuffer(record.take(4), "<f4")[0]
    steps = np.full(1, step)
    if kind == 4:
        factors = [(1 + k % 4 / 4) * 2.0 ** (k // 4) for k in symbols(record, streams[0], shape[0]).tolist()]
        steps = step * np.array(factors, dtype=np.float32)
    each = symbols(record, streams[-1], count).astype(np.float32).reshape(shape)
    return each * steps.reshape(-1, *[1] * (len(shape) - 1))


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], Record]:
    """The index, the tensors and the records of a coded file."""
    data = path.read_bytes()
    n = int.from_bytes(data[:8], "little")
    text = json.loads(data[8 : 8 + n])["__metadata__"]["compressnet"]
    assert json.loads(text).keys() == {"format", "sha256"}
    place = data.index(b'sha256\\":\\"') + 11
    blank = data[:place] + b"0" * 64 + data[place + 64 :]
    assert hashlib.sha256(blank).hexdigest() == json.loads(text)["sha256"]
    payload = data[8 + n :]
    m = int.from_bytes(payload[:4], "little")
    index = json.loads(zlib.decompressobj(-15, DICTIONARY).decompress(payload[4 : 4 + m]))
    records, at = Record(payload[4 + m : 4 + m + index["records"]]), 4 + m + index["records"]
    found: dict[str, np.ndarray] = {}
    for entry in index["tensors"]:
        streams = []
        for nbytes in entry[2]:
            streams.append(payload[at : at + nbytes])
            at += nbytes
        found[entry[0]] = numbers(records, entry, streams, list(found.values()))
    assert at == len(payload)
    assert records.place == len(records.data)
    return index, found, records


SETTINGS = {
    "as they are": [],
    "as they are, in bfloat16": ["export.dtype=bfloat16"],
    "few bits": ["export.bits=3"],
    "rows": ["export.bits=5", "export.group=row"],
    "codebooks": ["export.bits=4", "export.quantiser=codebook"],
    "Huffman codes": ["export.bits=4", "export.quantiser=codebook", "export.coder=huffman"],
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("coded") / "converted.safetensors"
    rules = [
        {"match": "conv2", "method": "freshnet", "ratio": 8},
        {"match": "fc1", "method": "hashednet", "ratio": 256},
        {"match": "fc2", "method": "pruned", "density": 0.1},
    ]
    compressnet.convert({"model": {"name": "lenet5", "num_classes": 10}, "layers": rules, "seed": 3}, path)
    return path


@pytest.mark.parametrize("name", SETTINGS)
def test_a_reader_written_from_the_page_finds_every_number(converted: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.safetensors"
    compressnet.export(converted, path, overrides=SETTINGS[name])
    state = compressnet.load(path, dtype=None).state_dict()
    index, found, _ = read(path)
    assert found.keys() == state.keys()
    for tensor, ours in state.items():
        bits = ours.view(torch.int16) if ours.dtype is torch.bfloat16 else ours
        assert np.array_equal(found[tensor].astype(bits.numpy().dtype), bits.numpy()), tensor
    assert (index["seed"], [entry["name"] for entry in index["plan"]]) == (3, ["conv1", "conv2", "fc1", "fc2"])


@pytest.mark.parametrize(
    ("coder", "quantiser", "record", "stream"),
    [
        ("range", Uniform(0.5), "03 0000003f 00 01 03", "91 70"),
        ("huffman", Uniform(0.5), "03 0000003f 04 01 03 03 ea ec", "ec 40"),
    ],
)
def test_the_vectors_of_the_page_are_ours(coder: Coder, quantiser: Quantiser, record: str, stream: str) -> None:
    assert f"| `{record}` | `{stream}` |" in PAGE.read_text(encoding="utf-8")
    given = torch.tensor([0.5, 0, -0.5, 0, 0, 1])
    made = tensors.encode(given, quantiser, coder)
    assert (made.record, made.streams) == (bytes.fromhex(record), (bytes.fromhex(stream),))
    back = numbers(Record(made.record), ["a", [6], []], list(made.streams), [])
    assert back.tolist() == given.tolist()


def test_the_page_has_the_digest_of_the_dictionary() -> None:
    assert hashlib.sha256(DICTIONARY).hexdigest() in PAGE.read_text(encoding="utf-8")


def test_codebooks_of_halves_and_of_floats_are_read() -> None:
    for levels, kind in (((-0.5, 0.25, 1.5), 6), ((-0.1, 0.3), 5)):
        given = torch.tensor(levels).repeat(5)
        made = tensors.encode(given, Codebook(levels))
        assert made.record[0] == kind
        assert np.array_equal(
            numbers(Record(made.record), ["a", [len(given)], []], list(made.streams), []), given.numpy()
        )
