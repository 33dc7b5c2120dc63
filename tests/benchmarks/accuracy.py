"""What each method costs in accuracy, all of them in one run, as markdown tables.

    COMPRESSNET_DATA=/path/to/data python tests/benchmarks/accuracy.py scratch|lenet5 -o FOLDER [--epochs N] [--seeds N]

``scratch`` is FreshNets' central claim: its CNN, trained from a random start in every form, on 4,000 images of MNIST;
1,000 others to choose the epoch by, the 10,000 test images evaluated once. ``lenet5`` converts one dense LeNet-5,
trained in the same loop on 55,000 images of MNIST, into every form at about 1/16, and fine-tunes each with
distillation.

What is done is kept in FOLDER, and not done again: the same command goes on where it was interrupted.
"""

import argparse
import gzip
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from compressnet.commands.convert import convert
from compressnet.commands.export import export
from compressnet.commands.finetune import finetune
from compressnet.maths.hashing import permutation

Row = dict[str, Any]
Rules = list[dict[str, Any]]
RATIO = 20.3  # of conv2 and fc1 of LeNet-5, for 1/16 of its 431,080 numbers
CONVOLUTIONS = [f"conv{number}" for number in range(1, 6)]


@dataclass(frozen=True)
class Arm:
    """One form of a net.

    Args:
        name: unique in its table.
        layers: the recipe's rules.
        ratio: dense numbers per stored number that it is meant to have.
    """

    name: str
    layers: Rules
    ratio: float = 1


def read_mnist(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of MNIST's ``train`` or ``t10k`` archives."""
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        return images, np.frombuffer(file.read(), np.uint8, offset=8)


def cut_mnist(folder: Path, into: Path, counts: dict[str, int]) -> Path:
    """Folders of PNG images: so many of MNIST's training part for each; all test images where none are counted."""
    if into.exists():
        return into
    images, labels = read_mnist(folder, "train")
    order = permutation(len(images), 0).astype(np.int64)
    cuts = dict(zip(counts, np.split(order, np.cumsum(list(counts.values()))), strict=False))
    parts = {part: (images[chosen], labels[chosen]) for part, chosen in cuts.items()}
    parts.setdefault("test", read_mnist(folder, "t10k"))
    making = into.with_suffix(".part")
    for part, (pictures, digits) in parts.items():
        for number, (picture, digit) in enumerate(zip(pictures, digits, strict=True)):
            path = making / part / str(digit) / f"{number:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    making.rename(into)
    return into


def scratch_arms() -> Iterator[Arm]:
    """The dense net, then every form at 1/16 and at 1/64; the FC layer is hashed, as the paper does, in every form."""
    yield Arm("dense", [])
    for ratio in (16, 64):
        forms: dict[str, dict[str, Any]] = {
            "freshnet": {"method": "freshnet"},
            "freshnet, β 6": {"method": "freshnet", "beta": 6},
            "hashednet": {"method": "hashednet"},
            "hashednet, independent hash": {"method": "hashednet", "hashing": "independent"},
            "dropfreq": {"method": "dropfreq"},
            "lowrank": {"method": "lowrank"},
            "dropfilt": {"method": "dropfilt"},
            "freshnet, independent hash": {"method": "freshnet", "hashing": "independent"},
            "freshnet, β 6, independent hash": {"method": "freshnet", "beta": 6, "hashing": "independent"},
        }
        for name, form in forms.items():
            head = {"match": "fc", "method": "hashednet", "ratio": ratio}
            if "hashing" in form:
                head |= {"hashing": form["hashing"]}
            rules = [{"match": CONVOLUTIONS, "ratio": ratio} | form]
            if name == "lowrank" and ratio == 64:  # 1/64 of the first three is less than one rank has
                rules = [form | {"match": CONVOLUTIONS[:3], "rank": 1}, form | {"match": CONVOLUTIONS[3:], "ratio": 64}]
            yield Arm(name, [*rules, head], ratio)


def scratch(data: Path, folder: Path, epochs: int, seeds: int) -> Iterator[Row]:
    """FreshNets' central claim: test error of its CNN in every form, trained from a random start."""
    root = cut_mnist(data / "mnist", folder / "mnist4k", {"train": 4000, "val": 1000})
    for arm in scratch_arms():
        for seed in range(seeds):
            recipe = {
                "model": {"name": "freshnets_cnn", "num_classes": 10},
                "data": {"dataset": "imagefolder", "root": str(root), "image_size": 32, "batch_size": 50},
                "layers": arm.layers,
                "finetune": {"epochs": epochs, "lr": 0.001},
                "seed": seed,
            }
            yield run(arm, recipe, folder / "scratch" / f"{arm.name} {arm.ratio:g} {seed}")


def lenet5_arms() -> Iterator[Arm]:
    """Every form of conv2 and fc1 at about 1/20, which makes 1/16 of the whole net; conv1 and fc2 stay dense."""
    both, conv, dense = ["conv2", "fc1"], {"match": "conv2", "method": "freshnet", "ratio": RATIO}, {"match": "fc1"}
    yield Arm("freshnet", [conv, dense | {"method": "hashednet", "ratio": RATIO}])
    for method in ("hashednet", "dropfreq", "dropfilt", "lowrank"):
        yield Arm(method, [{"match": both, "method": method, "ratio": RATIO}])
    yield Arm("pruned", [{"match": both, "method": "pruned", "density": 1 / RATIO}])
    yield Arm("monarch, conv2 freshnet", [conv, dense | {"method": "monarch", "blocks": 15}])
    yield Arm("acdc", [{"match": "conv2", "method": "acdc", "depth": 2}, dense | {"method": "acdc", "depth": 12}])
    yield Arm("deepfried, conv2 freshnet", [conv, dense | {"method": "deepfried", "copies": 8}])
    run = {"match": ["fc1", "relu3"]}
    yield Arm("deepfried_head 2048, conv2 freshnet", [conv, run | {"block": "deepfried_head", "features": 2048}])
    yield Arm("deepfried_head 1024, conv2 freshnet", [conv, run | {"block": "deepfried_head", "features": 1024}])
    yield Arm("acdc_stack, conv2 freshnet", [conv, run | {"block": "acdc_stack", "features": 500, "depth": 8}])
    independent = {"ratio": RATIO, "hashing": "independent"}
    yield Arm("freshnet, independent hash", [conv | independent, dense | {"method": "hashednet"} | independent])
    yield Arm("hashednet, independent hash", [{"match": both, "method": "hashednet"} | independent])


def lenet5(data: Path, folder: Path, epochs: int, seeds: int) -> Iterator[Row]:
    """LeNet-5 on MNIST at 1/16: test error of every form, from the same dense net, distilled from it."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for archive in (data / "mnist").glob("*.gz"):
        if not (raw / archive.name).exists():
            (raw / archive.name).symlink_to(archive)
    images = {"dataset": "mnist", "root": str(folder), "image_size": 28, "batch_size": 128, "val_fraction": 1 / 12}
    for seed in range(seeds):
        recipe = {
            "model": {"name": "lenet5", "num_classes": 10},
            "data": images,
            "finetune": {"epochs": 2 * epochs, "lr": 0.001},
            "seed": seed,
        }
        teacher = folder / "lenet5" / f"dense {seed}"
        yield run(Arm("dense", []), recipe, teacher)
        recipe["model"] |= {"weights": str(teacher / "best.safetensors")}
        recipe["calibration"] = {"images": 1000}
        recipe["finetune"] = {"epochs": epochs, "lr": 0.001, "distill": {"temperature": 4, "weight": 0.9}}
        for arm in lenet5_arms():
            yield run(arm, recipe | {"layers": arm.layers}, folder / "lenet5" / f"{arm.name} {seed}")


def run(arm: Arm, recipe: dict[str, Any], folder: Path) -> Row:
    """Convert and fine-tune, unless that is done."""
    done = folder / "row.json"
    if done.exists():
        return dict(json.loads(done.read_text()))
    account = convert(recipe, folder / "converted.safetensors", force=True)
    begin = time.process_time()
    trained = finetune(folder / "converted.safetensors", folder, device="cpu", resume=(folder / "last.pt").exists())
    exported = export(folder / "best.safetensors", folder / "model.safetensors", force=True)
    row = {
        "form": arm.name,
        "ratio": round(account.dense_numel / account.numel, 1),
        "seed": recipe["seed"],
        "stored numbers": account.numel,
        "file bytes": exported.nbytes,
        "error at the start %": round(100 - trained.before.top1, 2),
        "error %": round(100 - trained.test.top1, 2),
        "error to choose by %": round(100 - trained.best.top1, 2),
        "epoch chosen": trained.best_epoch,
        "processor s an epoch": round((time.process_time() - begin) / recipe["finetune"]["epochs"], 1),
    }
    done.write_text(json.dumps(row))
    print(json.dumps(row), flush=True)
    return row


def markdown(rows: list[Row]) -> str:
    """A table whose columns are the keys of the rows."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TABLES = {"scratch": scratch, "lenet5": lenet5}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1)
    asked = parser.parse_args()
    rows = list(TABLES[asked.table](Path(os.environ["COMPRESSNET_DATA"]), asked.output, asked.epochs, asked.seeds))
    (asked.output / f"{asked.table}.json").write_text(json.dumps(rows, indent=1))
    print(markdown(rows))
