"""What a stage of training gave, as it is told and as its file keeps it."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compressnet.checkpoint import load, save
from compressnet.container import read_header
from compressnet.description import Description
from compressnet.training.evaluation import Divergence, Metrics


@dataclass(frozen=True)
class Trained:
    """What a stage of training gave.

    Args:
        path: the file of the best epoch.
        epochs: done.
        best_epoch: by the val part; 0 is the model as it came.
        before: on the val part, as it came.
        stages: on the val part, after each stage before the first epoch, by name.
        best: on the val part, at the best epoch.
        test: on the test part, evaluated once, with the best epoch's weights; None where it was trained without labels
            and the test part has none that are the model's.
        images: how many there are to train on, to choose by and to test on.
    """

    path: Path
    epochs: int
    best_epoch: int
    before: Metrics | Divergence
    best: Metrics | Divergence
    test: Metrics | None
    images: dict[str, int]
    stages: dict[str, Metrics | Divergence] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Of the file."""
        return self.path.stat().st_size

    def to_json(self) -> dict[str, Any]:
        """For ``--json`` and the file's results."""
        figures = dataclasses.asdict(self) | {"path": str(self.path)}
        return {key: value for key, value in figures.items() if value is not None}

    def write(self) -> None:
        """Write what was measured into the file itself."""
        described = Description.read(read_header(self.path))
        figures = {key: value for key, value in self.to_json().items() if key not in ("path", "best")}
        results = dict(described.results) | {described.stage: figures | {"val": self.best.to_json()}}
        results.pop("val", None)
        model = load(self.path, form="compressed", dtype=None)
        save(model, self.path, dataclasses.replace(described, results=results), force=True)
