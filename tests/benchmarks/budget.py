"""What a budget chooses against one ratio for all layers, at equal file size and with equal fine-tuning, as a table.

    COMPRESSNET_DATA=/data python -m tests.benchmarks.budget lenet5|squeezenet1_1 -o FOLDER [--budget 6kB] [--part val]

``lenet5``: a dense LeNet-5 is trained on 55,000 images of MNIST, converted each way, distilled for a few epochs, and
exported to the budget; 5,000 images to choose the epoch by, test error on the 10,000. ``squeezenet1_1``: torchvision's
weights; 400 images to calibrate with and to distil on without their labels, 100 to choose the epoch by, 500 others to
report on, as in ``calibration.py``.

What is done is kept in FOLDER, and not done again.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compressnet
from compressnet.commands.finetune import finetune
from compressnet.recipe import read_recipe
from tests.benchmarks.accuracy import markdown
from tests.benchmarks.calibration import split

Row = dict[str, Any]
Rules = list[dict[str, Any]]
TEMPERED = {"temperature": 4, "weight": 0.9}


def lenet5(data: Path, folder: Path, epochs: int, seed: int) -> tuple[dict[str, Any], Rules, tuple[float, ...]]:
    """The recipe without its rules, the rules without their ratio, and the ratios to compare with."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for archive in (data / "mnist").glob("*.gz"):
        if not (raw / archive.name).exists():
            (raw / archive.name).symlink_to(archive)
    recipe: dict[str, Any] = {
        "model": {"name": "lenet5", "num_classes": 10},
        "data": {"dataset": "mnist", "root": str(folder), "image_size": 28, "batch_size": 128, "val_fraction": 1 / 12},
        "finetune": {"epochs": 3, "lr": 0.001},
        "seed": seed,
    }
    drawn, teacher = folder / f"drawn {seed}.safetensors", folder / f"dense {seed}" / "best.safetensors"
    if not teacher.exists():
        compressnet.convert(recipe, drawn, force=True)
        finetune(drawn, teacher.parent, device="cpu", force=True)
    recipe["model"] |= {"weights": str(teacher)}
    recipe["finetune"] = {"epochs": epochs, "lr": 0.001, "distill": TEMPERED}
    return recipe, [{"match": ["conv2", "fc1", "fc2"], "method": "hashednet"}], (16, 32, 64)


def squeezenet1_1(data: Path, folder: Path, epochs: int, seed: int) -> tuple[dict[str, Any], Rules, tuple[float, ...]]:
    """The same of SqueezeNet 1.1: its large layers, the others stay dense."""
    split(data / "imagenet-sample" / "val", folder / "images")
    recipe = {
        "model": {"name": "squeezenet1_1", "weights": str(data / "weights" / "squeezenet1_1.pth")},
        "data": {
            "dataset": "imagefolder",
            "root": str(folder / "images"),
            "preset": "SqueezeNet1_1_Weights.IMAGENET1K_V1",
        },
        "finetune": {"epochs": epochs, "lr": 0.0001, "distill": {"temperature": 2, "weight": 1}},
        "seed": seed,
    }
    large = [
        {"match": "*.expand3x3", "method": "freshnet"},
        {"match": "classifier.1", "method": "hashednet"},
    ]
    return recipe, large, (1, 1.5, 2, 3)


def arms(rules: Rules, ratios: tuple[float, ...], budget: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A name and what the recipe has of its own."""
    yield "chosen by the budget", {"layers": rules, "budget": budget}
    for ratio in ratios:
        yield f"{ratio:g}× everywhere", {"layers": [{**rule, "ratio": ratio} for rule in rules]}
    yield "no sharing at all", {"layers": []}


def run(name: str, recipe: dict[str, Any], budget: str, part: str, folder: Path) -> Row:
    """Convert, fine-tune, export and evaluate, unless that is done."""
    done, file = folder / f"{part} {budget}.json", folder / f"{budget}.safetensors"
    if done.exists():
        return dict(json.loads(done.read_text()))
    begin = time.process_time()
    last = folder / "converted.safetensors"
    if not last.exists():
        compressnet.convert(recipe, last)
    if recipe["finetune"]["epochs"] and recipe["layers"]:
        if not (folder / "best.safetensors").exists():
            finetune(last, folder, device="cpu", force=True)
        last = folder / "best.safetensors"
    exported = compressnet.export(last, file, target_size=budget, force=True)
    seconds = time.process_time() - begin
    metrics = compressnet.evaluate(file, recipe=read_recipe(recipe).checked(), part=part)
    row = {
        "ratios": name,
        "stored numbers": compressnet.report(file)[0].numel,
        "file, bytes": exported.nbytes,
        "top-1 %": round(metrics.top1, 2),
        "loss": round(metrics.loss, 4),
        "processor s": round(seconds),
    }
    done.write_text(json.dumps(row))
    print(json.dumps(row), flush=True)
    return row


MODELS = {"lenet5": (lenet5, "6kB", 2), "squeezenet1_1": (squeezenet1_1, "300kB", 2)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--budget")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=["val", "test"], default="test")
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    asked = parser.parse_args()
    prepare, usual, epochs = MODELS[asked.model]
    budget, folder = asked.budget or usual, asked.output / asked.model
    folder.mkdir(parents=True, exist_ok=True)
    epochs = epochs if asked.epochs is None else asked.epochs
    recipe, rules, ratios = prepare(Path(os.environ["COMPRESSNET_DATA"]), folder, epochs, asked.seed)
    rows = [
        run(name, recipe | own, budget, asked.part, folder / f"{name} {own.get('budget', '')} {epochs} {asked.seed}")
        for name, own in arms(rules, ratios, budget)
        if asked.only in name
    ]
    print(markdown(rows))
