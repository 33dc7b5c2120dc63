"""What brings the accuracy of a compressed network back, one thing at a time, as tables.

    COMPRESSNET_DATA=/data python -m tests.benchmarks.recovery scale|decay|calibrate|gradual|stages -o FOLDER

``scale``: how large shared values are when training begins. ``decay``: how shared values decay. ``calibrate``: a
second fit of layers, more images and passes, without training. ``gradual``: dense weights that become compressed while
they are trained, and a ratio that rises in two steps. ``stages``: what each stage is worth, on and off.

LeNet-5 learns from 10,000 training images of MNIST and is judged by 5,000 others of them; the test images are not
looked at. The dense model is trained on the same images in the same loop. ``conv2`` and ``fc1`` are compressed.

For ``calibrate`` and ``stages`` there is ``--model squeezenet1_1``, with its 3×3 convolutions at 4× and the images of
``calibration.py``: 400 to learn from, 100 to choose the epoch by, and 500 to report on.

What is done is kept in FOLDER, and not done again: the same command goes on where it was interrupted.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import compressnet
from compressnet.checkpoint import load, save
from compressnet.commands.finetune import finetune
from compressnet.description import describe
from compressnet.layers import CompressedLayer
from tests.benchmarks.accuracy import cut_mnist, markdown
from tests.benchmarks.calibration import of_squeezenet, threes

Row = dict[str, Any]
Recipe = dict[str, Any]
DISTIL = {"temperature": 4, "weight": 0.9}
RATIOS = (16, 64)


@dataclass(frozen=True)
class Arm:
    """A row of a table.

    Args:
        cells: what tells it from the others.
        recipe: what it has of its own.
        factor: that shared values are multiplied by before training.
        first: another recipe of its own, by which half of the epochs are trained before.
    """

    cells: Row
    recipe: Recipe = field(default_factory=dict)
    factor: float = 1.0
    first: Recipe | None = None


def lenet5(data: Path, folder: Path, epochs: int) -> Recipe:
    """The recipe without its layers; the dense model is trained first, where it is not there."""
    root = cut_mnist(data / "mnist", folder / "mnist10k", {"train": 10_000, "val": 5_000, "test": 500})
    recipe: Recipe = {
        "model": {"name": "lenet5", "num_classes": 10},
        "data": {"dataset": "imagefolder", "root": str(root), "image_size": 28, "batch_size": 64},
        "finetune": {"epochs": 8, "lr": 0.001},
    }
    done = folder / "dense.json"
    if not done.exists():
        compressnet.convert(recipe, folder / "dense.safetensors", force=True)
        trained = finetune(folder / "dense.safetensors", folder / "dense", device="cpu", force=True)
        done.write_text(json.dumps(trained.best.to_json()))
    recipe["model"]["weights"] = str(folder / "dense" / "best.safetensors")
    recipe["finetune"] = {"epochs": epochs, "lr": 0.001, "distill": DISTIL}
    return recipe


def rules(method: str, ratio: float, **keys: Any) -> list[Recipe]:
    """``conv2`` in a form, ``fc1`` hashed."""
    forms = {"conv2": method, "fc1": "hashednet"}
    return [{"match": name, "method": form, "ratio": ratio, **keys} for name, form in forms.items()]


def scale(base: Recipe) -> Iterator[Arm]:
    """Bucket means shrink a weight by √ratio; here they are multiplied by a factor between 1 and that."""
    for ratio in RATIOS:
        for start in ("bucket means", "calibrated", "drawn"):
            for name, factor in (("1", 1.0), ("ratio^¼", ratio**0.25), ("√ratio", ratio**0.5)):
                recipe: Recipe = {"layers": rules("freshnet", ratio)}
                recipe["calibration"] = {} if start == "calibrated" else None
                if start == "drawn":  # its weights have the norm of the dense draw, as with √ratio
                    factor /= math.sqrt(ratio)
                    recipe["model"] = base["model"] | {"weights": None}
                    recipe["finetune"] = base["finetune"] | {"distill": None}
                yield Arm({"ratio": ratio, "start": start, "times": name}, recipe, factor)


def decay(base: Recipe) -> Iterator[Arm]:
    """Weight decay of shared values alone; that of dense layers is the section's."""
    sections = {
        "sgd": {"optimizer": "sgd", "lr": 0.005, "weight_decay": 0.0005},
        "adamw": {"optimizer": "adamw", "lr": 0.001, "weight_decay": 0.1},
    }
    for ratio in RATIOS:
        for name, section in sections.items():
            usual = section["weight_decay"]
            assert isinstance(usual, float)
            ways = {"none": 0.0, "÷ ratio": usual / ratio, "as is": usual, "× ratio": usual * ratio}
            for way, number in ways.items():
                layers = rules("freshnet", ratio, weight_decay=number)
                cells = {"ratio": ratio, "optimizer": name, "shared values decay": way, "by": number}
                yield Arm(cells, {"layers": layers, "finetune": base["finetune"] | section})


def calibrate(base: Recipe) -> Iterator[Arm]:
    """Convert's own fit, of 200 images or more, and a second one after it or in its place; no epoch of training."""
    squeezenet = base["model"]["name"] == "squeezenet1_1"
    counts = (400,) if squeezenet else (1000, 5000)
    for ratio in (4,) if squeezenet else RATIOS:
        layers = threes(ratio) if squeezenet else rules("freshnet", ratio)
        first: list[Recipe | None] = [None, {}, *({"images": count} for count in counts)]
        for calibration in first:
            ways: list[Recipe | None] = [None]
            if calibration in (None, {}):
                ways += [{"images": 200}, *({"images": count} for count in counts), {"images": counts[0], "passes": 2}]
            for again in ways:
                cells = {"ratio": ratio, "convert": said(calibration), "finetune.calibrate": said(again)}
                own = base["finetune"] | {"epochs": 0, "distill": None, "calibrate": again}
                yield Arm(cells, {"layers": layers, "calibration": calibration, "finetune": own})


def said(section: Recipe | None) -> str:
    """A section of calibration in words."""
    if section is None:
        return "none"
    return f"{section.get('images', 200)} images, {section.get('passes', 1)} passes".removesuffix(", 1 passes")


def gradual(base: Recipe) -> Iterator[Arm]:
    """Compressed at once, or for half of the epochs mixed with dense weights, or at a quarter of the ratio."""
    for ratio in RATIOS:
        for form in ("hashednet", "freshnet"):
            cells, layers = {"ratio": ratio, "form": form}, {"layers": rules(form, ratio)}
            yield Arm(cells | {"way": "at once"}, layers)
            mixed = base["finetune"] | {"gradual": {"until": 0.5}}
            yield Arm(cells | {"way": "mixed until ½"}, layers | {"finetune": mixed})
            yield Arm(cells | {"way": "at a quarter until ½"}, layers, first={"layers": rules(form, ratio / 4)})


def stages(base: Recipe) -> Iterator[Arm]:
    """What each is worth: from weights alone and labels alone, and from what a recipe does by default."""
    squeezenet = base["model"]["name"] == "squeezenet1_1"
    ratio = 4 if squeezenet else 64
    layers = threes(ratio) if squeezenet else rules("freshnet", ratio)
    for name, calibration, own, factor in (
        ("labels", None, {"distill": None}, 1.0),
        ("distillation", None, {}, 1.0),
        ("√ratio, distillation", None, {}, math.sqrt(ratio)),
        ("calibrate, distillation", None, {"calibrate": {}}, 1.0),
        ("gradual, distillation", None, {"gradual": {}}, 1.0),
        ("convert calibrates, labels", {}, {"distill": None}, 1.0),
        ("convert calibrates, distillation", {}, {}, 1.0),
        ("convert calibrates, √ratio, distillation", {}, {}, math.sqrt(ratio)),
        ("convert calibrates, calibrate, distillation", {}, {"calibrate": {}}, 1.0),
        ("convert calibrates, gradual, distillation", {}, {"gradual": {}}, 1.0),
    ):
        recipe = {"layers": layers, "calibration": calibration, "finetune": base["finetune"] | own}
        yield Arm({"ratio": ratio, "stages": name}, recipe, factor)


def multiply_(file: Path, factor: float) -> None:
    """Multiply the compressed weights of a file."""
    model = load(file, form="compressed")
    for module in model.modules():
        if isinstance(module, CompressedLayer):
            module.structured.scale_(factor)
    save(model, file, describe(file), force=True)


def halfway(recipe: Recipe, place: Path) -> Path:
    """A file that is trained by a recipe, as the dense weights of another."""
    compressnet.convert(recipe, place / "first.safetensors", force=True)
    return finetune(place / "first.safetensors", place / "first", device="cpu", force=True).path


def learn_from_(file: Path, weights: str) -> None:
    """Name the dense model that a file is to learn from."""
    described = describe(file)
    recipe = {**described.recipe, "model": {**described.recipe["model"], "weights": weights}}
    save(load(file, form="compressed"), file, dataclasses.replace(described, recipe=recipe), force=True)


def run(arm: Arm, base: Recipe, folder: Path) -> Row:
    """Convert and fine-tune, unless that is done; judged on the part val."""
    place = folder / hashlib.sha256(json.dumps([arm.cells, base["finetune"], base["seed"]]).encode()).hexdigest()[:16]
    done = place / "row.json"
    if done.exists():
        return dict(json.loads(done.read_text()))
    start, begin = place / "converted.safetensors", time.process_time()
    recipe = base | arm.recipe
    if arm.first is not None:
        half = {"finetune": base["finetune"] | {"epochs": base["finetune"]["epochs"] // 2}}
        first = halfway(base | arm.first | half, place)
        compressnet.convert(recipe | half | {"model": base["model"] | {"weights": str(first)}}, start, force=True)
        learn_from_(start, base["model"]["weights"])
    else:
        compressnet.convert(recipe, start, force=True)
    if arm.factor != 1:
        multiply_(start, arm.factor)
    trained = finetune(start, place / "tuned", device="cpu", force=True)
    history = [json.loads(line) for line in (place / "tuned" / "metrics.jsonl").read_text().splitlines()]
    row = arm.cells | {"seed": base["seed"], "numbers": compressnet.report(start)[0].numel}
    for name, val in {"before": trained.before, **trained.stages, "best": trained.best}.items():
        row |= {f"{name} %": round(val.top1, 2), f"{name} loss": round(val.loss, 4)}
    if base["model"]["name"] != "lenet5":
        row["test %"] = round(trained.test.top1, 2)
    row["by epoch"] = [round(line["val"]["top1"], 2) for line in history if line["epoch"]]
    row["processor s"] = round(time.process_time() - begin)
    done.write_text(json.dumps(row))
    print(json.dumps(row, ensure_ascii=False), flush=True)
    return row


def mean(rows: list[Row]) -> list[Row]:
    """Rows of several seeds as one, with the mean of what was measured."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(list(row.items())[: list(row).index("seed")]), []).append(row)
    merged = []
    for group in groups.values():
        row = {key: value for key, value in group[0].items() if key not in ("by epoch", "processor s")}
        measured = [key for key in row if key.endswith((" %", " loss"))]
        means = {key: round(sum(each[key] for each in group) / len(group), 4) for key in measured}
        merged.append(row | {"seed": ", ".join(str(each["seed"]) for each in group)} | means)
    return merged


def squeezenet1_1(data: Path, folder: Path, epochs: int) -> Recipe:
    """The recipe without its layers; torchvision's weights are the dense model."""
    base = of_squeezenet(data, folder)
    base["data"] |= {"batch_size": 20, "augment": "crop"}
    return base | {"finetune": {"epochs": epochs, "lr": 0.00002, "distill": {"temperature": 1, "weight": 1.0}}}


MODELS = {"lenet5": lenet5, "squeezenet1_1": squeezenet1_1}
TABLES: dict[str, Callable[[Recipe], Iterator[Arm]]] = {
    "scale": scale,
    "decay": decay,
    "calibrate": calibrate,
    "gradual": gradual,
    "stages": stages,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--model", choices=MODELS, default="lenet5", help="of calibrate and stages")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--only", default="", help="rows whose cells have this in them")
    asked = parser.parse_args()
    folder = asked.output / asked.model
    folder.mkdir(parents=True, exist_ok=True)
    base = MODELS[asked.model](Path(os.environ["COMPRESSNET_DATA"]), folder, asked.epochs)
    rows = [
        run(arm, base | {"seed": seed}, folder / asked.table)
        for seed in range(asked.seeds)
        for arm in TABLES[asked.table](base)
        if asked.only in str(arm.cells)
    ]
    (folder / f"{asked.table}.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False))
    merged = mean(rows)
    columns = dict.fromkeys(key for row in merged for key in row)
    print(markdown([{key: row.get(key, "") for key in columns} for row in merged]))
