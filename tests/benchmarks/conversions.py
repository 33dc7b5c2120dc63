"""How long planning, converting and loading whole models takes, and how much memory above the dense model.

    python tests/benchmarks/conversions.py [--json FILE] [--images 200]

Models have torchvision's own initialisation, given as a state_dict; weights are projected by themselves, Deep-Fried
layers fitted on normal vectors; with --images they are calibrated on so many random images. Each model has a process of
its own: peak memory is that of the process, less its peak before converting (imports and a dry run) and less the dense
model's own bytes; 0 where it stays below.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torchvision.models import get_model

FRESHNET = {"match": {"type": "conv2d"}, "method": "freshnet", "ratio": 16}
CASES: dict[str, list[dict[str, Any]]] = {
    "resnet50": [FRESHNET, {"match": "fc", "method": "hashednet", "ratio": 8}],
    "vgg16": [
        FRESHNET,
        {"match": ["classifier.0", "classifier.3"], "method": "deepfried"},
        {"match": "classifier.6", "method": "hashednet", "ratio": 8},
    ],
    "vit_b_16": [FRESHNET, {"match": "*.mlp.*", "method": "hashednet", "ratio": 8}],
}
SAVE = """
import sys, torch
from torchvision.models import get_model
torch.save(get_model(sys.argv[1]).state_dict(), sys.argv[2])
"""


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def measure(name: str, images: int) -> dict[str, str | float]:
    """One model, in this process."""
    import compressnet
    from compressnet.commands import convert  # noqa: F401 - imported before the clock starts

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / f"{name}.pth"
        subprocess.run([sys.executable, "-c", SAVE, name, str(weights)], check=True)
        recipe = {"model": {"name": name, "weights": str(weights)}, "layers": CASES[name], "calibration": None}
        if images:
            data = {"dataset": "fake", "image_size": 224, "samples": images, "val_fraction": 0.01}
            recipe |= {"data": data, "calibration": {"images": images}}
        get_model("alexnet", num_classes=2)  # warms the imports up
        start = time.perf_counter()
        compressnet.convert(recipe, dry_run=True)
        planned = time.perf_counter() - start
        before = peak_mb()
        start = time.perf_counter()
        account = compressnet.convert(recipe, Path(folder) / "a.safetensors")
        converted = time.perf_counter() - start
        above = peak_mb() - before - account.dense_nbytes / 1e6
        start = time.perf_counter()
        compressnet.load(Path(folder) / "a.safetensors", form="compressed")
        loaded = time.perf_counter() - start
    return {
        "model": name,
        "dry run, s": round(planned, 2),
        "convert, s": round(converted, 1),
        "dense, MB": round(account.dense_nbytes / 1e6),
        "peak above it, MB": max(0, round(above)),
        "load, s": round(loaded, 2),
        "numbers": f"{account.dense_numel:,} → {account.numel:,}",
    }


def main() -> None:
    """All models, one process each."""
    parser = argparse.ArgumentParser(description="time and memory of whole models")
    parser.add_argument("--only", choices=list(CASES), help="one model, in this process, as JSON")
    parser.add_argument("--images", type=int, default=0, help="to calibrate on; none by default")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments.images)))
        return
    rows = []
    for name in CASES:
        call = [sys.executable, __file__, "--only", name, "--images", str(arguments.images)]
        out = subprocess.run(call, check=True, capture_output=True, text=True)
        rows.append(json.loads(out.stdout))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
