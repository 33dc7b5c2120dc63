"""Top-1 of SqueezeNet 1.1 and LeNet-5 right after conversion, before any training: weights alone against calibration.

    COMPRESSNET_DATA=/data python tests/benchmarks/calibration.py [--model lenet5] [--part val] [--only 4×] [--folder F]

COMPRESSNET_DATA holds ``weights/squeezenet1_1.pth`` and ``imagenet-sample/val``, an image for each ImageNet class. A
specified permutation cuts the images into 400 to calibrate with, 100 to choose by (``val``) and 500 to report on
(``test``, the default). For LeNet-5 it holds ``mnist``, of which 5,000 training images are held out to choose by, and
the dense network is trained first. The folder takes the split, as links, and the trained network.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import compressnet
from compressnet.calibration import fit, sensitivity
from compressnet.maths.hashing import permutation

PARTS = {"train": slice(400), "val": slice(400, 500), "test": slice(500, None)}
THREES = {"type": "conv2d", "kernel": [3, 3]}


def split(source: Path, folder: Path) -> None:
    """An ImageFolder of three parts, with all classes in each."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    order = permutation(len(files), seed=0).tolist()
    for part, places in PARTS.items():
        for name in {file.parent.name for file in files}:
            (folder / part / name).mkdir(parents=True, exist_ok=True)
        for place in order[places]:
            link = folder / part / files[place].parent.name / files[place].name
            if not link.exists():
                link.symlink_to(files[place])


def threes(ratio: float, hashing: str = "balanced", **keys: Any) -> list[dict[str, Any]]:
    """All 3×3 convolutions as FreshNet."""
    return [{"match": THREES, "method": "freshnet", "ratio": ratio, "hashing": hashing, **keys}]


def whole(ratio: float, hashing: str) -> list[dict[str, Any]]:
    """All convolutions, those of a single coefficient as HashedNet."""
    ones = {"match": {"type": "conv2d"}, "method": "hashednet", "ratio": ratio, "hashing": hashing}
    return [*threes(ratio, hashing), ones]


def chosen() -> list[dict[str, Any]]:
    """The large layers alone: the 3×3 convolutions of the fire modules, and the classifier."""
    return [
        {"match": "*.expand3x3", "method": "freshnet", "ratio": 3, "beta": 6},
        {"match": "classifier.1", "method": "lowrank", "ratio": 1.95},
    ]


def lenet(hashing: str) -> list[dict[str, Any]]:
    """LeNet-5 at 1/16 of its numbers, all but the first convolution and the last layer."""
    keys = {"hashing": hashing}
    return [
        {"match": "conv2", "method": "freshnet", "ratio": 4, **keys},
        {"match": "fc1", "method": "hashednet", "ratio": 24, **keys},
        {"match": "fc2", "method": "hashednet", "ratio": 2, **keys},
    ]


def squeezenet_cases() -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any] | None]]:
    """A name, the layers, and the calibration of each row."""
    yield "dense", [], None
    yield "3×3 at 2×, balanced, weights alone", threes(2), None
    for hashing in ("balanced", "independent"):
        yield f"3×3 at 2×, {hashing}", threes(2, hashing), {}
        yield f"3×3 at 4×, {hashing}", threes(4, hashing), {}
        yield f"3×3 at 4×, {hashing}, β 6", threes(4, hashing, beta=6), {}
        yield f"whole network at 2×, {hashing}", whole(2, hashing), {}
    yield "whole network at 2×, chosen by layer", chosen(), {}


def lenet_cases() -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any] | None]]:
    """The same of LeNet-5."""
    yield "dense", [], None
    for hashing in ("balanced", "independent"):
        yield f"at 1/16, {hashing}, weights alone", lenet(hashing), None
        yield f"at 1/16, {hashing}", lenet(hashing), {}
    yield "at 1/16, balanced, 2000 images", lenet("balanced"), {"images": 2000}


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description="accuracy right after conversion")
    parser.add_argument("--model", choices=["squeezenet1_1", "lenet5"], default="squeezenet1_1")
    parser.add_argument("--part", choices=["val", "test"], default="test", help="the images that are reported on")
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--without", choices=["gate", "cost"], nargs="*", default=[], help="leave a part of it out")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "compressnet-calibration")
    arguments = parser.parse_args()
    if "gate" in arguments.without:
        fit.ROUNDS = 0
    if "cost" in arguments.without:
        sensitivity.MOST = 0
    source = Path(os.environ["COMPRESSNET_DATA"])
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.model == "lenet5":
        base, cases = of_lenet(source, arguments.folder), lenet_cases()
    else:
        base, cases = of_squeezenet(source, arguments.folder), squeezenet_cases()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.part} images\n")
    print("| what | numbers stored | top-1 % | convert, processor s |\n|---|---|---|---|")
    for name, layers, calibration in cases:
        if arguments.only not in name:
            continue
        file = arguments.folder / f"{os.getpid()}.safetensors"
        start = time.process_time()
        account = compressnet.convert(base | {"layers": layers, "calibration": calibration}, file, force=True)
        seconds = time.process_time() - start
        metrics = compressnet.evaluate(file, part=arguments.part, device="cpu")
        print(f"| {name} | {account.numel:,} | {metrics.top1:.2f} | {seconds:.0f} |", flush=True)
        file.unlink()


def of_squeezenet(source: Path, folder: Path) -> dict[str, Any]:
    """The recipe without its layers."""
    split(source / "imagenet-sample" / "val", folder)
    data = {"dataset": "imagefolder", "root": str(folder), "preset": "SqueezeNet1_1_Weights.IMAGENET1K_V1"}
    model = {"name": "squeezenet1_1", "weights": str(source / "weights" / "squeezenet1_1.pth")}
    return {"model": model, "data": data}


def of_lenet(source: Path, folder: Path) -> dict[str, Any]:
    """The same, of a model that is trained here first."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for archive in (source / "mnist").iterdir():
        if not (raw / archive.name).exists():
            (raw / archive.name).symlink_to(archive)
    data = {"dataset": "mnist", "root": str(folder), "val_fraction": 1 / 12}
    recipe: dict[str, Any] = {"model": {"name": "lenet5"}, "data": data}
    file = folder / "lenet5" / "best.safetensors"
    if not file.exists():
        compressnet.convert(recipe, folder / "untrained.safetensors", force=True)
        compressnet.finetune(
            folder / "untrained.safetensors", file.parent, overrides=["finetune.epochs=2", "data.batch_size=128"]
        )
    return recipe | {"model": {"name": "lenet5", "weights": str(file)}}


if __name__ == "__main__":
    main()
