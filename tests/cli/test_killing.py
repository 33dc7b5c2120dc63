"""A process that is killed while it trains, and the one that goes on."""

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.calls import start, succeed, tree

TRAINING = [
    *("--device", "cpu", "--set", "data.samples=400", "--set", "data.batch_size=4", "--set", "data.augment=affine"),
    *("--set", "finetune.epochs=4", "--set", "finetune.save_every=7", "--set", "finetune.schedule=one_cycle"),
    *("--set", "finetune.ema=0.95", "--set", "finetune.mixup=0.2", "--set", "finetune.cutmix=1"),
]


def saved(path: Path) -> tuple[int, int]:
    """The epochs that are done, and the steps of the one under way."""
    if not path.exists():
        return (0, 0)
    standing = torch.load(path, weights_only=True)["standing"]
    return standing["epoch"], standing["batch"]


def kill_while_training(folder: Path, *arguments: object) -> tuple[int, int]:
    """Send SIGKILL at some moment after the process has saved its state within an epoch; what it has saved then."""
    before = saved(folder / "last.pt")
    with start(*arguments) as process:
        for _ in range(6000):
            at = saved(folder / "last.pt")
            if at > before and at[1]:
                break
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.2))
        process.kill()
        process.wait(60)
    assert process.returncode == -signal.SIGKILL
    return saved(folder / "last.pt")


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(converted: Path, tmp_path: Path) -> None:
    arguments = ["finetune", converted, "-o", tmp_path / "killed", *TRAINING]
    places = [kill_while_training(tmp_path / "killed", *arguments)]
    places += [kill_while_training(tmp_path / "killed", *arguments, "--resume") for _ in range(2)]
    assert (0, 0) < places[0] < places[1] < places[2] < (4, 0)
    succeed(*arguments, "--resume")
    succeed("finetune", converted, "-o", tmp_path / "whole", *TRAINING)
    assert tree(tmp_path / "killed").keys() == tree(tmp_path / "whole").keys(), "nothing half-written is left"
    best = [(tmp_path / name / "best.safetensors").read_bytes() for name in ("whole", "killed")]
    assert best[0] == best[1]
    whole, killed = (dict[str, Any](torch.load(tmp_path / name / "last.pt")) for name in ("whole", "killed"))
    for kind in ("model", "optimizer", "averages"):
        torch.testing.assert_close(killed[kind], whole[kind], rtol=0, atol=0)
    assert torch.equal(killed["random"][0]["torch"], whole["random"][0]["torch"])
