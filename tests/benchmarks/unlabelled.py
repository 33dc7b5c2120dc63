"""SqueezeNet 1.1, compressed and brought back on 400 images without their labels, as a table.

    COMPRESSNET_DATA=/data python -m tests.benchmarks.unlabelled -o FOLDER [--only TEXT] [--part val] [--seed N]

torchvision's weights are the dense model and the teacher. A specified permutation cuts an image for each of ImageNet's
classes into 400 to learn from, 100 to choose the epoch by, and 500 to report on, as in ``calibration.py``. Each row is
projected (weights alone), calibrated on the 400, and distilled on them, all by recipe.

What is done is kept in FOLDER, and not done again.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import compressnet
from compressnet.commands.finetune import finetune
from tests.benchmarks.accuracy import Row, markdown
from tests.benchmarks.calibration import of_squeezenet, threes, whole

CASES: dict[str, list[dict[str, Any]]] = {
    "dense": [],
    "3×3 at 2×": threes(2),
    "3×3 at 4×": threes(4),
    "whole network at 2×, one form": whole(2, "balanced"),
    "whole network at 2×, chosen by layer": [
        {"match": "*.expand3x3", "method": "freshnet", "ratio": 2.4, "beta": 6},
        {"match": "classifier.1", "method": "lowrank", "ratio": 2.4},
    ],
    "whole network at 2×, pruned": [{"match": {"type": "conv2d"}, "method": "pruned", "density": 0.5}],
}


def recipe(base: dict[str, Any], layers: list[dict[str, Any]], asked: argparse.Namespace) -> dict[str, Any]:
    """What a row does: the dense model's answers alone teach, on crops that it sees as well."""
    return base | {
        "data": base["data"] | {"batch_size": 20, "augment": "crop"},
        "layers": layers,
        "calibration": {"images": 400},
        "finetune": {
            "epochs": asked.epochs,
            "lr": asked.lr,
            "dropout": 0,
            "labels": False,
            "distill": {"temperature": 1},
        },
        "seed": asked.seed,
    }


def run(name: str, settings: dict[str, Any], part: str, place: Path) -> Row:
    """Project, calibrate, distil, each judged once, unless that is done."""
    done = place / f"{part}.json"
    if done.exists():
        return dict(json.loads(done.read_text()))
    projected, calibrated = place / "projected.safetensors", place / "calibrated.safetensors"
    begin = time.process_time()
    account = compressnet.convert(settings | {"calibration": None}, projected, force=True)
    row: Row = {"what": name, "numbers": account.numel}
    stages = {"projected": projected}
    if settings["layers"]:
        compressnet.convert(settings, calibrated, force=True)
        fitted = time.process_time() - begin
        begin = time.process_time()
        trained = finetune(calibrated, place / "tuned", device="cpu", force=True)
        row["calibrated, divergence on val"] = round(trained.before.divergence, 4)
        row["distilled, divergence on val"] = round(trained.best.divergence, 4)
        row["calibrate, processor s"] = round(fitted)
        row["distil, processor s"] = round(time.process_time() - begin)
        stages |= {"calibrated": calibrated, "distilled": trained.path}
    for stage, file in stages.items():
        row[f"{stage}, top-1 %"] = round(compressnet.evaluate(file, part=part, device="cpu").top1, 2)
    done.write_text(json.dumps(row, ensure_ascii=False))
    print(json.dumps(row, ensure_ascii=False), flush=True)
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--part", choices=["val", "test"], default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.00001)
    asked = parser.parse_args()
    base = of_squeezenet(Path(os.environ["COMPRESSNET_DATA"]), asked.output / "images")
    rows = []
    for name, layers in CASES.items():
        if asked.only in name:
            place = asked.output / f"{name}, {asked.epochs} epochs at {asked.lr:g}, seed {asked.seed}"
            place.mkdir(parents=True, exist_ok=True)
            rows.append(run(name, recipe(base, layers, asked), asked.part, place))
    columns = dict.fromkeys(key for row in rows for key in row)
    print(markdown([{key: row.get(key, "") for key in columns} for row in rows]))
