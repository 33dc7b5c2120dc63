"""The one training loop, for dense and compressed models alike."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from compressnet.data.datasets import PartDataset
from compressnet.data.loading import make_loader
from compressnet.errors import TrainingError
from compressnet.maths.hashing import Purpose, derive, permutation
from compressnet.output import replacing
from compressnet.plan import PlannedBlock, PlannedLayer
from compressnet.progress import SILENT, Progress
from compressnet.recipe import TrainSection
from compressnet.training.distillation import Teacher
from compressnet.training.evaluation import Metrics, evaluate
from compressnet.training.interrupt import Interrupted, StopRequest, stop_request
from compressnet.training.schedule import learning_rate, make_optimizer
from compressnet.training.state import load_state, save_state

AUXILIARY_WEIGHT = 0.3  # of each auxiliary head's loss, as GoogLeNet was trained


@dataclass(frozen=True)
class Run:
    """What a training run needs beside the model.

    Args:
        settings: epochs, learning rate and the like.
        train: images to learn from.
        val: images to choose the best epoch by.
        folder: takes ``metrics.jsonl`` and ``last.pt``.
        save_best: writes the model into the folder, which it makes, whenever an epoch is the best so far.
        device: to train on.
        batch_size: images a step.
        workers: processes that load images.
        seed: of the order of the images and of dropout.
        fingerprint: what the run depends on; a resumed run must have the same.
        title: pretrain or finetune.
        teacher: the dense model to learn from, or None.
        layers: and blocks of the plan, which may have learning rates and weight decays of their own.
    """

    settings: TrainSection
    train: PartDataset
    val: PartDataset
    folder: Path
    save_best: Callable[[nn.Module, Metrics], None]
    device: torch.device
    batch_size: int = 64
    workers: int = 0
    seed: int = 0
    fingerprint: dict[str, Any] = field(default_factory=dict)
    title: str = "finetune"
    teacher: Teacher | None = None
    layers: Sequence[PlannedLayer | PlannedBlock] = ()

    @property
    def steps(self) -> int:
        """Steps an epoch; an incomplete last batch is left out, unless it is the only one."""
        return max(1, len(self.train) // self.batch_size)


@dataclass
class Standing:
    """How far a run is; all of it is in ``last.pt``."""

    epoch: int = 0
    batch: int = 0
    before: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    loss_sum: float = 0.0
    right: int = 0
    seen: int = 0
    seconds: float = 0.0


def train(model: nn.Module, run: Run, *, resume: bool = False, progress: Progress = SILENT) -> Standing:
    """Train a model; the best epoch by the val part is saved as it comes.

    Ctrl-C and SIGTERM save the state after the step in flight; ``resume`` goes on from there, on the CPU to the same
    bits as an uninterrupted run (augmentation by worker processes excepted).

    Raises:
        TrainingError: the loss is not finite, or there is nothing to resume.
        Interrupted: it was asked to stop; the state is saved.
    """
    torch.manual_seed(run.seed)
    model.to(run.device)
    trainer = _Trainer(model, run, progress)
    with stop_request() as request:
        trainer.start(resume)
        while trainer.now.epoch < run.settings.epochs:
            trainer.epoch(request)
    return trainer.now


class _Trainer:
    def __init__(self, model: nn.Module, run: Run, progress: Progress) -> None:
        self.model, self.run, self.progress = model, run, progress
        self.now = Standing()
        self.optimizer = make_optimizer(model, run.settings, run.layers)
        self.amp = run.device.type == "cuda"
        half = torch.bfloat16 if self.amp and torch.cuda.is_bf16_supported() else torch.float16
        self.half = half if self.amp else torch.bfloat16
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=self.amp and half is torch.float16)

    def start(self, resume: bool) -> None:
        if resume:
            state = load_state(self.run.folder / "last.pt", self.run.fingerprint)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.now = Standing(**state["standing"])
        else:
            before = self._evaluate()
            self.now.before = before.to_json()
            self.run.save_best(self.model, before)
            self.now.best = {"epoch": 0, **self.now.before}
            self.save()
        self._write_history()

    def epoch(self, request: StopRequest) -> None:
        run, now = self.run, self.now
        began = time.monotonic()
        self.model.train()
        with self.progress.task(f"{run.title}: epoch {now.epoch + 1} of {run.settings.epochs}", run.steps) as advance:
            advance(now.batch)
            for images, labels, indices in self._batches():
                self._step(images, labels, indices)
                now.batch += 1
                speed = (now.batch * run.batch_size) / max(1e-9, now.seconds + time.monotonic() - began)
                advance(1, loss=now.loss_sum / now.seen, top1=100 * now.right / now.seen, images_per_s=speed)
                if request.number:
                    now.seconds += time.monotonic() - began
                    self.save()
                    place = f"epoch {now.epoch + 1}, step {now.batch} of {run.steps}"
                    raise Interrupted(request.number, f"{run.title}, {place}")
        now.seconds += time.monotonic() - began
        self._end_epoch()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
        run = self.run
        shuffled = permutation(len(run.train), derive(run.seed, self.now.epoch), Purpose.ORDER).tolist()
        order = shuffled[self.now.batch * run.batch_size : run.steps * run.batch_size or None]
        loader: DataLoader = make_loader(run.train, run.batch_size, run.workers, order=order, device=run.device)
        for number, (images, labels) in enumerate(loader):
            yield images, labels, order[number * run.batch_size : (number + 1) * run.batch_size]

    def _step(self, images: Tensor, labels: Tensor, indices: list[int]) -> None:
        run, now = self.run, self.now
        images, labels = images.to(run.device, non_blocking=True), labels.to(run.device, non_blocking=True)
        rate = learning_rate(run.settings, now.epoch * run.steps + now.batch, run.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.optimizer.zero_grad()
        with torch.autocast(run.device.type, dtype=self.half, enabled=self.amp):
            loss, logits = self._loss(images, labels, indices)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is not finite at epoch {now.epoch + 1}, step {now.batch + 1}",
                cure=f"lower {run.title}.lr, or set {run.title}.clip_norm; the last good files are kept",
            )
        self.scaler.scale(loss).backward()
        if run.settings.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), run.settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        now.loss_sum += value * len(labels)
        now.right += int((logits.argmax(1) == labels).sum())
        now.seen += len(labels)

    def _loss(self, images: Tensor, labels: Tensor, indices: list[int]) -> tuple[Tensor, Tensor]:
        outputs = self.model(images)
        heads = list(outputs) if isinstance(outputs, tuple) else [outputs]
        smoothing = self.run.settings.label_smoothing
        losses = [F.cross_entropy(logits, labels, label_smoothing=smoothing) for logits in heads if logits is not None]
        loss = losses[0] + AUXILIARY_WEIGHT * sum(losses[1:])
        if self.run.teacher is not None:
            loss = self.run.teacher.loss(loss, heads[0], self.run.teacher.logits(images, indices))
        return loss, heads[0]

    def _evaluate(self) -> Metrics:
        loader = make_loader(self.run.val, self.run.batch_size, self.run.workers, device=self.run.device)
        return evaluate(
            self.model,
            loader,
            self.run.device,
            amp=self.amp,
            progress=self.progress,
            title=f"{self.run.title}: choosing",
        )

    def _end_epoch(self) -> None:
        now = self.now
        val = self._evaluate()
        record = {
            "epoch": now.epoch + 1,
            "loss": now.loss_sum / max(1, now.seen),
            "top1": 100 * now.right / max(1, now.seen),
            "images_per_s": now.seen / max(1e-9, now.seconds),
            "val": val.to_json(),
        }
        now.history.append(record)
        best = now.best or {"top1": -1.0, "loss": math.inf}
        if (val.top1, -val.loss) > (best["top1"], -best["loss"]):
            now.best = {"epoch": now.epoch + 1, **val.to_json()}
            self.run.save_best(self.model, val)
        now.epoch, now.batch = now.epoch + 1, 0
        now.loss_sum, now.right, now.seen, now.seconds = 0.0, 0, 0, 0.0
        self.save()
        self._write_history()
        accuracy = f"train {record['top1']:.2f} %, val {val.top1:.2f} %"
        self.progress.note(f"{self.run.title}, epoch {record['epoch']}: loss {record['loss']:.4f}, {accuracy}")

    def _write_history(self) -> None:
        lines = [json.dumps({"epoch": 0, "val": self.now.before}), *map(json.dumps, self.now.history)]
        with replacing(self.run.folder / "metrics.jsonl", force=True) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines))

    def save(self) -> None:
        state = {
            "fingerprint": self.run.fingerprint,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "standing": vars(self.now).copy(),
        }
        save_state(self.run.folder / "last.pt", state)
