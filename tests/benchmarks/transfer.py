"""What becomes of a compressed network on another task: Oxford flowers-17 from ImageNet's SqueezeNet 1.1, as a table.

    COMPRESSNET_DATA=/data python -m tests.benchmarks.transfer -o FOLDER [--epochs 6] [--seeds 2] [--only 4×]

The folder of data holds ``weights/squeezenet1_1.pth`` and ``flowers17-s160.tar``, whose ``train/`` and ``test/`` have
40 images of each class. Val is cut out of train. The 3×3 convolutions are FreshNet at 2× and 4×, fitted to 200 of the
training images. From the middle of the fine-tuning on all is trained through quantisers of 5 bits, but for the dense
network that teaches. Three ways there:

- *dense*: the pretrained network, with a new last layer, fine-tuned;
- *compressed, then fine-tuned*: the pretrained network is compressed, then gets a new last layer and is fine-tuned;
- *fine-tuned, then compressed*: the fine-tuned dense network is compressed, and learns from it and the labels.

More with ``--more``: the second way with the fine-tuned dense network as teacher, for twice as long, and with the last
layer compressed, too. ``--part val --lr …`` judges learning rates. What is done is kept in FOLDER, and not done again.
"""

import argparse
import json
import os
import statistics
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import compressnet
from compressnet.recipe import read_recipe
from tests.benchmarks.accuracy import markdown

Row = dict[str, Any]
DENSE = "dense, fine-tuned"
CLASSES = "model.num_classes=17"


@dataclass(frozen=True)
class Arm:
    """One way to a model of the flowers.

    Args:
        name: of the way.
        ratio: of the 3×3 convolutions; 1 leaves the network dense.
        lr: of the fine-tuning.
        bits: of the exported file, trained through; None is float16.
        tuned: whether the dense network is fine-tuned before it is compressed.
        taught: whether the fine-tuned dense network teaches.
        rounds: times the epochs.
        last: whether the last layer is compressed, too.
    """

    name: str
    ratio: int
    lr: float
    bits: int | None = 5
    tuned: bool = False
    taught: bool = False
    rounds: int = 1
    last: bool = False

    @property
    def folder(self) -> str:
        """Where it is kept."""
        return f"{self.name}, {self.ratio}×" if self.layers else f"{self.name}, {self.form}"

    @property
    def form(self) -> str:
        """Of the numbers in its file."""
        return f"{self.bits} bits" if self.bits else "float16"

    @property
    def layers(self) -> list[dict[str, Any]]:
        """Its rules."""
        rules = [{"match": {"type": "conv2d", "kernel": [3, 3], "min_numel": 2000}, "method": "freshnet"}]
        rules += [{"match": "classifier.1", "method": "hashednet"}] if self.last else []
        return [{**rule, "ratio": self.ratio} for rule in rules] if self.ratio > 1 else []


def arms(more: bool) -> Iterator[Arm]:
    """The dense one first: others need it."""
    yield Arm(DENSE, 1, 0.0005, bits=None)
    yield Arm(DENSE, 1, 0.0005)
    for ratio in (2, 4):
        yield Arm("compressed, then fine-tuned", ratio, 0.0005)
        yield Arm("fine-tuned, then compressed", ratio, 0.0005, tuned=True, taught=True)
    for ratio in (2, 4) if more else ():
        yield Arm("compressed, then fine-tuned with a teacher", ratio, 0.0005, taught=True)
        yield Arm("compressed, then fine-tuned for twice as long", ratio, 0.0005, rounds=2)
        yield Arm("compressed with its last layer, then fine-tuned", ratio, 0.0005, last=True)


def unpack(archive: Path, into: Path) -> Path:
    """The images in folders."""
    if not into.exists():
        making = into.with_suffix(".part")
        with tarfile.open(archive) as tar:
            tar.extractall(making, filter="data")
        (making / "flowers17-s160").rename(into)
        making.rmdir()
    return into


def recipe_for(arm: Arm, data: Path, images: Path, dense: Path, asked: argparse.Namespace, seed: int) -> Row:
    """What its file is converted by, and carries."""
    weights = dense if arm.tuned else data / "weights" / "squeezenet1_1.pth"
    return {
        "model": {"name": "squeezenet1_1", "weights": str(weights)},
        "data": {
            "dataset": "imagefolder",
            "root": str(images),
            "preset": "SqueezeNet1_1_Weights.IMAGENET1K_V1",
            "image_size": 160,
            "batch_size": 16,
            "augment": asked.augment,
            "val_fraction": 0.15,
        },
        "layers": arm.layers,
        "finetune": {
            "epochs": asked.epochs * arm.rounds,
            "lr": asked.lr or arm.lr,
            "distill": {} if arm.taught else None,
            "quantise": {} if arm.bits else None,
        },
        "export": {"bits": arm.bits},
        "seed": seed,
    }


def run(arm: Arm, recipe: Row, dense: Path, part: str, folder: Path) -> Row:
    """Convert, fine-tune, export and evaluate, from where an interrupted run has come to."""
    done, best, file = folder / f"{part}.json", folder / "best.safetensors", folder / "model.safetensors"
    if done.exists():
        return dict(json.loads(done.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    converted = folder / "converted.safetensors"
    overrides = [] if arm.tuned else [CLASSES]
    if arm.taught:
        overrides.append(f"model.weights={dense}")
    if not converted.exists():
        timed(folder, lambda: compressnet.convert(recipe, converted))
    if not file.exists():
        resume = (folder / "last.pt").exists()
        timed(
            folder,
            lambda: compressnet.finetune(
                converted, folder, device="cpu", overrides=overrides, resume=resume, force=not resume
            ),
        )
        compressnet.export(best, file)
    checked = read_recipe(recipe).checked()
    metrics = compressnet.evaluate(file, recipe=checked, part=part, device="cpu")
    row = {
        "way": arm.name,
        "3×3": f"{arm.ratio}×" if arm.layers else "dense",
        "stored numbers": compressnet.report(file)[0].numel,
        "form": arm.form,
        "top-1 %": metrics.top1,
        "loss": metrics.loss,
        "file, bytes": file.stat().st_size,
        "processor s": json.loads((folder / "seconds.json").read_text()),
    }
    done.write_text(json.dumps(row))
    print(json.dumps(row), flush=True)
    return row


def timed(folder: Path, work: Callable[[], object]) -> None:
    """Add what some work takes to what the folder's has taken, interrupted or not."""
    kept, begin = folder / "seconds.json", time.process_time()
    try:
        work()
    finally:
        before = json.loads(kept.read_text()) if kept.exists() else 0.0
        kept.write_text(json.dumps(before + time.process_time() - begin))


def summary(rows: list[Row]) -> Row:
    """One way at one ratio, of all seeds."""
    return {
        key: " / ".join(f"{row[key]:.2f}" for row in rows) + f", mean {statistics.mean(row[key] for row in rows):.2f}"
        if key in ("top-1 %", "loss")
        else f"{statistics.mean(row[key] for row in rows):,.0f}"
        if isinstance(value, int | float)
        else value
        for key, value in rows[0].items()
    }


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--augment", default="flip")
    parser.add_argument("--lr", type=float, help="in place of each way's own")
    parser.add_argument("--part", choices=["val", "test"], default="test")
    parser.add_argument("--only", default="", help="ways whose name has this in it, beside the teacher")
    parser.add_argument("--more", action="store_true", help="more ways")
    asked = parser.parse_args()
    data = Path(os.environ["COMPRESSNET_DATA"])
    asked.output.mkdir(parents=True, exist_ok=True)
    images = unpack(data / "flowers17-s160.tar", asked.output / "flowers")
    rows: dict[Arm, list[Row]] = {}
    for seed in range(asked.seeds):
        folder = asked.output / f"seed {seed}"
        ways = list(arms(asked.more))
        dense = folder / ways[0].folder / "best.safetensors"
        for arm in ways:
            if asked.only in arm.folder or arm.bits is None:
                recipe = recipe_for(arm, data, images, dense, asked, seed)
                row = run(arm, recipe, dense, asked.part, folder / arm.folder)
                rows.setdefault(arm, []).append(row)
    (asked.output / f"{asked.part}.json").write_text(
        json.dumps([row for each in rows.values() for row in each], indent=1)
    )
    print(markdown([summary(each) for each in rows.values()]))


if __name__ == "__main__":
    main()
