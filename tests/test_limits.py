"""What a file can make its reader allocate: counted before it is, and bounded."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressnet
from compressnet.block import Block
from compressnet.checkpoint import write_coded
from compressnet.coding.choose import choose
from compressnet.coding.payload import on_grid
from compressnet.container import KEY
from compressnet.description import Description
from compressnet.errors import FileError
from compressnet.limits import FORMS, Form, needed
from compressnet.methods import BY_NAME
from compressnet.plan import Plan, make_plan
from compressnet.recipe import ExportSection, read_recipe
from compressnet.rewrite import rewrite_
from compressnet.structured import StructuredWeight
from compressnet.zoo import models

SIZES: dict[str, dict[str, Any]] = {"deepfried": {"steps": 1}, "acdc": {"steps": 1}, "pruned": {"density": 0.1}}
HEAD = {"match": ["fc1", "relu3", "fc2"], "block": "deepfried_head", "features": 1024}
STACK = {"match": ["fc1", "relu3", "fc2"], "block": "acdc_stack", "depth": 3}


def rule(method: str) -> dict[str, Any]:
    ratio = {"ratio": 4} if "ratio" in BY_NAME[method].Config.sizes else {}
    return {"match": "fc1", "method": method, **ratio, **SIZES.get(method, {})}


def skeleton(plan: Plan) -> nn.Module:
    assert plan.spec is not None
    return rewrite_(models.skeleton(plan.spec), plan.layers, plan.blocks)


def taken(model: nn.Module) -> int:
    """Bytes of everything a model holds, that of its dense layers' own tables aside."""
    tensors = list(model.state_dict().values())
    for module in model.modules():
        if isinstance(module, StructuredWeight | Block):
            tensors += [buffer for name, buffer in module.named_buffers() if name not in module.state_dict()]
        if isinstance(module, StructuredWeight) and module._frozen is not None:
            tensors.append(module._frozen)
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    "layer", [*(pytest.param(rule(name), id=name) for name in BY_NAME), HEAD, STACK], ids=lambda given: given["block"]
)
def test_what_loading_takes_is_counted_exactly(layer: dict[str, Any], dtype: torch.dtype, tmp_path: Path) -> None:
    recipe = {"model": {"name": "lenet5", "weights": None}, "layers": [layer]}
    compressnet.convert(recipe, tmp_path / "a.safetensors", overrides=["data=null"])
    ghost = skeleton(make_plan(read_recipe(recipe)))
    forms: tuple[Form, ...] = ("compressed", "frozen")
    for form in forms:
        model = compressnet.load(tmp_path / "a.safetensors", form=form, dtype=dtype)
        assert taken(model) == sum(needed(ghost, form, dtype).values()) == sum(needed(model, form).values())


def test_the_dense_form_counts_the_compressed_one_and_the_dense_weights_beside_it() -> None:
    layers = [HEAD, rule("hashednet") | {"match": "conv2"}]
    ghost = skeleton(make_plan(read_recipe({"model": {"name": "lenet5"}, "layers": layers})))
    assert needed(ghost, "dense")["dense weights"] == 4 * (1024 * 801 + 50 * 20 * 25)
    assert needed(ghost, "compressed")["dense weights"] == 0


@pytest.mark.parametrize("form", FORMS)
def test_the_limit_is_exact_and_the_message_says_what_would_do(
    form: Form, lenet: dict[str, Any], tmp_path: Path
) -> None:
    compressnet.convert(lenet, tmp_path / "a.safetensors", overrides=["data=null", "pretrain=null"])
    with pytest.raises(
        FileError, match=r"would take ([\d,]+) bytes of memory, more than 1,000: .* for stored"
    ) as caught:
        compressnet.load(tmp_path / "a.safetensors", form=form, max_bytes=1000)
    enough = int(str(caught.value).partition("max_bytes=")[2].partition(")")[0])
    compressnet.load(tmp_path / "a.safetensors", form=form, max_bytes=enough)
    with pytest.raises(FileError, match="would take"):
        compressnet.load(tmp_path / "a.safetensors", form=form, max_bytes=enough - 1)


def write_hollow(path: Path, meta: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A file whose tensors are a hole: it declares them in full, and takes a few kilobytes of the disk."""
    table: dict[str, Any] = {"__metadata__": {KEY: json.dumps(meta)}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * torch.Size(shape).numel()
        table[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(table).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with path.open("r+b") as file:
        file.truncate(8 + len(header) + end)


@dataclass(frozen=True)
class Hostile:
    """A plan's file that is hollow, its metadata changed after its tensors are declared."""

    message: str
    layers: tuple[dict[str, Any], ...] = ()
    change: Callable[[Any], None] | None = None
    model: str = "lenet5"
    num_classes: int = 10
    form: Form = "frozen"

    def plan(self) -> Plan:
        recipe = {"model": {"name": self.model, "num_classes": self.num_classes}, "layers": list(self.layers)}
        return make_plan(read_recipe(recipe))

    def write(self, path: Path) -> None:
        plan = self.plan()
        meta = {"format": 1, "sha256": "0" * 64} | Description.of(plan, "converted").to_json()
        if self.change:
            self.change(meta)
        write_hollow(path, meta, {name: tuple(tensor.shape) for name, tensor in skeleton(plan).state_dict().items()})


def nested(meta: dict[str, Any]) -> None:
    for _ in range(300):
        meta["recipe"] = {"model": [meta["recipe"]]}


def classes(meta: dict[str, Any]) -> None:
    meta["model"]["num_classes"] = 10**9


def widths(meta: dict[str, Any]) -> None:
    for item in meta["plan"]:
        item["shape"] = [2**60] * len(item["shape"])


def config(**keys: Any) -> Callable[[Any], None]:
    def change(meta: Any) -> None:
        for item in meta["plan"]:
            item.get("config", {}).update(keys)

    return change


class Coded(Hostile):
    """A whole and sealed coded file of its plan, every number of which is zero."""

    def write(self, path: Path) -> None:
        plan = self.plan()
        state = {name: torch.zeros(tensor.shape) for name, tensor in skeleton(plan).state_dict().items()}
        quantisers = choose(state, plan.layers, ExportSection(bits=4))
        write_coded(on_grid(state, quantisers), path, Description.of(plan, "exported"), quantisers)
        assert path.stat().st_size < 10_000


RUN = {"match": "classifier.[1-6]", "block": "acdc_stack", "depth": 100}
HASHED = {"match": "*", "method": "hashednet", "ratio": 1e300}
HOSTILE = {
    "a million classes": Hostile("bytes of memory", model="vgg11", num_classes=10**6),
    "a million classes of one number": Hostile("for tables", (HASHED,), None, "alexnet", 10**6, "compressed"),
    "a million coded classes": Coded("for tables", (HASHED,), None, "alexnet", 10**6, "compressed"),
    "a block that grows": Hostile("for dense weights", (HEAD | {"features": 1 << 22},), form="dense"),
    "a stack that grows": Hostile("for dense weights", (RUN,), model="alexnet", form="dense"),
    "classes without end": Hostile("no number of classes", change=classes),
    "layers without end": Hostile("is damaged", (rule("hashednet"),), widths),
    "features without end": Hostile("is damaged", (HEAD,), config(features=2**60)),
    "depth without end": Hostile("is damaged", (STACK,), config(depth=2**60)),
    "deeper than its tensors": Hostile("has the shape", (STACK,), config(depth=1000)),
    "copies without end": Hostile("is damaged", (rule("deepfried"),), config(copies=2**60)),
    "a recipe within a recipe": Hostile("is damaged", change=nested),
}

READ = """
import json, resource, sys, time
import compressnet
from compressnet.checkpoint import load
from compressnet.zoo.models import names
names()
for path, form in json.loads(sys.argv[1]):
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    try:
        load(path, form=form)
        text = "loaded"
    except compressnet.CompressnetError as error:
        text = str(error)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([text, grown * (1 if sys.platform == "darwin" else 1024), time.perf_counter() - started]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, int, float]]:
    """What a process of its own says of each hostile file: the error, bytes that its memory grew by, and seconds."""
    folder, asked = tmp_path_factory.mktemp("hostile"), []
    for kind, hostile in HOSTILE.items():
        hostile.write(folder / kind)
        assert (folder / kind).stat().st_blocks * 512 < 1_000_000
        asked.append((str(folder / kind), hostile.form))
    done = subprocess.run([sys.executable, "-c", READ, json.dumps(asked)], capture_output=True, text=True, check=True)
    return dict(zip(HOSTILE, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_small_file_that_asks_for_much_is_refused_at_once_and_takes_nothing(
    kind: str, answers: dict[str, tuple[str, int, float]]
) -> None:
    text, grown, seconds = answers[kind]
    assert HOSTILE[kind].message in text
    assert grown < 100_000_000
    assert seconds < 10


@pytest.mark.parametrize("depth", [500, 100_000])
@pytest.mark.parametrize("text", ['{"__metadata__":{"compressnet":"%s"}}', '{"a":%s}'])
def test_brackets_within_brackets_are_refused(text: str, depth: int, tmp_path: Path) -> None:
    header = (text % ("[" * depth + "]" * depth)).encode()
    (tmp_path / "deep").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(FileError):
        compressnet.load(tmp_path / "deep")
