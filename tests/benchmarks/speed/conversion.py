"""One model converted in a process of its own, whose peak memory tells what that takes.

    python -m tests.benchmarks.speed.conversion CASE [--images N] [--threads N]

The model has torchvision's own initialisation, given as a state_dict; weights are projected by themselves, or
calibrated on so many random images. Memory is the process's peak less what it has before, once a small module has been
compressed: torch and Numba with their machine code, which any process has once, are no part of it. Prints JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import compressnet
from compressnet.commands import convert  # noqa: F401 - imported before the clock starts
from tests.benchmarks.speed.memory import resident, warm_up

FRESHNET = {"match": {"type": "conv2d"}, "method": "freshnet", "ratio": 16}
HASHED = {"method": "hashednet", "ratio": 8}
DEEPFRIED = {"match": ["classifier.0", "classifier.3"], "method": "deepfried"}
CASES: dict[str, list[dict[str, Any]]] = {
    "resnet50": [FRESHNET, HASHED | {"match": "fc"}],
    "vit_b_16": [FRESHNET, HASHED | {"match": "*.mlp.*"}],
    "vgg16": [FRESHNET, DEEPFRIED | {"init": "random"}, HASHED | {"match": "classifier.6"}],
    "vgg16 fitted": [FRESHNET, DEEPFRIED, HASHED | {"match": "classifier.6"}],
}
SAVE = """
import sys, torch
from torchvision.models import get_model
torch.save(get_model(sys.argv[1]).state_dict(), sys.argv[2])
"""


def main(case: str, images: int) -> dict[str, float]:
    """Seconds, and those of the processor; bytes above before, and those of the dense model and two largest layers."""
    name = case.split()[0]
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / f"{name}.pth"
        subprocess.run([sys.executable, "-c", SAVE, name, str(weights)], check=True)
        recipe: dict[str, Any] = {
            "model": {"name": name, "weights": str(weights)},
            "layers": CASES[case],
            "calibration": None,
        }
        if images:
            data = {"dataset": "fake", "image_size": 224, "samples": images, "val_fraction": 0.01}
            recipe |= {"data": data, "calibration": {"images": images}}
        account = compressnet.convert(recipe, dry_run=True)
        warm_up()
        before, start, began = resident("VmRSS"), time.perf_counter(), time.process_time()
        compressnet.convert(recipe, Path(folder) / "a.safetensors")
        seconds, processor = time.perf_counter() - start, time.process_time() - began
    peak = resident("VmHWM")
    largest = sorted(4 * row.dense_numel for row in account.rows)[-2:]
    allowed = 4 * account.dense_numel + sum(largest)
    return {"seconds": seconds, "processor": processor, "above": peak - before, "allowed": allowed}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("--images", type=int, default=0, help="to calibrate on; none by default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(json.dumps(main(asked.case, asked.images)))
