"""What a GPU gives: ResNet-18 on CIFAR-10 in FreshNet form, and training images a second, within 20 minutes of one.

    COMPRESSNET_DATA=/path/to/data python -m tests.benchmarks.gpu -o FOLDER [--device cuda] [--epochs N] [--tiny]

The data folder has ``cifar10-jpeg.tar.xz``: ``train`` and ``test`` with a folder of JPEG files for each class. The
dense net is trained first; each compressed one starts from it, is calibrated, and fine-tuned with it as its teacher, by
the same loop. Speeds are of training steps on random images that lie on the device: forms take turns, a figure is the
median of the repetitions with their spread. ``--tiny`` takes a few images and steps, to try the script out.

What is done is kept in FOLDER and not done again. ``gpu.json`` and ``gpu.md`` are written there.
"""

import argparse
import json
import os
import platform
import statistics
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import compressnet
from compressnet.data.layout import channels_last
from compressnet.training.precision import float32_products, half_of
from compressnet.zoo import models
from compressnet.zoo.models import ModelSpec
from tests.benchmarks.accuracy import Row, markdown

RATIOS = (4, 16, 64)
SHARED = ["layer*.conv?", "layer*.downsample.0"]
HEAD = {"match": "classifier.[1-6]", "block": "deepfried_head", "features": 16384}


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Args:
        images: of each class in each part, at most.
        epochs: of each training.
        batch: images a step of ResNet-18; of AlexNet as many.
        steps: timed in a repetition.
        repetitions: of each form.
        calibration: images that are fitted to; with none, weights are projected by themselves.
    """

    images: int
    epochs: int
    batch: int
    steps: int
    repetitions: int
    calibration: int


FULL, TINY = Scale(5000, 15, 256, 20, 5, 100), Scale(6, 1, 8, 1, 1, 0)


def unpack(archive: Path, into: Path, most: int) -> Path:
    """The images, so many of each class in each part."""
    if into.exists():
        return into
    making, taken = into.with_suffix(".part"), Counter[str]()
    with tarfile.open(archive) as files:
        for member in files:
            place = str(Path(member.name).parent)
            taken[place] += member.isfile()
            if member.isfile() and taken[place] <= most:
                files.extract(member, making, filter="data")
    making.rename(into)
    return into


def accuracies(data: Path, folder: Path, scale: Scale, device: str) -> Iterator[Row]:
    """The dense net, and FreshNet forms of it."""
    root = unpack(data / "cifar10-jpeg.tar.xz", folder / "cifar10", scale.images)
    workers = min(14, (os.cpu_count() or 1) - 1)
    net = {"name": "resnet18_cifar", "num_classes": 10}
    images = {"dataset": "imagefolder", "root": str(root), "batch_size": scale.batch, "workers": workers}
    tuning = {"epochs": scale.epochs, "lr": 0.002, "weight_decay": 0.05}
    dense: dict[str, Any] = {
        "model": net,
        "data": images | {"augment": "flip", "resize": 32, "crop": 32},
        "calibration": None,
        "finetune": tuning,
    }
    yield kept(folder / "dense.json", partial(train, "dense", dense, folder / "dense", device))
    taught = dense | {
        "model": net | {"weights": str(folder / "dense" / "best.safetensors")},
        "calibration": {"images": scale.calibration} if scale.calibration else None,
        "finetune": tuning | {"distill": {"temperature": 4, "weight": 0.9}},
    }
    for ratio in RATIOS:
        form = f"freshnet {ratio}"
        rule = {"match": SHARED, "method": "freshnet", "ratio": ratio, "weight_decay": 0.0}
        yield kept(folder / f"{form}.json", partial(train, form, taught | {"layers": [rule]}, folder / form, device))


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What was made before, or is made now."""
    if not path.exists():
        made = json.dumps(make())
        print(made, flush=True)
        path.write_text(made)
    return json.loads(path.read_text())


def train(form: str, recipe: dict[str, Any], folder: Path, device: str) -> Row:
    """Convert and fine-tune."""
    began = time.monotonic()
    account = compressnet.convert(recipe, folder / "converted.safetensors", force=True)
    converted = time.monotonic()
    resume = (folder / "last.pt").exists()
    trained = compressnet.finetune(folder / "converted.safetensors", folder, device=device, resume=resume)
    exported = compressnet.export(folder / "best.safetensors", folder / "model.safetensors", force=True)
    return {
        "form": form,
        "stored numbers": account.numel,
        "exported bytes": exported.nbytes,
        "val at the start %": round(trained.before.top1, 2),
        "val %": round(trained.best.top1, 2),
        "test %": round(trained.test.top1, 2),
        "epochs": trained.epochs,
        "convert s": round(converted - began),
        "train s": round(time.monotonic() - converted),
    }


def forms() -> dict[str, Callable[[], nn.Module]]:
    """What is timed, by name: a net, and its form."""

    def made(net: str, num_classes: int, *rules: dict[str, Any]) -> Callable[[], nn.Module]:
        return lambda: compressnet.compress(models.fresh(ModelSpec(net, num_classes), 0), {"layers": list(rules)})

    return {
        "resnet18_cifar dense": made("resnet18_cifar", 10),
        "resnet18_cifar freshnet 16": made("resnet18_cifar", 10, {"match": SHARED, "method": "freshnet", "ratio": 16}),
        "alexnet dense": made("alexnet", 1000),
        "alexnet deepfried_head 16384": made("alexnet", 1000, HEAD),
    }


def stepper(model: nn.Module, side: int, scale: Scale, device: torch.device, compiled: bool) -> Callable[[], None]:
    """A training step on random images."""
    model.to(device).train()
    half = half_of("auto", device)
    network = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    images = channels_last(torch.randn(scale.batch, 3, side, side, device=device))
    labels = torch.randint(10, (scale.batch,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=half, enabled=half is not None):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()

    return step


def speeds(scale: Scale, device: torch.device, tiny: bool) -> Iterator[Row]:
    """Training images a second, of one net after the other: its dense and its compressed form take turns."""
    for net, side in (("resnet18_cifar", 32), ("alexnet", 224)):
        steps = {
            (name, compiled): stepper(build(), side, scale, device, compiled)
            for name, build in forms().items()
            for compiled in ((False,) if tiny else (False, True))
            if name.startswith(net)
        }
        rates: dict[tuple[str, bool], list[float]] = {key: [] for key in steps}
        with float32_products(fast=True):
            for repetition in range(1 + scale.repetitions):  # the first compiles, and warms up
                for key, step in steps.items():
                    seconds = timed(step, scale.steps, device)
                    if repetition:
                        rates[key].append(scale.batch * scale.steps / seconds)
        for (name, compiled), found in rates.items():
            yield {
                "form": name,
                "compiled": compiled,
                "images/s": round(statistics.median(found), 1),
                "least": round(min(found), 1),
                "most": round(max(found), 1),
            }


def timed(step: Callable[[], None], steps: int, device: torch.device) -> float:
    """Seconds of some steps."""
    began = _now(device)
    for _ in range(steps):
        step()
    return _now(device) - began


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main() -> None:
    """Both tables, as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    scale = TINY if asked.tiny else FULL
    if asked.epochs:
        scale = Scale(**(vars(scale) | {"epochs": asked.epochs}))
    device = torch.device(asked.device)
    asked.output.mkdir(parents=True, exist_ok=True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    found = {
        "device": name,
        "torch": torch.__version__,
        "speeds": kept(asked.output / "speeds.json", lambda: list(speeds(scale, device, asked.tiny))),
        "accuracies": list(accuracies(Path(os.environ["COMPRESSNET_DATA"]), asked.output, scale, asked.device)),
    }
    (asked.output / "gpu.json").write_text(json.dumps(found, indent=1))
    text = f"{name}, torch {torch.__version__}\n\n{markdown(found['accuracies'])}\n\n{markdown(found['speeds'])}\n"
    (asked.output / "gpu.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
