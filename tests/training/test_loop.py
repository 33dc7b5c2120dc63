"""The loop's own machinery: what it mixes, averages, leaves out and saves."""

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import compressnet
from compressnet.progress import Progress
from tests.training.stopping import DieAfter, Died


class Titles(Progress):
    """The tasks and notes of a run."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def task(self, title: str, total: int | None = None) -> Any:
        @contextmanager
        def silent() -> Any:
            self.seen.append(title)
            yield lambda steps=1, **fields: None

        return silent()

    def note(self, message: str) -> None:
        self.seen.append(message)


@pytest.mark.parametrize(("mixed", "asked_once"), [([], True), (["finetune.mixup=0.2", "finetune.cutmix=1"], False)])
def test_the_dense_model_sees_mixed_images_as_they_are(
    lenet: dict[str, Any], tmp_path: Path, mixed: list[str], asked_once: bool
) -> None:
    titles = Titles()
    overrides = ["finetune.distill={}", "finetune.label_smoothing=0.1", "finetune.epochs=1", *mixed]
    result = compressnet.run(lenet, tmp_path / "out", overrides=overrides, progress=titles)
    assert ("asking the dense model" in titles.seen) == asked_once
    assert result.metrics["finetuned"].loss < 2.3


EVERYTHING = [
    "finetune.ema=0.9",
    "finetune.mixup=0.2",
    "finetune.cutmix=1",
    "finetune.schedule=one_cycle",
    "data.augment=randaugment",
]


@pytest.mark.parametrize(
    ("overrides", "died", "saved"),
    [
        (EVERYTHING, 28, (1, 4)),
        ([*EVERYTHING, "data.workers=2"], 28, (1, 4)),
        ([*EVERYTHING, "data.augment=affine", "finetune.quantise={start: 0.3}", "export.bits=4"], 19, (0, 16)),
        (["finetune.save_every=20"], 20, (0, 20)),
        (["finetune.save_every=100min"], 30, (1, 0)),
    ],
    ids=["everything", "workers", "quantised", "last step of an epoch", "minutes"],
)
def test_a_run_that_dies_goes_on_from_the_last_saved_step_to_the_same_bits(
    lenet: dict[str, Any], tmp_path: Path, overrides: list[str], died: int, saved: tuple[int, int]
) -> None:
    compressnet.convert(lenet, tmp_path / "converted.safetensors")
    overrides = ["finetune.save_every=8", *overrides]
    compressnet.finetune(tmp_path / "converted.safetensors", tmp_path / "whole", overrides=overrides)
    with pytest.raises(Died):
        compressnet.finetune(
            tmp_path / "converted.safetensors", tmp_path / "parts", overrides=overrides, progress=DieAfter(died)
        )
    state = torch.load(tmp_path / "parts" / "last.pt", weights_only=True)
    assert (state["standing"]["epoch"], state["standing"]["batch"]) == saved
    compressnet.finetune(tmp_path / "converted.safetensors", tmp_path / "parts", overrides=overrides, resume=True)
    whole, parts = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "parts"))
    for kind in ("model", "optimizer", "averages", "quantised"):
        torch.testing.assert_close(parts[kind], whole[kind], rtol=0, atol=0)
    assert torch.equal(parts["random"][0]["torch"], whole["random"][0]["torch"])
    best = [(tmp_path / name / "best.safetensors").read_bytes() for name in ("whole", "parts")]
    assert best[0] == best[1]


def test_a_training_that_recomputes_ends_at_the_same_numbers(lenet: dict[str, Any], tmp_path: Path) -> None:
    compressnet.convert(lenet, tmp_path / "converted.safetensors")
    models = []
    for recompute in ("false", "true"):
        settings = [f"finetune.recompute={recompute}", "finetune.epochs=1"]
        trained = compressnet.finetune(
            tmp_path / "converted.safetensors", tmp_path / recompute, device="cpu", overrides=settings
        )
        models.append(compressnet.load(trained.path, form="compressed").state_dict())
    torch.testing.assert_close(*models)
