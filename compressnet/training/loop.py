"""The one training loop, for dense and compressed models alike."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from compressnet.coding.quantisers import Quantiser, from_json
from compressnet.data.layout import channels_last
from compressnet.data.loading import make_loader
from compressnet.errors import TrainingError
from compressnet.maths.hashing import Purpose, derive, permutation
from compressnet.output import replacing
from compressnet.progress import SILENT, Progress
from compressnet.training.evaluation import Metrics, evaluate
from compressnet.training.interrupt import Interrupted, StopRequest, stop_request
from compressnet.training.quantised import QuantisedParameters
from compressnet.training.run import Run, Standing
from compressnet.training.schedule import learning_rate, make_optimizer
from compressnet.training.state import load_state, save_state

AUXILIARY_WEIGHT = 0.3  # of each auxiliary head's loss, as GoogLeNet was trained


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
        self.quantised: QuantisedParameters | None = None

    def start(self, resume: bool) -> None:
        if resume:
            state = load_state(self.run.folder / "last.pt", self.run.fingerprint)
            self.model.load_state_dict(state["model"])
            self.now = Standing(**state["standing"])
            if self.now.quantisers:
                chosen = {name: from_json(keys) for name, keys in self.now.quantisers.items()}
                self._quantise(chosen).load_state_dict(state["quantised"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
        else:
            before = self._evaluate()
            self.now.before = before.to_json()
            self.run.save_best(self.model, before, {})
            self.now.best, self.now.best_score = {"epoch": 0, **self.now.before}, self.run.score(before, 0.0)
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
        images = channels_last(images if run.augment is None else run.augment(images))
        if run.mix is not None:
            images, labels = run.mix(images, labels)
        step = now.epoch * run.steps + now.batch
        if self.quantised is None and run.quantises(step):
            self._begin_to_quantise()
        rate = learning_rate(run.settings, step, run.steps)
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
            learning = [each for group in self.optimizer.param_groups for each in group["params"]]
            nn.utils.clip_grad_norm_(learning, run.settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        now.loss_sum += value * len(labels)
        now.right += int((logits.argmax(1) == (labels if labels.dim() == 1 else labels.argmax(1))).sum())
        now.seen += len(labels)

    def _loss(self, images: Tensor, labels: Tensor, indices: list[int]) -> tuple[Tensor, Tensor]:
        outputs = self.model(images) if self.quantised is None else self.quantised.run(images)
        heads = list(outputs) if isinstance(outputs, tuple) else [outputs]
        smoothing = self.run.settings.label_smoothing
        losses = [F.cross_entropy(logits, labels, label_smoothing=smoothing) for logits in heads if logits is not None]
        loss = losses[0] + AUXILIARY_WEIGHT * sum(losses[1:])
        if self.run.teacher is not None:
            loss = self.run.teacher.loss(loss, heads[0], self.run.teacher.logits(images, indices))
        if self.quantised is not None and self.run.rate:
            loss = loss + self.run.rate * self.quantised.nats() / len(self.run.train)
        return loss, heads[0]

    def _begin_to_quantise(self) -> None:
        """From here on only epochs whose numbers are quantised can be the best."""
        assert self.run.quantising is not None
        chosen = self.run.quantising.choose(self.model.state_dict())
        self._quantise(chosen)
        self.now.quantisers = {name: each.to_json() for name, each in chosen.items()}
        self.now.best = None

    def _quantise(self, quantisers: Mapping[str, Quantiser]) -> QuantisedParameters:
        self.quantised = QuantisedParameters(self.model, quantisers)
        learning = list(self.quantised.parameters())
        lr = self.run.settings.lr
        self.optimizer.add_param_group({"params": learning, "lr": lr, "lr_scale": 1.0, "weight_decay": 0.0})
        return self.quantised

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
        record: dict[str, Any] = {
            "epoch": now.epoch + 1,
            "loss": now.loss_sum / max(1, now.seen),
            "top1": 100 * now.right / max(1, now.seen),
            "images_per_s": now.seen / max(1e-9, now.seconds),
        }
        with nullcontext() if self.quantised is None else self.quantised.applied():
            val = self._evaluate()
            nats = 0.0 if self.quantised is None else self.quantised.entropy_nats()
            record["val"] = val.to_json()
            if self.quantised is not None:
                record["entropy_nbytes"] = nats / math.log(256)
            score = self.run.score(val, nats)
            if now.best is None or score > now.best_score:
                now.best, now.best_score = {"epoch": now.epoch + 1, **val.to_json()}, score
                self.run.save_best(self.model, val, {} if self.quantised is None else self.quantised.quantisers())
        now.history.append(record)
        now.epoch, now.batch = now.epoch + 1, 0
        now.loss_sum, now.right, now.seen, now.seconds = 0.0, 0, 0, 0.0
        self.save()
        self._write_history()
        accuracy = f"train {record['top1']:.2f} %, val {val.top1:.2f} %"
        coded = f", symbols of {record['entropy_nbytes']:,.0f} bytes" if "entropy_nbytes" in record else ""
        self.progress.note(f"{self.run.title}, epoch {record['epoch']}: loss {record['loss']:.4f}, {accuracy}{coded}")

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
            "quantised": None if self.quantised is None else self.quantised.state_dict(),
            "standing": vars(self.now).copy(),
        }
        save_state(self.run.folder / "last.pt", state)
