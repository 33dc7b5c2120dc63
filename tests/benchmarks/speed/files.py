"""Whole models: made, written, read back and run; the hash that they rest on; how fast the command line answers."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.models import get_model

import compressnet
from compressnet.maths.indices import signed_indices
from compressnet.methods import BY_NAME
from tests.benchmarks.speed.conversion import CASES, FRESHNET
from tests.benchmarks.speed.growth import MILLION
from tests.benchmarks.speed.measure import Row, Thunk, cost, interleaved, limit
from tests.benchmarks.speed.memory import IN_USE

SIZES = (1, 4, 16, 64, 140)
SECONDS = {"resnet50": 10, "vit_b_16": 30, "vgg16": 30, "vgg16 fitted": 30}
HASHED: dict[str, Any] = {"match": "*", "method": "hashednet", "ratio": 8}
SIZE: dict[str, dict[str, Any]] = {"pruned": {"density": 0.1}, "acdc": {"depth": 2, "init": "identity"}, "monarch": {}}
SIZE["deepfried"] = {"init": "random"}


def compressed(folder: str, model: str, layers: list[dict[str, Any]], bits: int | None = None) -> Path:
    """A file of an untrained model, with so many bits a number, coded."""
    path = Path(folder) / "converted.safetensors"
    recipe = {"model": {"name": model, "weights": None}, "layers": layers, "calibration": None}
    compressnet.convert(recipe, path, force=True)
    if bits is None:
        return path
    compressnet.export(path, path.with_name("coded.safetensors"), overrides=[f"export.bits={bits}"], force=True)
    return path.with_name("coded.safetensors")


def forms(model: str, layers: list[dict[str, Any]], what: str) -> Iterator[Row]:
    """A model in evaluation, as ``load`` gives it and as another copy of torchvision's, against torchvision's."""
    x, dense, again = torch.randn(1, 3, 224, 224), get_model(model).eval(), get_model(model).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = compressed(folder, model, layers)
        loaded = {form: compressnet.load(path, form=form) for form in ("dense", "frozen")}  # type: ignore[arg-type]
    with torch.no_grad():
        runs: dict[str, Thunk] = {form: lambda m=m: m(x) for form, m in loaded.items()}  # type: ignore[misc]
        times = interleaved({"torchvision": lambda: dense(x), **runs, "again": lambda: again(x)}, 81, 8)
    for form in loaded:
        yield cost(f"{model}, {what}, {form}", {"ours": times[form], "other": times["torchvision"]}, 1.01)
    yield cost(f"{model}, {what}: torchvision's again", {"ours": times["again"], "other": times["torchvision"]}, None)


def measure_inference() -> Iterator[Row]:
    """A loaded model in evaluation, an image at a time, against the dense torchvision model."""
    for name, method in BY_NAME.items():
        if not method.runs_product((64, 64, 3, 3)) and name != "lowrank":
            rule = {"match": {"type": "conv2d", "kernel": [3, 3]}, "method": name, **SIZE.get(name, {"ratio": 8})}
            yield from forms("resnet18", [rule], f"3×3 as {name}")
    yield from forms("vgg11", [FRESHNET, HASHED], "freshnet and hashednet")
    yield from forms("vit_b_16", [HASHED | {"match": "encoder.*"}], "hashednet")


def measure_hashing() -> Iterator[Row]:
    """Bucket and sign of every weight, 1/16 of them stored, against copying these int32 to memory that is there."""
    for millions in (1, 14, 138):
        numel = millions * MILLION
        for mode in ("balanced", "independent"):
            indices = signed_indices(numel, numel // 16, 1, hashing=mode)
            out = torch.empty_like(indices)
            runs: dict[str, Thunk] = {
                "ours": lambda n=numel, m=mode: signed_indices(n, n // 16, 1, hashing=m),  # type: ignore[misc]
                "other": lambda i=indices, o=out: o.copy_(i),  # type: ignore[misc]
            }
            times = interleaved(runs, 5)
            yield cost(f"{mode}, {millions} M", times, 20)
            if millions == 138:
                yield limit(f"{mode}, {millions} M, seconds", times["ours"].median, 1, times["ours"].spread)


def measure_load() -> Iterator[Row]:
    """VGG16 from a coded file, in its compressed form, against reading a dense state_dict of 528 MB into the model."""
    with tempfile.TemporaryDirectory() as folder:
        plain, model = Path(folder) / "vgg16.pth", get_model("vgg16")
        torch.save(model.state_dict(), plain)
        path = compressed(folder, "vgg16", CASES["vgg16"], bits=6)
        dense: Callable[[], object] = lambda: model.load_state_dict(torch.load(plain, weights_only=True))  # noqa: E731
        times = interleaved({"ours": lambda: compressnet.load(path, form="compressed"), "other": dense}, 7)
        yield cost(f"coded, {path.stat().st_size / 1e6:.1f} MB", times, 1)
        frozen = interleaved({"ours": lambda: compressnet.load(path), "other": dense}, 5)
        yield cost("the same, frozen", frozen, None)


def measure_convert() -> Iterator[Row]:
    """Whole models, weights projected by themselves: seconds, and memory in use above that before."""
    for case, seconds in SECONDS.items():
        call = [sys.executable, "-m", "tests.benchmarks.speed.conversion", case]
        call += ["--threads", str(torch.get_num_threads())]
        timed, exact = (
            json.loads(subprocess.run(call, env=os.environ | more, check=True, capture_output=True, text=True).stdout)
            for more in ({}, IN_USE)
        )
        yield limit(case, timed["seconds"], seconds, note=f"{timed['processor']:.3g} s of processor")
        note = f"{timed['above'] / 1e6:.0f} with what glibc keeps"
        yield limit(f"{case}, memory", exact["above"] / 1e6, exact["allowed"] / 1e6, unit="MB", note=note)


def measure_growth() -> Iterator[Row]:
    """What a HashedNet weight of 1/16 costs by its number of weights; the exponent is that of a power law."""
    taken: dict[str, list[float]] = {}
    for millions in SIZES:
        call = [sys.executable, "-m", "tests.benchmarks.speed.growth", str(millions), str(torch.get_num_threads())]
        found = subprocess.run(call, env=os.environ | IN_USE, check=True, capture_output=True, text=True).stdout
        for what, (median, spread) in json.loads(found).items():
            taken.setdefault(what, []).append(median)
            yield limit(f"{what}, {millions} M", median, None, spread)
    for what, seconds in taken.items():
        exponent = float(np.polyfit(np.log(SIZES), np.log(seconds), 1)[0])
        yield limit(f"{what}, exponent", exponent, 1.1, unit="")


def measure_startup() -> Iterator[Row]:
    """A command from start to end, as a process."""
    with tempfile.TemporaryDirectory() as folder:
        path = compressed(folder, "squeezenet1_1", [FRESHNET])
        python = [sys.executable, "-m", "compressnet"]
        commands = {"--help": [*python, "--help"], "report FILE": [*python, "report", str(path)]}
        commands["python -c 'import torch'"] = [sys.executable, "-c", "import torch"]
        runs: dict[str, Thunk] = {
            what: lambda c=command: subprocess.run(c, check=True, capture_output=True)  # type: ignore[misc]
            for what, command in commands.items()
        }
        for (what, times), seconds in zip(interleaved(runs).items(), (0.3, 0.5, None), strict=True):
            yield limit(what, times.median, seconds, times.spread)
