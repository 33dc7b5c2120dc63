"""A disk that is full while a run is saved, which a limit of the size of files stands for."""

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import compressnet
from compressnet.errors import CompressnetError, FileError, TrainingError
from tests.training.stopping import StopAfter

ROOM = 50_000  # bytes, fewer than either file has


class FillAfter(StopAfter):
    """Leaves no room for large files after some training steps."""

    def count(self) -> None:
        if self.steps == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.fixture
def limits() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize(
    ("save_every", "error", "text", "saved"),
    [
        ("8", TrainingError, r"the state is not saved: .*last\.pt: .*File too large\n  .*--resume goes on", (0, 8)),
        ("null", FileError, r"best\.safetensors: cannot be written: File too large", (0, 0)),
    ],
    ids=["the state", "the best epoch"],
)
def test_a_full_disk_is_told_and_the_last_good_files_are_kept(
    lenet: dict[str, Any], tmp_path: Path, save_every: str, error: type[CompressnetError], text: str, saved: Any
) -> None:
    free, overrides = resource.getrlimit(resource.RLIMIT_FSIZE), [f"finetune.save_every={save_every}"]
    compressnet.convert(lenet, tmp_path / "converted.safetensors")
    with pytest.raises(error, match=text):
        compressnet.finetune(
            tmp_path / "converted.safetensors", tmp_path / "out", overrides=overrides, progress=FillAfter(10, 0)
        )
    resource.setrlimit(resource.RLIMIT_FSIZE, free)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"best.safetensors", "last.pt", "metrics.jsonl"}
    standing = torch.load(tmp_path / "out" / "last.pt", weights_only=True)["standing"]
    assert (standing["epoch"], standing["batch"]) == saved
    compressnet.finetune(tmp_path / "converted.safetensors", tmp_path / "out", overrides=overrides, resume=True)
