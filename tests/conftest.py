"""What tests share: a quick model, its recipe, and the real data where it is."""

import copy
import os
from pathlib import Path
from typing import Any

# Small tensors on a busy machine: threads that wait for each other cost more than they give. Processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

LENET: dict[str, Any] = {
    "model": {"name": "lenet5", "weights": None, "num_classes": 10},
    "data": {"dataset": "digits", "image_size": 28, "batch_size": 64},
    "layers": [
        {"match": "conv2", "method": "freshnet", "ratio": 4},
        {"match": "fc1", "method": "deepfried", "steps": 20},
        {"match": "fc2", "method": "hashednet", "ratio": 2},
    ],
    "pretrain": {"epochs": 1},
    "finetune": {"epochs": 2, "lr": 0.002},
}


@pytest.fixture
def lenet() -> dict[str, Any]:
    """A recipe that trains in a second: LeNet-5 on digits, one layer of each method."""
    return copy.deepcopy(LENET)


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets that slow tests read."""
    folder = os.environ.get("COMPRESSNET_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("COMPRESSNET_DATA names no folder of real data")
    return Path(folder)
