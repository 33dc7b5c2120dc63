"""The loop's own machinery: what it mixes, averages, leaves out and saves."""

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import compressnet
from compressnet.progress import Progress


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
