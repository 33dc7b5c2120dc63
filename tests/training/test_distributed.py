"""Two processes on one machine, started by torchrun, train as one does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import compressnet
from compressnet.cli.processes import check_together
from compressnet.errors import CompressnetError, ResumeError
from tests.cli.calls import tree
from tests.conftest import LENET

ROOT = Path(__file__).parent.parent.parent
RECIPE = LENET | {
    "layers": [{"match": "fc1", "method": "hashednet", "ratio": 4}],
    "finetune": {"epochs": 2, "lr": 0.02, "optimizer": "sgd", "warmup_epochs": 0},
}


@contextmanager
def two(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Two processes, which do not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        for child in (*children(process), process.pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.communicate()


def children(process: subprocess.Popen[str]) -> list[int]:
    """What torchrun has started, by rank."""
    with suppress(FileNotFoundError, ProcessLookupError):
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return sorted(map(int, listed), key=lambda pid: Path(f"/proc/{pid}/environ").read_bytes().count(b"\0RANK=1\0"))
    return []


def finetune(file: Path, folder: Path, *more: object) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of two processes."""
    with two("-m", "compressnet", "finetune", file, "-o", folder, "--device", "cpu", *more) as process:
        stdout, stderr = process.communicate(timeout=120)
    return process.returncode, stdout, stderr


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("converted") / "converted.safetensors"
    compressnet.convert(RECIPE, file)
    return file


@pytest.fixture(scope="module")
def pair(converted: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The folder of a run of two processes, what it printed and what it told."""
    folder = tmp_path_factory.mktemp("pair")
    code, stdout, stderr = finetune(converted, folder, "--json")
    assert code == 0, stderr
    return folder, stdout, stderr


def test_two_processes_have_the_losses_of_one(pair: tuple[Path, str, str], converted: Path, tmp_path: Path) -> None:
    alone = compressnet.finetune(converted, tmp_path, device="cpu")
    for one, both in zip(history(tmp_path), history(pair[0]), strict=True):
        assert both["val"]["loss"] == pytest.approx(one["val"]["loss"], abs=1e-5)
        assert both["val"]["count"] == one["val"]["count"] == 144
        assert both.get("loss", 0) == pytest.approx(one.get("loss", 0), abs=1e-5)
    together = json.loads(pair[1])
    assert together["test"]["count"] == alone.test.count == 360
    assert together["test"]["loss"] == pytest.approx(alone.test.loss, abs=1e-5)
    assert compressnet.evaluate(pair[0] / "best.safetensors").loss == pytest.approx(together["test"]["loss"], abs=1e-6)


def test_only_the_first_process_writes_and_speaks(pair: tuple[Path, str, str]) -> None:
    assert tree(pair[0]).keys() == {"best.safetensors", "last.pt", "metrics.jsonl"}
    assert pair[2].count("finetune, epoch 1: loss") == 1
    assert "Warning" not in pair[2]


def test_what_each_process_draws_is_in_the_state(pair: tuple[Path, str, str]) -> None:
    first, second = torch.load(pair[0] / "last.pt", weights_only=True)["random"]
    assert not torch.equal(first["torch"], second["torch"])


def test_one_process_does_not_resume_what_two_began(pair: tuple[Path, str, str], converted: Path) -> None:
    with pytest.raises(ResumeError, match="processes was 2, is 1"):
        compressnet.finetune(converted, pair[0], resume=True)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_at_the_same_step_and_both_go_on_to_the_same_bits(
    pair: tuple[Path, str, str], converted: Path, tmp_path: Path
) -> None:
    with two("-m", "compressnet", "finetune", converted, "-o", tmp_path, "--device", "cpu") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("finetune: epoch 2 of 2"):
                os.kill(children(process)[1], signal.SIGTERM)
                break
        stderr = process.communicate(timeout=120)[1]
    assert stderr.count("Error: interrupted at finetune, epoch 2, step ") == 1
    code, _, stderr = finetune(converted, tmp_path, "--resume")
    assert code == 0, stderr
    assert "testing" in stderr
    once, twice = (torch.load(folder / "last.pt", weights_only=True)["model"] for folder in (pair[0], tmp_path))
    assert all(torch.equal(tensor, twice[name]) for name, tensor in once.items())
    assert (tmp_path / "best.safetensors").read_bytes() == (pair[0] / "best.safetensors").read_bytes()


def test_where_one_process_fails_all_stop_and_the_cause_is_told_once(tmp_path: Path) -> None:
    from PIL import Image

    for part, number in (("train", 16), ("val", 2), ("test", 2)):
        for index in range(number):
            path = tmp_path / "images" / part / f"{index % 2}" / f"{index:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (28, 28), 10 * index).save(path)
    recipe = LENET | {"model": {"name": "lenet5", "num_classes": 2}, "layers": [], "calibration": None}
    images = {"dataset": "imagefolder", "root": str(tmp_path / "images"), "batch_size": 8, "cache": False}
    compressnet.convert(recipe | {"data": images}, tmp_path / "converted.safetensors")
    (tmp_path / "images" / "train" / "0" / "04.png").write_bytes(b"no image")
    began = time.monotonic()
    code, _, stderr = finetune(tmp_path / "converted.safetensors", tmp_path / "out")
    assert code == 1
    assert time.monotonic() - began < 60
    assert stderr.count("04.png: unreadable image") == 1
    assert stderr.count("\nError: ") == 1
    assert "gloo" not in stderr


@pytest.mark.slow
def test_a_process_that_ends_without_a_word_ends_the_other(converted: Path, tmp_path: Path) -> None:
    with two("-m", "compressnet", "finetune", converted, "-o", tmp_path, "--device", "cpu") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("finetune: epoch 1 of 2"):
                os.kill(children(process)[1], signal.SIGKILL)
                break
        stderr = process.communicate(timeout=120)[1]
    assert "Error: torchrun: another process has ended, or cannot be reached" in stderr
    assert "gloo" not in stderr
    compressnet.load(tmp_path / "best.safetensors")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes sees."""
    folder = tmp_path_factory.mktemp("seen")
    with two("-m", "tests.training.two", folder) as process:
        stderr = process.communicate(timeout=120)[1]
    assert process.returncode == 0, stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("quantiser", ["uniform", "codebook"])
def test_gradients_of_two_halves_are_those_of_the_whole(seen: list[dict[str, Any]], quantiser: str) -> None:
    for process in seen:
        for averaged, whole in zip(process[quantiser]["averaged"], process[quantiser]["whole"], strict=True):
            assert (averaged is None) == (whole is None)
            if whole is not None:
                torch.testing.assert_close(torch.tensor(averaged), torch.tensor(whole))


def test_parameters_start_as_those_of_the_first_process_and_tables_are_not_sent(seen: list[dict[str, Any]]) -> None:
    first, second = (process["tables"] for process in seen)
    assert first[-8:] == second[-8:] == [1.0] * 8
    assert not any(first[:-8])
    assert any(second[:-8])


def test_norm_statistics_are_averaged(seen: list[dict[str, Any]]) -> None:
    mean, variance = seen[0]["statistics"]
    assert mean == pytest.approx([0.15, 0.15])
    assert variance == pytest.approx([0.9, 0.9])
    assert seen[1]["statistics"] == seen[0]["statistics"]


def test_each_process_has_its_share_and_all_agree(seen: list[dict[str, Any]]) -> None:
    assert [process["rank"] for process in seen] == [[0, 2], [1, 2]]
    assert [process["first"] for process in seen] == [False, True]
    assert [process["share"] for process in seen] == [[9, 7], [8, 6]]
    for process in seen:
        assert process["total"] == [3, 1]
        assert process["agreed"] == 2
        assert process["everyones"] == [{"rank": 0}, {"rank": 1}]
        assert process["seed"]


def test_batches_that_cannot_be_shared_are_refused(seen: list[dict[str, Any]]) -> None:
    for process in seen:
        assert "7 images cannot be shared equally by 2 processes" in process["unequal"]
        assert "give a multiple of 2, such as 8" in process["unequal"]
        assert "8 are more than the 7 images" in process["few"]
        assert process["fits"] == ""


def test_a_device_that_torchrun_gives_is_not_asked_for(seen: list[dict[str, Any]]) -> None:
    for rank, process in enumerate(seen):
        assert process["device"].startswith("--device cuda:0: torchrun gives each process a device")
        if process["none"]:
            assert process["none"].startswith(f"torchrun: process {rank} of this machine has no CUDA device")


@pytest.mark.parametrize("command", ["run", "convert", "export"])
def test_several_processes_do_not_all_do_what_is_for_one(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in (("TORCHELASTIC_RUN_ID", "none"), ("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(key, value)
    check_together("finetune")
    with pytest.raises(CompressnetError, match=f"torchrun has started 2 processes, and {command} is for one"):
        check_together(command)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        check_together(command)
    monkeypatch.setenv("WORLD_SIZE", "1")
    check_together(command)
