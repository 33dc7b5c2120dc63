"""What coding costs and saves: sizes of SqueezeNet 1.1 by coding alone, mixes with sharing, and other coders.

    COMPRESSNET_DATA=/data python -m tests.benchmarks.storage sizes
    COMPRESSNET_DATA=/data python -m tests.benchmarks.storage parts
    COMPRESSNET_DATA=/data python -m tests.benchmarks.storage mixes
    COMPRESSNET_DATA=/data python -m tests.benchmarks.storage coders [--model lenet5]

COMPRESSNET_DATA holds ``weights/squeezenet1_1.pth``, ``weights/lenet5-mnist.pth``, ``imagenet-sample/val`` (an image of
each ImageNet class), ``tiny-imagenet-compact.zip``, and ``mnist``. Steps are chosen by 200 images of Tiny-ImageNet, so
that the 1,000 of the sample are for reporting alone; those of ``mixes`` by the 400 that ``calibration.py`` cuts out of
the sample, and LeNet-5's by MNIST. ``coders`` needs the program zstd, and the package nncodec for its rows.
"""

import argparse
import copy
import dataclasses
import math
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import compressnet
from compressnet.allocation import thrift
from compressnet.allocation.allocate import fitting
from compressnet.allocation.form import CodedForm
from compressnet.allocation.search import search
from compressnet.allocation.sensitivity import divergence
from compressnet.data.datasets import open_part
from compressnet.description import Description, describe
from compressnet.nbytes import parse_nbytes
from compressnet.plan import make_plan
from compressnet.recipe import ExportSection, read_recipe
from compressnet.shipping.numbers import Numbers
from compressnet.training.parts import sample_images
from tests.benchmarks import calibration

LEVELS = (0.05, 0.1, 0.2)  # errors of logits that coders are compared at
Coded = tuple[int, nn.Module]


def tiny_imagenet(source: Path, folder: Path) -> Path:
    """The unpacked archive."""
    if not (folder / "tiny").exists():
        with zipfile.ZipFile(source / "tiny-imagenet-compact.zip") as archive:
            archive.extractall(folder / "tiny")
    return folder / "tiny"


def top1(file: Path, recipe: dict[str, Any], part: str, **data: Any) -> str:
    """Right answers of all."""
    named = read_recipe(recipe | {"data": recipe["data"] | data}).checked()
    found = compressnet.evaluate(file, recipe=named, part=part, device="cpu")
    return f"{round(found.top1 * found.count / 100)} of {found.count}"


def sizes(source: Path, folder: Path) -> None:
    """SqueezeNet 1.1 by coding alone."""
    recipe = calibration.of_squeezenet(source, folder)
    dense, coded = folder / "dense.safetensors", folder / "coded.safetensors"
    compressnet.convert(recipe | {"layers": []}, dense, force=True)
    sample = {"root": str(source / "imagenet-sample" / "val")}
    print("| file | bytes | top-1 of all | of the 500 |\n|---|---|---|---|")
    whole, part = top1(dense, recipe, "test", **sample), top1(dense, recipe, "test")
    print(f"| dense | {dense.stat().st_size:,} | {whole} | {part} |", flush=True)
    for size in ("1MB", "750kB", "500kB", "400kB"):
        over = [f"data.root={tiny_imagenet(source, folder)}"]
        found = compressnet.export(dense, coded, target_size=size, overrides=over, force=True)
        whole, part = top1(coded, recipe, "test", **sample), top1(coded, recipe, "test")
        print(f"| coded, {size} | {found.nbytes:,} | {whole} | {part} |", flush=True)


def parts(source: Path, folder: Path, size: str) -> None:
    """What each part of the choice of steps brings, at one size, on images of the sample that are not for reporting."""
    recipe = calibration.of_squeezenet(source, folder)
    compressnet.convert(recipe | {"layers": []}, folder / "dense.safetensors", force=True)
    compared = Compared(folder / "dense.safetensors", _images(recipe, "train", 200))
    tiny = recipe["data"] | {"root": str(tiny_imagenet(source, folder))}
    images = _images(recipe | {"data": tiny}, "train", 133)
    model = copy.deepcopy(compared.model)
    whole = CodedForm(model, compared.description.layers, ExportSection(bits="auto"), images)
    costs, made_up, price = whole.costs, whole._made_up, thrift.PRICE
    alone = {name: cost.sensitivity / (made_up[name].share if name in made_up else 1) for name, cost in costs.items()}

    def measure(distortion: float) -> int:
        return Numbers(model, compared.description, whole.code_(distortion), "range", 0).nbytes()

    print("| steps | bytes | error of logits | divergence, nats | same class |\n|---|---|---|---|---|")
    for name, sensitivities, compensations, price_here in (
        ("equal", dict.fromkeys(costs, 1.0), {}, 0.0),
        ("by sensitivity", alone, {}, 0.0),
        ("and errors made up for", {key: cost.sensitivity for key, cost in costs.items()}, made_up, 0.0),
        ("and short codes preferred", {key: cost.sensitivity for key, cost in costs.items()}, made_up, price),
    ):
        whole.costs = {key: dataclasses.replace(costs[key], sensitivity=each) for key, each in sensitivities.items()}
        whole._made_up, thrift.PRICE = compensations, price_here
        compared.row(name, (measure(fitting(whole, parse_nbytes(size), measure)), model))


def mix_cases() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """What shares numbers before it is coded."""
    classifier = {"match": "classifier.1", "method": "lowrank"}
    late = {"match": ["features.1*.expand3x3"], "method": "freshnet", "beta": 6}
    yield "coding alone", []
    yield "classifier in low rank, 1.5×", [classifier | {"ratio": 1.5}]
    yield "last 3×3 convolutions as FreshNet 1.5×", [late | {"ratio": 1.5}]
    yield "3×3 convolutions as FreshNet 1.5×", calibration.threes(1.5, beta=6)


def mixes(source: Path, folder: Path, size: str) -> None:
    """Sharing and coding at one size."""
    recipe = calibration.of_squeezenet(source, folder)
    file, coded = folder / "mix.safetensors", folder / "coded.safetensors"
    print("| sharing | numbers | bytes | top-1 of val | of test |\n|---|---|---|---|---|")
    for name, layers in mix_cases():
        numel = compressnet.convert(recipe | {"layers": layers}, file, force=True).numel
        found = compressnet.export(file, coded, target_size=size, force=True)
        val, test = (top1(coded, recipe, part) for part in ("val", "test"))
        print(f"| {name} | {numel:,} | {found.nbytes:,} | {val} | {test} |", flush=True)


class Compared:
    """A model, whose coded forms are compared with it on images.

    Args:
        file: of the dense model.
        images: shape (N, C, H, W).
    """

    def __init__(self, file: Path, images: Tensor) -> None:
        self.description: Description = describe(file)
        self.model = compressnet.load(file, form="compressed")
        self.images = images
        self.answers = self.of(self.model)

    @torch.no_grad()
    def of(self, model: nn.Module) -> Tensor:
        """Logits."""
        return torch.cat([model(batch) for batch in self.images.split(50)])

    def error(self, model: nn.Module) -> float:
        """‖z − z₀‖ / ‖z₀‖, of logits less their mean over classes, which no answer depends on."""
        wanted, given = (z - z.mean(1, keepdim=True) for z in (self.answers, self.of(model)))
        return ((given - wanted).norm() / wanted.norm()).item()

    def row(self, name: str, coded: Coded) -> None:
        """A line of the table."""
        given = self.of(coded[1])
        same = (given.argmax(1) == self.answers.argmax(1)).double().mean().item()
        apart = divergence(self.answers, given)
        print(f"| {name} | {coded[0]:,} | {self.error(coded[1]):.4f} | {apart:.4f} | {same:.1%} |", flush=True)

    def filled(self, state: dict[str, Tensor]) -> nn.Module:
        """The model with another state."""
        model = copy.deepcopy(self.model)
        model.load_state_dict(state)
        return model

    def at(self, level: float, coded: Callable[[float], Coded], start: float, octave: float) -> Coded:
        """The coarsest coding within an error; the error doubles every so many octaves of its step."""

        def excess(x: float) -> float:
            return octave * math.log2(self.error(coded(x)[1]) / level)

        found = search(excess, start, 0.15 * octave)
        assert found is not None
        return coded(found)


def zstandard(state: dict[str, Tensor]) -> int:
    """Bytes of a safetensors file after zstd -19."""
    with tempfile.TemporaryDirectory() as folder:
        save_file(state, Path(folder) / "state")
        return len(
            subprocess.run(["zstd", "-19", "-c", Path(folder) / "state"], capture_output=True, check=True).stdout
        )


def int8(compared: Compared) -> Coded:
    """Weights as int8 with a step for each row, of their largest number; vectors as float16."""
    stored, numbers = {}, {}
    for name, tensor in compared.model.state_dict().items():
        if tensor.dim() < 2:
            stored[name] = tensor.half()
            numbers[name] = stored[name].float()
            continue
        steps = tensor.flatten(1).abs().amax(1).view(-1, *[1] * (tensor.dim() - 1)).clamp(min=1e-12) / 127
        stored[name], stored[f"{name}.step"] = (tensor / steps).round().to(torch.int8), steps.flatten()
        numbers[name] = stored[name] * steps
    return zstandard(stored), compared.filled(numbers)


def ours(compared: Compared, images: Tensor | None) -> Callable[[float], Coded]:
    """At a log₂ of the distortion."""
    model = copy.deepcopy(compared.model)
    form = CodedForm(model, compared.description.layers, ExportSection(bits="auto"), images)

    def coded(exponent: float) -> Coded:
        return Numbers(model, compared.description, form.code_(2.0**exponent), "range", 0).nbytes(), model

    return coded


def nncodec(compared: Compared) -> Callable[[float], Coded]:
    """At a quantisation parameter of 16 steps an octave, with dependent quantisation, as its defaults are."""
    from nncodec import nnc

    state = {name: tensor.numpy() for name, tensor in compared.model.state_dict().items()}
    keys = {"use_dq": True, "param_opt": True, "row_skipping": True, "qp_density": 4, "nonweight_qp": -300}

    def coded(qp: float) -> Coded:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "stream")
            stream = nnc.compress(dict(state), path, qp=round(qp), return_bitstream=True, verbose=False, **keys)
        found = nnc.decompress(stream, verbose=False)
        return len(stream), compared.filled({name: torch.tensor(numbers) for name, numbers in found.items()})

    return coded


def coders(source: Path, folder: Path, name: str) -> None:
    """Bytes at equal errors of logits."""
    if name == "lenet5":
        base = calibration.of_lenet(source, folder) | {"model": {"name": name, "weights": str(_lenet(source))}}
        images = _images(base, "train", 200)
    else:
        base = calibration.of_squeezenet(source, folder)
        images = _images(base | {"data": base["data"] | {"root": str(tiny_imagenet(source, folder))}}, "train", 200)
    dense = folder / "dense.safetensors"
    compressnet.convert(base | {"layers": []}, dense, force=True)
    compared = Compared(dense, _images(base, "test", 200 if name == "squeezenet1_1" else 2000))
    print("| coder | bytes | error of logits | divergence, nats | same class |\n|---|---|---|---|---|")
    half = {key: tensor.half() for key, tensor in compared.model.state_dict().items()}
    compared.row("float16, zstd -19", (zstandard(half), compared.filled(half)))
    compared.row("int8, zstd -19", int8(compared))
    ways: dict[str, tuple[Callable[[float], Coded], float, float]] = {
        "ours": (ours(compared, images), -24.0, 2.0),
        "ours, without images": (ours(compared, None), -24.0, 2.0),
    }
    try:
        ways["nncodec"] = nncodec(compared), -120.0, 16.0
    except ImportError:
        print("nncodec is not installed")
    for level in (compared.error(int8(compared)[1]), *LEVELS):
        for way, (coded, start, octave) in ways.items():
            compared.row(f"{way}, at {level:.2g}", compared.at(level, coded, start, octave))


def _lenet(source: Path) -> Path:
    return source / "weights" / "lenet5-mnist.pth"


def _images(recipe: dict[str, Any], part: Any, count: int) -> Tensor:
    plan = make_plan(read_recipe(recipe | {"layers": []}))
    assert plan.recipe.data is not None
    assert plan.preprocessing is not None
    transform = plan.preprocessing.transform("none")
    return sample_images(open_part(plan.recipe.data, part, transform, 0), count, 0)


def main() -> None:
    """One of the tables."""
    parser = argparse.ArgumentParser(description="storage, measured")
    parser.add_argument("table", choices=["sizes", "parts", "mixes", "coders"])
    parser.add_argument("--model", choices=["squeezenet1_1", "lenet5"], default="squeezenet1_1")
    parser.add_argument("--size", default="500kB", help="of parts and mixes")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "compressnet-storage")
    arguments = parser.parse_args()
    source = Path(os.environ["COMPRESSNET_DATA"])
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    if arguments.table == "sizes":
        sizes(source, arguments.folder)
    elif arguments.table == "parts":
        parts(source, arguments.folder, arguments.size)
    elif arguments.table == "mixes":
        mixes(source, arguments.folder, arguments.size)
    else:
        coders(source, arguments.folder, arguments.model)


if __name__ == "__main__":
    main()
