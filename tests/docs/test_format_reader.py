"""A reader written from docs/format.md alone, with numpy and json: it opens files and finds every dense weight."""

import hashlib
import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import compressnet
from compressnet.blocks import BY_NAME as BLOCK_BY_NAME
from compressnet.layers import CompressedLayer
from compressnet.methods import BY_NAME
from tests.conftest import LENET

Words = Any  # numpy arrays of uint32, or Python integers

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}


def mix(word: Words, key: tuple[int, int] = (0, 0)) -> Words:
    """In 64-bit words, whose lower halves are what the page says."""
    low, high = key
    full = 0xFFFFFFFF
    x = word ^ low
    x ^= x >> 17
    x = (x * 0xED5AD4BB + high) & full
    x ^= x >> 11
    x = (x * 0xAC4C1B51) & full
    x ^= x >> 15
    x = (x * 0x31848BAB) & full
    return x ^ (x >> 14)


def derive(seed: int, *words: int) -> int:
    state = mix(seed & 0xFFFFFFFF)
    for word in words:
        state = mix(word & 0xFFFFFFFF, (state, mix(state ^ 0x9E3779B9)))
    return int(state)


def words_of(numel: int, seed: int, purpose: int, stream: int) -> np.ndarray:
    key = derive(seed, purpose, stream, 0), derive(seed, purpose, stream, 1)
    return mix(np.arange(numel, dtype=np.int64), key)


def permutation(n: int, seed: int, purpose: int, stream: int = 0) -> np.ndarray:
    bits = max(1, (n - 1).bit_length())
    shift, mask = math.ceil(bits / 3), (1 << bits) - 1
    rounds = [(derive(seed, purpose, stream, r, 0) | 1, derive(seed, purpose, stream, r, 1)) for r in range(8)]

    def step(v: np.ndarray) -> np.ndarray:
        for multiply, add in rounds:
            v = (v * (multiply & mask) + add) & mask
            v = v ^ (v >> shift)
        return v

    values = step(np.arange(n, dtype=np.int64))
    while (outside := values >= n).any():
        values[outside] = step(values[outside])
    return values


def buckets_of(numel: int, count: int, seed: int, stream: int, hashing: str) -> np.ndarray:
    if hashing == "independent":
        return words_of(numel, seed, 1, stream) * count >> 32
    tiles = -(-count // max(1, 2**20 * count // numel))
    edges = [count * t // tiles for t in range(tiles + 1)]
    starts = [numel * k // count for k in edges]
    parts = []
    for t in range(tiles):
        order = permutation(starts[t + 1] - starts[t], derive(seed, stream, t), 1)
        parts.append(edges[t] + order % (edges[t + 1] - edges[t]))
    return np.concatenate(parts)


def read_by(values: np.ndarray, numel: int, seed: int, stream: int, hashing: str) -> np.ndarray:
    """The signed value of every position."""
    negative = words_of(numel, seed, 2, stream) >> 31
    return np.where(negative == 1, -1.0, 1.0) * values[buckets_of(numel, len(values), seed, stream, hashing)]


def shared_out(total: int, numels: list[int], alpha: float, beta: float) -> list[int]:
    bands = len(numels)
    x = [(j + 0.5) / bands for j in range(bands)]
    p = [v ** (alpha - 1) * (1 - v) ** (beta - 1) for v in x]
    w = [n * max(1, round(v / max(p) * 2**20)) for n, v in zip(numels, p, strict=True)]
    fixed: dict[int, int] = {}
    while True:
        free = [j for j in range(bands) if j not in fixed]
        rest, whole = total - sum(fixed.values()), sum(w[j] for j in free)
        over = [j for j in free if rest * w[j] > numels[j] * whole]
        under = [j for j in free if rest * w[j] < whole]
        if not over and not under:
            break
        if sum(rest * w[j] - numels[j] * whole for j in over) >= sum(whole - rest * w[j] for j in under):
            fixed.update({j: numels[j] for j in over})
        else:
            fixed.update(dict.fromkeys(under, 1))
    counts = [fixed.get(j, rest * w[j] // whole) for j in range(bands)]
    for j in sorted(free, key=lambda j: (-(rest * w[j] % whole), j))[: total - sum(counts)]:
        counts[j] += 1
    return counts


def dct(n: int) -> np.ndarray:
    matrix = [[math.cos(math.pi * (2 * i + 1) * j / (2 * n)) for i in range(n)] for j in range(n)]
    return np.array(matrix) * np.array([math.sqrt((1 if j == 0 else 2) / n) for j in range(n)])[:, None]


def freshnet(layer: dict[str, Any], tensors: dict[str, np.ndarray]) -> np.ndarray:
    config, seed = layer["config"], layer["seed"]
    out, ins, h, w = (*layer["shape"], 1, 1)[:4]
    cells = [[(a, j - a) for a in range(h) if 0 <= j - a < w] for j in range(h + w - 1)]
    numels = [out * ins * len(band) for band in cells]
    total = max(len(cells), int(sum(numels) / config["ratio"]))
    counts = shared_out(total, numels, config["alpha"], config["beta"])
    V, first = np.empty((out * ins, h, w)), 0
    for j, band in enumerate(cells):
        values = tensors["buckets"][first : first + counts[j]]
        read = read_by(values, numels[j], seed, j, config["hashing"]).reshape(-1, len(band))
        for s, (a, b) in enumerate(band):
            V[:, a, b] = read[:, s]
        first += counts[j]
    assert first == len(tensors["buckets"])
    return (dct(h).T @ V @ dct(w)).reshape(layer["shape"])


def hashednet(layer: dict[str, Any], tensors: dict[str, np.ndarray]) -> np.ndarray:
    numel = math.prod(layer["shape"])
    assert len(tensors["buckets"]) == max(1, int(numel / layer["config"]["ratio"]))
    return read_by(tensors["buckets"], numel, layer["seed"], 0, layer["config"]["hashing"]).reshape(layer["shape"])


def deepfried(layer: dict[str, Any], tensors: dict[str, np.ndarray]) -> np.ndarray:
    out, ins = layer["shape"][0], math.prod(layer["shape"][1:])
    d = 1
    while d < ins:
        d *= 2
    H = np.array([[1.0]])
    while len(H) < d:
        H = np.block([[H, H], [H, -H]])
    H = H / math.sqrt(d)
    sigma = layer["config"]["sigma"] or math.sqrt(ins / 2)
    copies, blocks, W = layer["config"]["copies"], -(-out // d), np.zeros((out, ins))
    for c in range(copies):
        rows = []
        for k in range(c * blocks, (c + 1) * blocks):
            B = H[:, :ins] * tensors["signs"][k]
            order = permutation(d, derive(layer["seed"], k), 5)
            rows.append(H @ (tensors["gauss"][k][:, None] * B[order]))
        W += math.sqrt(d / copies) / sigma * tensors["scale"][c][:, None] * np.concatenate(rows)[:out]
    return W.reshape(layer["shape"])


def lowrank(layer: dict[str, Any], tensors: dict[str, np.ndarray]) -> np.ndarray:
    out, ins, h, w = (*layer["shape"], 1, 1)[:4]
    separable = layer["config"]["scheme"] == "separable"
    rows, columns = (out * w, ins * h) if separable else (out, ins * h * w)
    rank = layer["config"]["rank"] or int(rows * columns / layer["config"]["ratio"] // (rows + columns))
    assert tensors["right"].shape == (rank, columns)
    W = tensors["left"] @ tensors["right"]
    return (W.reshape(out, w, ins, h).transpose(0, 2, 3, 1) if separable else W).reshape(layer["shape"])


def dropfreq(layer: dict[str, Any], tensors: dict[str, np.ndarray]) -> np.ndarray:
    out, ins, h, w = (*layer["shape"], 1, 1)[:4]
    V, rest = np.zeros((out * ins, h, w)), max(1, int(out * ins * h * w / layer["config"]["ratio"]))
    assert rest == len(tensors["values"])
    values = iter(tensors["values"])
    for j in range(h + w - 1):
        band = [(a, j - a) for a in range(h) if 0 <= j - a < w]
        numel = out * ins * len(band)
        kept = np.ones(numel, bool) if rest >= numel else permutation(numel, layer["seed"], 5, j) < rest
        for p in np.flatnonzero(kept):
            V[p // len(band), *band[p % len(band)]] = next(values)
        rest -= kept.sum()
    return (dct(h).T @ V @ dct(w)).reshape(layer["shape"])


def marked(numel: int, bitmap: np.ndarray) -> list[int]:
    assert len(bitmap) == -(-numel // 8)
    return [p for p in range(8 * len(bitmap)) if int(bitmap[p // 8]) >> p % 8 & 1]


def dropfilt(layer: dict[str, Any], tensors: dict[str, np.ndarray]) -> np.ndarray:
    W = np.zeros(layer["shape"])
    W[marked(len(W), tensors["bitmap"])] = tensors["values"]
    return W


def passed_over(bits: int, codes: int, gaps: np.ndarray) -> list[int]:
    assert len(gaps) == -(-codes * bits // 8)
    stream = [int(byte) >> bit & 1 for byte in gaps for bit in range(8)]
    assert not any(stream[codes * bits :])
    kept, p = [], 0
    for j in range(codes):
        code = sum(bit << i for i, bit in enumerate(stream[j * bits : (j + 1) * bits]))
        p += code
        if code < 2**bits - 1:
            kept.append(p)
            p += 1
    return kept


def pruned(layer: dict[str, Any], tensors: dict[str, np.ndarray]) -> np.ndarray:
    W, config = np.zeros(math.prod(layer["shape"])), layer["config"]
    if "bits" in config:
        W[passed_over(config["bits"], config["codes"], tensors["gaps"])] = tensors["values"]
    else:
        W[marked(len(W), tensors["bitmap"])] = tensors["values"]
    return W.reshape(layer["shape"])


def monarch(layer: dict[str, Any], tensors: dict[str, np.ndarray]) -> np.ndarray:
    left, right = tensors["left"], tensors["right"]
    out, ins, b = len(left), right.shape[1], len(right)
    o, i = np.arange(out)[:, None], np.arange(ins)
    return (left[o, i // -(-ins // b)] * right[o % b, i]).reshape(layer["shape"])


def acdc(layer: dict[str, Any], tensors: dict[str, np.ndarray]) -> np.ndarray:
    out, ins = layer["shape"][0], math.prod(layer["shape"][1:])
    n, depth = max(out, ins), layer["config"]["depth"]
    A, C, U = np.concatenate([tensors["spatial"][:ins], np.zeros(n - ins), tensors["spatial"][ins:]]), dct(n), np.eye(n)
    for k, D in enumerate(tensors["spectral"]):
        if k:
            U = U[permutation(n, derive(layer["seed"], k - 1), 5)]
        U = C.T @ (D[:, None] * (C @ (A[k * n : (k + 1) * n, None] * U)))
    assert len(A) == depth * n
    return U[:out, :ins].reshape(layer["shape"])


def deepfried_head(block: dict[str, Any], tensors: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    config = {"sigma": block["config"]["sigma"], "copies": 1}
    weight = deepfried({**block, "config": config}, tensors | {"scale": tensors["scale"][None]})
    return np.maximum(0, x @ weight.T + (tensors["bias"] if block["config"]["bias"] else 0))


def acdc_stack(block: dict[str, Any], tensors: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    features, ins = block["shape"]
    n = max(features, ins)
    A, C = np.concatenate([tensors["spatial"][:ins], np.zeros(n - ins), tensors["spatial"][ins:]]), dct(n)
    u = np.concatenate([x, np.zeros((len(x), n - ins))], axis=1)
    for k, (D, b) in enumerate(zip(tensors["spectral"], tensors["bias"], strict=True)):
        if k:
            u = u[:, permutation(n, derive(block["seed"], k - 1), 5)]
        u = np.maximum(0, (u * A[k * n : (k + 1) * n] @ C.T * D + b) @ C)
    assert len(A) == block["config"]["depth"] * n
    return u[:, :features]


BLOCKS = {"deepfried_head": deepfried_head, "acdc_stack": acdc_stack}

METHODS = {
    "freshnet": freshnet,
    "hashednet": hashednet,
    "deepfried": deepfried,
    "lowrank": lowrank,
    "dropfreq": dropfreq,
    "dropfilt": dropfilt,
    "pruned": pruned,
    "monarch": monarch,
    "acdc": acdc,
}


@dataclass(frozen=True)
class File:
    """A file as the page describes it, its digest verified."""

    meta: dict[str, Any]
    tensors: dict[str, np.ndarray]

    @classmethod
    def read(cls, path: Path) -> "File":
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        table = json.loads(data[8 : 8 + length])
        meta = json.loads(table.pop("__metadata__")["compressnet"])
        head, payload = data[: 8 + length], data[8 + length :]
        mark = b'\\"sha256\\":\\"' + meta["sha256"].encode() + b'\\"'
        assert head.count(mark) == 1
        place = head.index(mark) + 13
        hashed = head[:place] + b"0" * 64 + head[place + 64 :] + payload
        assert hashlib.sha256(hashed).hexdigest() == meta["sha256"]
        return cls(meta, {name: _tensor(entry, payload) for name, entry in table.items()})

    def weight(self, layer: dict[str, Any]) -> np.ndarray:
        if "method" not in layer:
            return self.tensors[layer["name"] + ("_weight" if layer["kind"] == "attention" else ".weight")]
        prefix = f"{layer['name']}.structured."
        own = {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}
        return METHODS[layer["method"]](layer, own)

    def features(self, block: dict[str, Any], x: np.ndarray) -> np.ndarray:
        prefix = f"{block['name']}."
        own = {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}
        return BLOCKS[block["block"]](block, own, x)


def _tensor(entry: dict[str, Any], payload: bytes) -> np.ndarray:
    start, end = entry["data_offsets"]
    if entry["dtype"] == "BF16":
        halves = np.frombuffer(payload[start:end], "<u2").astype(np.uint32)
        return (halves << 16).view(np.float32).astype(np.float64).reshape(entry["shape"])
    return np.frombuffer(payload[start:end], DTYPES[entry["dtype"]]).astype(np.float64).reshape(entry["shape"])


@pytest.fixture(scope="module", params=["balanced", "independent"])
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = {key: value for key, value in LENET.items() if key != "pretrain"}
    path = tmp_path_factory.mktemp(request.param) / "converted.safetensors"
    hashing = [f"layers.{index}.hashing={request.param}" for index in (0, 2)]
    compressnet.convert(json.loads(json.dumps(recipe)), path, overrides=["data=null", *hashing])
    return path


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_reader_written_from_the_page_finds_every_dense_weight(converted: Path, tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "model.safetensors"
    compressnet.export(converted, path, dtype=dtype, with_recipe=True, overrides=["export.coder=none"])
    model, file = compressnet.load(path), File.read(path)
    compressed = {name for name, module in model.named_modules() if isinstance(module, CompressedLayer)}
    layers = {layer["name"]: layer for layer in file.meta["plan"] if "method" in layer}
    assert layers.keys() == compressed
    assert {layer["method"] for layer in layers.values()} == {"freshnet", "hashednet", "deepfried"}
    for name, layer in layers.items():
        ours = model.get_submodule(name).weight.detach().numpy()  # type: ignore[operator, union-attr]
        np.testing.assert_allclose(file.weight(layer), ours, rtol=0, atol=1e-5)


def test_it_finds_those_of_a_module_of_ones_own_with_other_shapes(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(8, 16, (5, 3)), nn.Conv2d(16, 40, 1), nn.Linear(33, 70), nn.Linear(300, 20))
    rules = [
        {"match": "0", "method": "freshnet", "ratio": 3, "alpha": 3, "beta": 0.5},
        {"match": "1", "method": "deepfried", "sigma": 2, "init": "random"},
        {"match": "2", "method": "deepfried", "init": "random"},
        {"match": "3", "method": "freshnet", "ratio": 7},
    ]
    compressnet.save(compressnet.compress(module, {"layers": rules}), tmp_path / "own.safetensors")
    file = File.read(tmp_path / "own.safetensors")
    assert file.meta["model"] is None
    for layer in file.meta["plan"]:
        ours = module.get_submodule(layer["name"]).weight.detach().numpy()  # type: ignore[operator, union-attr]
        np.testing.assert_allclose(file.weight(layer), ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("match", ["*.in_proj", "*.out_proj"])
def test_it_finds_those_of_attention_whether_held_or_dense(match: str, tmp_path: Path) -> None:
    dense = nn.Sequential(nn.TransformerEncoderLayer(12, 2, 20))
    before = {name: tensor.clone().numpy() for name, tensor in dense.state_dict().items()}
    rules = [{"match": match, "method": "hashednet", "ratio": 3}]
    module = compressnet.compress(dense, {"layers": rules})
    compressnet.save(module, tmp_path / "own.safetensors")
    file = File.read(tmp_path / "own.safetensors")
    names = {"0.self_attn.in_proj": "0.self_attn.in_proj_weight"}
    for layer in file.meta["plan"]:
        held = "method" in layer
        ours = module.get_submodule(layer["name"]).weight.detach().numpy() if held else None  # type: ignore[operator]
        expected = ours if held else before[names.get(layer["name"], f"{layer['name']}.weight")]
        np.testing.assert_allclose(file.weight(layer), expected, rtol=0, atol=1e-5)
    assert [layer["name"] for layer in file.meta["plan"] if "method" in layer] == [match.replace("*", "0.self_attn")]
    np.testing.assert_array_equal(file.tensors["0.self_attn.in_proj_bias"], before["0.self_attn.in_proj_bias"])


def test_the_page_describes_every_method_and_block() -> None:
    assert set(METHODS) == set(BY_NAME)
    assert set(BLOCKS) == set(BLOCK_BY_NAME)


@pytest.mark.parametrize(
    "rule",
    [
        {"block": "deepfried_head", "features": 64},
        {"block": "deepfried_head", "features": 192, "sigma": 3, "adaptive": False, "bias": False},
        {"block": "acdc_stack", "depth": 3},
        {"block": "acdc_stack", "depth": 2, "features": 50},
    ],
    ids=str,
)
@pytest.mark.parametrize("last", [None, {"match": "3", "method": "hashednet", "ratio": 2}])
def test_it_computes_a_model_with_a_block(rule: dict[str, Any], last: dict[str, Any] | None, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(33, 70), nn.ReLU(), nn.Dropout(), nn.Linear(70, 20))
    rules = [{"match": "[0-3]", **rule}, *([last] if last else [])]
    compressnet.save(compressnet.compress(module, {"layers": rules}), tmp_path / "own.safetensors")
    file = File.read(tmp_path / "own.safetensors")
    block, head = file.meta["plan"]
    assert (block["run"], block["head"], block["dense_numel"]) == (["0", "1", "2"], "3", 33 * 70 + 70)
    assert (head["shape"], head["dense_shape"]) == ([20, block["shape"][0]], [20, 70])
    x = torch.randn(5, 33)
    weight = file.weight(head) if last else file.tensors["3.weight"]
    logits = file.features(block, x.double().numpy()) @ weight.T + file.tensors["3.bias"]
    np.testing.assert_allclose(logits, module.eval()(x).detach().numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "rule"),
    [
        ((24, 33), {"method": "lowrank", "ratio": 4}),
        ((12, 5, 3, 3), {"method": "lowrank", "rank": 3}),
        ((12, 7, 5, 3), {"method": "lowrank", "ratio": 3, "scheme": "separable"}),
        ((40, 7, 5, 3), {"method": "deepfried", "copies": 3, "init": "random"}),
        ((150, 7, 5, 3), {"method": "deepfried", "copies": 2, "init": "random"}),
        ((24, 7, 5, 3), {"method": "monarch", "blocks": 4}),
        ((60, 7, 5, 3), {"method": "acdc", "depth": 2, "init": "identity"}),
        ((12, 5, 5, 3), {"method": "dropfreq", "ratio": 2.5}),
        ((24, 33), {"method": "dropfreq", "ratio": 7}),
        ((21, 5, 5, 3), {"method": "dropfilt", "ratio": 3}),
        ((24, 33), {"method": "dropfilt", "ratio": 3}),
        ((21, 5, 3, 3), {"method": "pruned", "density": 0.13}),
        ((24, 33), {"method": "monarch"}),
        ((33, 25, 1, 1), {"method": "monarch", "blocks": 4}),
        ((24, 33), {"method": "acdc", "depth": 3, "steps": 5}),
        ((40, 16, 1, 1), {"method": "acdc", "depth": 1, "init": "identity"}),
    ],
    ids=str,
)
def test_it_finds_the_weights_of_every_other_method(
    shape: tuple[int, ...], rule: dict[str, Any], tmp_path: Path
) -> None:
    layer = nn.Conv2d(shape[1], shape[0], shape[2:]) if len(shape) == 4 else nn.Linear(shape[1], shape[0])
    module = nn.Sequential(layer)
    compressnet.save(compressnet.compress(module, {"layers": [{"match": "0", **rule}]}), tmp_path / "own.safetensors")
    file = File.read(tmp_path / "own.safetensors")
    ours = module[0].weight.detach().numpy()
    np.testing.assert_allclose(file.weight(file.meta["plan"][0]), ours, rtol=0, atol=1e-5)


def test_it_finds_packed_weights(tmp_path: Path) -> None:
    densities = {"conv2": 0.7, "fc1": 0.01, "fc2": 0.15}
    rules = [{"match": name, "method": "pruned", "density": density} for name, density in densities.items()]
    compressnet.convert({**LENET, "layers": rules}, tmp_path / "a.safetensors", overrides=["data=null"])
    compressnet.export(tmp_path / "a.safetensors", tmp_path / "b.safetensors", overrides=["export.coder=none"])
    model, file = compressnet.load(tmp_path / "b.safetensors"), File.read(tmp_path / "b.safetensors")
    layers = {layer["name"]: layer for layer in file.meta["plan"] if "method" in layer}
    assert ["bits" in layers[name]["config"] for name in densities] == [False, True, True]
    for name, layer in layers.items():
        ours = model.get_submodule(name).weight.detach().numpy()  # type: ignore[operator, union-attr]
        np.testing.assert_array_equal(file.weight(layer), ours)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda: passed_over(3, 6, np.array([0x88, 0x7F, 0x03])), [0, 2, 9, 30]),
        (partial(mix, 0xFFFFFFFF), 0x127F588F),
        (partial(derive, 1, 2, 3), 0x9A6F290F),
        (lambda: words_of(4, 7, 2, 3), [0x66E1D54B, 0xD492AD9D, 0x5F37CD86, 0x56E87667]),
        (lambda: permutation(10, 7, 3), [9, 8, 3, 6, 0, 7, 5, 4, 1, 2]),
        (lambda: permutation(2**20 + 5, 7, 3)[[0, 1, 2**20, 2**20 + 4]], [475683, 380675, 848616, 332096]),
        (
            lambda: buckets_of(3_000_000, 1_000_001, 7, 0, "balanced")[[0, 1, 1_000_000, 1_500_000, 2_999_999]],
            [80424, 328479, 346222, 340303, 903106],
        ),
        (
            lambda: buckets_of(20, 6, 7, 0, "independent"),
            [5, 3, 0, 4, 5, 3, 0, 4, 1, 5, 5, 3, 0, 3, 5, 0, 4, 4, 5, 2],
        ),
    ],
    ids=["gaps", "mix", "derive", "words", "permutation", "cycle walking", "tiles", "independent"],
)
def test_the_reader_agrees_with_the_golden_vectors(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(found(), expected)
