"""One model converted in a process of its own, whose peak memory tells what that takes.

    python -m tests.benchmarks.speed.conversion CASE [THREADS]

The model has torchvision's own initialisation, given as a state_dict. Memory is the process's peak less its peak before
(imports and a dry run). Prints a row of JSON.
"""

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

import compressnet
from compressnet.commands import convert  # noqa: F401 - imported before the clock starts

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
import torch
from torchvision.models import get_model
torch.save(get_model(sys.argv[1]).state_dict(), sys.argv[2])
"""


def peak_nbytes() -> int:
    """Of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(case: str) -> dict[str, float]:
    """Seconds, bytes above those of before, and bytes of the dense model with its two largest layers once more."""
    name = case.split()[0]
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / f"{name}.pth"
        subprocess.run([sys.executable, "-c", SAVE, name, str(weights)], check=True)
        recipe = {"model": {"name": name, "weights": str(weights)}, "layers": CASES[case], "calibration": None}
        get_model("alexnet", num_classes=2)  # warms the imports up
        account = compressnet.convert(recipe, dry_run=True)
        before, start = peak_nbytes(), time.perf_counter()
        compressnet.convert(recipe, Path(folder) / "a.safetensors")
        seconds = time.perf_counter() - start
    largest = sorted(4 * row.dense_numel for row in account.rows)[-2:]
    return {"seconds": seconds, "above": peak_nbytes() - before, "allowed": account.dense_nbytes + sum(largest)}


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]) if sys.argv[2:] else torch.get_num_threads())
    print(json.dumps(main(sys.argv[1])))
