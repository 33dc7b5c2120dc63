"""What a training run is given, and how far it is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressnet.coding.quantisers import Quantiser
from compressnet.data.datasets import PartDataset
from compressnet.plan import PlannedBlock, PlannedLayer
from compressnet.recipe import GradualSection, QuantiseSection, TrainSection
from compressnet.training import distributed
from compressnet.training.distillation import Teacher
from compressnet.training.evaluation import Divergence, Metrics
from compressnet.training.preparation import Stage


@dataclass(frozen=True)
class Quantising:
    """How to train through quantisers.

    Args:
        settings: when it begins, and what the size costs.
        choose: the quantisers of a state_dict.
    """

    settings: QuantiseSection
    choose: Callable[[Mapping[str, Tensor]], Mapping[str, Quantiser]]


@dataclass(frozen=True)
class Gradual:
    """How weights go from dense to compressed.

    Args:
        settings: until when.
        dense: the model whose weights training begins with.
    """

    settings: GradualSection
    dense: nn.Module


@dataclass(frozen=True)
class Run:
    """What a training run needs beside the model.

    Args:
        settings: epochs, learning rate and the like.
        train: images to learn from.
        val: images to choose the best epoch by.
        folder: takes ``metrics.jsonl`` and ``last.pt``.
        save_best: writes the model into the folder, which it makes, whenever an epoch is the best so far; it is given
            the quantisers of its numbers, too, where there are any.
        device: to train on.
        batch_size: images a step, of all processes together.
        workers: processes that load images.
        seed: of the order of the images and of dropout.
        fingerprint: what the run depends on; a resumed run must have the same.
        title: pretrain or finetune.
        teacher: the dense model to learn from, or None.
        layers: and blocks of the plan, which may have learning rates and weight decays of their own.
        augment: changes a batch of images, or None.
        mix: mixes the images of a batch, and gives the shares of the classes in the place of their labels; or None.
        quantising: how to train through quantisers, or None.
        labels: whether those of the images are learned from; without them a teacher is needed.
        on_epoch: told each line of ``metrics.jsonl`` as it comes.
        compile: the backend of ``torch.compile`` that steps are compiled by, or None.
        recompute: what hashed weights are made of is made in each pass of a step, and not kept.
        stages: what is done to the model once, before the first epoch, by name and in order.
        gradual: how weights go from dense to compressed, or None.
    """

    settings: TrainSection
    train: PartDataset
    val: PartDataset
    folder: Path
    save_best: Callable[[nn.Module, Metrics | Divergence, Mapping[str, Quantiser]], None]
    device: torch.device
    batch_size: int = 64
    workers: int = 0
    seed: int = 0
    fingerprint: dict[str, Any] = field(default_factory=dict)
    title: str = "finetune"
    teacher: Teacher | None = None
    layers: Sequence[PlannedLayer | PlannedBlock] = ()
    augment: Callable[[Tensor], Tensor] | None = None
    mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    quantising: Quantising | None = None
    labels: bool = True
    compile: str | None = None
    recompute: bool = False
    on_epoch: Callable[[Mapping[str, Any]], None] = lambda record: None
    stages: Mapping[str, Stage] = field(default_factory=dict)
    gradual: Gradual | None = None

    @property
    def steps(self) -> int:
        """Steps an epoch; an incomplete last batch is left out."""
        return len(self.train) // self.batch_size

    @property
    def share(self) -> int:
        """Images a step of this process."""
        return self.batch_size // distributed.count()

    @property
    def rate(self) -> float:
        """What a nat of the symbols' entropy costs, for each training image."""
        return self.quantising.settings.rate if self.quantising else 0.0

    def quantises(self, step: int) -> bool:
        """Whether a step of the run, counted from 0, goes through quantisers."""
        total = self.settings.epochs * self.steps
        return self.quantising is not None and step >= int(self.quantising.settings.start * total)

    def compressed(self, step: int) -> float:
        """Which share of the weights is the compressed one at a step of the run, counted from 0."""
        if self.gradual is None:
            return 1.0
        total = self.settings.epochs * self.steps
        return min(1.0, (step + 1) / (self.gradual.settings.until * total))

    def score(self, val: Metrics | Divergence, nats: float) -> tuple[float, ...]:
        """What makes an epoch the best; the larger, the better.

        By its accuracy, of equal ones by its loss; without labels by its divergence. Where the size of the file costs
        something, an early epoch would win with a large file: there it is the loss on val with what its symbols cost,
        which is what training lowers.

        Args:
            val: how the epoch does on the val part.
            nats: the entropy of its symbols.
        """
        return (-(val.lost + self.rate * nats / len(self.train)),) if self.rate else val.rank


@dataclass
class Standing:
    """How far a run is; all of it is in ``last.pt``.

    Args:
        epoch: epochs done.
        batch: steps done of the epoch under way.
        before: on the val part, as the model came.
        best: on the val part, at the best epoch; where quantising has begun, of those that are quantised.
        best_score: of that epoch.
        quantisers: that training goes through, as they were chosen.
        stages: on the val part, after each stage that is done.
        history: a line an epoch.
        loss_sum: over the images learned from in the epoch under way.
        right: of these, whose label, or largest share of one, is the likeliest class.
        seen: how many.
        seconds: of the epoch under way.
        skipped: its steps whose loss or gradient was not finite.
        skipped_in_a_row: of all steps, the last ones.
    """

    epoch: int = 0
    batch: int = 0
    before: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    best_score: tuple[float, ...] = ()
    quantisers: dict[str, Any] | None = None
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    loss_sum: float = 0.0
    right: int | None = None
    seen: int = 0
    seconds: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0

    def count(self, loss_sum: float, right: int | None, seen: int) -> None:
        """Take in a step, of so many images; how many were right is None where there are no labels."""
        self.loss_sum += loss_sum
        self.seen += seen
        self.skipped_in_a_row = 0
        if right is not None:
            self.right = (self.right or 0) + right

    def figures(self) -> dict[str, Any]:
        """Of the epoch under way."""
        seen = max(1, self.seen)
        accuracy = {} if self.right is None else {"top1": 100 * self.right / seen}
        return {"loss": self.loss_sum / seen, **accuracy, "images_per_s": self.seen / max(1e-9, self.seconds)}

    def begin_epoch(self) -> None:
        """After one is done."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.loss_sum, self.right, self.seen, self.seconds, self.skipped = 0.0, None, 0, 0.0, 0

    def place(self, ahead: int = 0) -> str:
        """How far it is, or will be some steps ahead, for messages."""
        return f"epoch {self.epoch + 1}, step {self.batch + ahead}"
