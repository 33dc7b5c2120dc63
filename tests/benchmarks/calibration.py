"""Top-1 of SqueezeNet 1.1 right after conversion, before any training: weights alone against calibration.

    COMPRESSNET_DATA=/data python tests/benchmarks/calibration.py [--part val] [--only 4x] [--folder FOLDER]

COMPRESSNET_DATA holds ``weights/squeezenet1_1.pth`` and ``imagenet-sample/val``, an image for each ImageNet class. A
specified permutation cuts the images into 400 to calibrate with, 100 to choose by (``val``) and 500 to report on
(``test``, the default); FOLDER takes the split, as links.
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


def threes(ratio: float, **keys: Any) -> list[dict[str, Any]]:
    """All 3×3 convolutions as FreshNet."""
    return [{"match": THREES, "method": "freshnet", "ratio": ratio, **keys}]


def whole(ratio: float, hashing: str, **keys: Any) -> list[dict[str, Any]]:
    """All convolutions, those of a single coefficient as HashedNet."""
    ones = {"match": {"type": "conv2d"}, "method": "hashednet", "ratio": ratio, "hashing": hashing}
    return [*threes(ratio, hashing=hashing, **keys), ones]


def cases() -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any] | None]]:
    """A name, the layers, and the calibration of each row."""
    yield "dense", [], None
    yield "3×3 at 2×, balanced, weights alone", threes(2), None
    for hashing in ("balanced", "independent"):
        yield f"3×3 at 2×, {hashing}", threes(2, hashing=hashing), {}
        yield f"3×3 at 4×, {hashing}", threes(4, hashing=hashing), {}
        yield f"3×3 at 4×, {hashing}, β 6", threes(4, hashing=hashing, beta=6), {}
        yield f"whole network at 2×, {hashing}", whole(2, hashing), {}
    yield "3×3 at 2×, balanced, α = β = 1", threes(2, alpha=1, beta=1), {}
    yield "3×3 at 2×, balanced, 400 images", threes(2), {"images": 400}
    yield "3×3 at 4×, balanced, β 6, 400 images", threes(4, beta=6), {"images": 400}
    yield "whole network at 2×, balanced, 400 images", whole(2, "balanced"), {"images": 400}


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description="accuracy right after conversion")
    parser.add_argument("--part", choices=["val", "test"], default="test", help="the images that are reported on")
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "compressnet-calibration")
    arguments = parser.parse_args()
    data = Path(os.environ["COMPRESSNET_DATA"])
    split(data / "imagenet-sample" / "val", arguments.folder)
    base = {
        "model": {"name": "squeezenet1_1", "weights": str(data / "weights" / "squeezenet1_1.pth")},
        "data": {
            "dataset": "imagefolder",
            "root": str(arguments.folder),
            "preset": "SqueezeNet1_1_Weights.IMAGENET1K_V1",
        },
    }
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.part} images\n")
    print("| what | numbers stored | top-1 % | convert, s |\n|---|---|---|---|")
    file = arguments.folder / "converted.safetensors"
    for name, layers, calibration in cases():
        if arguments.only not in name:
            continue
        start = time.perf_counter()
        account = compressnet.convert(base | {"layers": layers, "calibration": calibration}, file, force=True)
        seconds = time.perf_counter() - start
        metrics = compressnet.evaluate(file, part=arguments.part, device="cpu")
        print(f"| {name} | {account.numel:,} | {metrics.top1:.1f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
