"""The one training loop, for dense and compressed models alike."""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from compressnet.coding.quantisers import Quantiser, from_json
from compressnet.data.layout import channels_last
from compressnet.data.loading import ahead, make_loader
from compressnet.errors import TrainingError
from compressnet.maths.hashing import Purpose, derive, permutation
from compressnet.output import replacing
from compressnet.plan import PlannedBlock
from compressnet.progress import SILENT, Progress
from compressnet.training import distributed
from compressnet.training.compiled import compiling
from compressnet.training.evaluation import Divergence, Metrics, evaluate
from compressnet.training.gradual import Mixture
from compressnet.training.interrupt import Interrupted, StopRequest, stop_request
from compressnet.training.objective import Objective
from compressnet.training.precision import float32_products, half_of
from compressnet.training.quantised import QuantisedParameters, Through
from compressnet.training.run import Run, Standing
from compressnet.training.schedule import learning_rate, make_optimizer
from compressnet.training.state import load_state, save_state


def train(model: nn.Module, run: Run, *, resume: bool = False, progress: Progress = SILENT) -> Standing:
    """Train a model; the best epoch by the val part is saved as it comes.

    Ctrl-C and SIGTERM save the state after the step in flight; ``resume`` goes on from there, on the CPU to the same
    bits as an uninterrupted run (augmentation by worker processes excepted).

    Raises:
        TrainingError: the loss is not finite, or there is nothing to resume.
        Interrupted: it was asked to stop; the state is saved.
    """
    torch.manual_seed(distributed.own_seed(run.seed))
    model.to(run.device)
    exact = run.settings.amp == "off"
    with stop_request() as request, float32_products(fast=not exact), compiling(run.compile):
        trainer = _Trainer(model, run, progress)
        with closing(trainer.objective):
            trainer.start(resume)
            trainer.prepare(request)
            while trainer.now.epoch < run.settings.epochs:
                trainer.epoch(request)
    return trainer.now


class _Trainer:
    def __init__(self, model: nn.Module, run: Run, progress: Progress) -> None:
        self.model, self.run, self.progress = model, run, progress
        self.now = Standing()
        self.optimizer = make_optimizer(model, run.settings, run.layers)
        self.half = half_of(run.settings.amp, run.device, run.title)
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=self.half is torch.float16)
        self.quantised: QuantisedParameters | None = None
        self.mixture: Mixture | None = None
        self.network = self._prepared(model)
        self.statistics = distributed.norm_statistics(model)
        self.objective = Objective(model, run)

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

    def prepare(self, request: StopRequest) -> None:
        """The stages before the first epoch that are not done yet; then weights are mixed, where they are to be."""
        for name, change_ in self.run.stages.items():
            if name in self.now.stages:
                continue
            change_(self.model, self.progress)
            val = self._evaluate()
            self.now.stages[name] = val.to_json()
            self._consider(0, val, 0.0)
            self.save()
            self._write_history()
            self.progress.note(f"{self.run.title}, {name}: val {val}")
            if number := distributed.agreed(request.number):
                raise Interrupted(number, f"{self.run.title}, after {name}")
        if self.run.gradual is not None:
            heads = [block.head for block in self.run.layers if isinstance(block, PlannedBlock)]
            self.mixture = Mixture(self.model, self.run.gradual.dense, self.run.device, heads)

    def epoch(self, request: StopRequest) -> None:
        run, now = self.run, self.now
        began = time.monotonic()
        self.model.train()
        with self.progress.task(f"{run.title}: epoch {now.epoch + 1} of {run.settings.epochs}", run.steps) as advance:
            advance(now.batch)
            for images, labels, indices in self._batches():
                self._step(images, labels, indices)
                distributed.average_(self.statistics)
                now.batch += 1
                speed = (now.batch * run.batch_size) / max(1e-9, now.seconds + time.monotonic() - began)
                advance(1, **self._figures(), images_per_s=speed)
                if number := distributed.agreed(request.number):
                    now.seconds += time.monotonic() - began
                    self.save()
                    place = f"epoch {now.epoch + 1}, step {now.batch} of {run.steps}"
                    raise Interrupted(number, f"{run.title}, {place}")
        now.seconds += time.monotonic() - began
        self._end_epoch()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, Sequence[int]]]:
        run = self.run
        shuffled = permutation(len(run.train), derive(run.seed, self.now.epoch), Purpose.ORDER).tolist()
        order = distributed.share(shuffled[self.now.batch * run.batch_size : run.steps * run.batch_size or None])
        loader: DataLoader = make_loader(run.train, run.share, run.workers, order=order, device=run.device)
        for number, (images, labels) in enumerate(ahead(loader, run.device)):
            yield images, labels, order[number * run.share : (number + 1) * run.share]

    def _step(self, images: Tensor, labels: Tensor, indices: Sequence[int]) -> None:
        run, now = self.run, self.now
        images = channels_last(images if run.augment is None else run.augment(images))
        step = now.epoch * run.steps + now.batch
        if self.quantised is None and run.quantises(step):
            self._begin_to_quantise()
        rate = learning_rate(run.settings, step, run.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        if self.mixture is not None:
            self.mixture.to_(run.compressed(step))
        self.optimizer.zero_grad()
        with torch.autocast(run.device.type, dtype=self.half, enabled=self.half is not None):
            loss, logits = self.objective(self.network(images), images, labels, indices, self.quantised)
        hits = int((logits.argmax(1) == labels).sum()) if run.labels else 0
        loss_sum, right, seen = distributed.total(loss.item() * len(labels), hits, len(labels))
        if not math.isfinite(loss_sum):
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
        now.loss_sum += loss_sum
        now.right += int(right)
        now.seen += int(seen)

    def _begin_to_quantise(self) -> None:
        """From here on only epochs whose numbers are quantised can be the best."""
        assert self.run.quantising is not None
        chosen = self.run.quantising.choose(self.model.state_dict())
        self._quantise(chosen)
        self.now.quantisers = {name: each.to_json() for name, each in chosen.items()}
        self.now.best = None

    def _quantise(self, quantisers: Mapping[str, Quantiser]) -> QuantisedParameters:
        self.quantised = QuantisedParameters(self.model, quantisers)
        through = Through(self.model, self.quantised)
        self.network = self._prepared(through, through.fixed)
        learning = list(self.quantised.parameters())
        lr = self.run.settings.lr
        self.optimizer.add_param_group({"params": learning, "lr": lr, "lr_scale": 1.0, "weight_decay": 0.0})
        return self.quantised

    def _prepared(self, module: nn.Module, fixed: Iterable[str] = ()) -> Callable[[Tensor], Any]:
        """What a step runs; evaluation runs the model itself."""
        network = distributed.parallel(module, fixed)
        return torch.compile(network, backend=self.run.compile) if self.run.compile else network

    def _evaluate(self) -> Metrics | Divergence:
        run, title = self.run, f"{self.run.title}: choosing"
        order = distributed.share(range(len(run.val)))
        loader = make_loader(run.val, run.share, run.workers, order=order, device=run.device)
        measure = evaluate if run.labels or run.teacher is None else run.teacher.judge
        return measure(self.model, loader, run.device, half=self.half, progress=self.progress, title=title)

    def _figures(self) -> dict[str, float]:
        """Of the images seen in the epoch under way."""
        now, seen = self.now, max(1, self.now.seen)
        return {"loss": now.loss_sum / seen} | ({"top1": 100 * now.right / seen} if self.run.labels else {})

    def _end_epoch(self) -> None:
        now = self.now
        record: dict[str, Any] = {
            "epoch": now.epoch + 1,
            **self._figures(),
            "images_per_s": now.seen / max(1e-9, now.seconds),
        }
        with nullcontext() if self.quantised is None else self.quantised.applied():
            val = self._evaluate()
            nats = 0.0 if self.quantised is None else self.quantised.entropy_nats()
            record["val"] = val.to_json()
            if self.quantised is not None:
                record["entropy_nbytes"] = nats / math.log(256)
            share = self.run.compressed((now.epoch + 1) * self.run.steps - 1)
            if share < 1:
                record["compressed"] = share
            else:
                self._consider(now.epoch + 1, val, nats)
        now.history.append(record)
        now.epoch, now.batch = now.epoch + 1, 0
        now.loss_sum, now.right, now.seen, now.seconds = 0.0, 0, 0, 0.0
        self.save()
        self._write_history()
        train = f"train {record['top1']:.2f} %, " if "top1" in record else ""
        coded = f", symbols of {record['entropy_nbytes']:,.0f} bytes" if "entropy_nbytes" in record else ""
        self.progress.note(
            f"{self.run.title}, epoch {record['epoch']}: loss {record['loss']:.4f}, {train}val {val}{coded}"
        )

    def _consider(self, epoch: int, val: Metrics | Divergence, nats: float) -> None:
        """Save the model where it is the best so far."""
        now, score = self.now, self.run.score(val, nats)
        if now.best is None or score > now.best_score:
            now.best, now.best_score = {"epoch": epoch, **val.to_json()}, score
            self.run.save_best(self.model, val, {} if self.quantised is None else self.quantised.quantisers())

    def _write_history(self) -> None:
        if distributed.rank():
            return
        stages = [{"epoch": 0, "stage": name, "val": val} for name, val in self.now.stages.items()]
        lines = map(json.dumps, [{"epoch": 0, "val": self.now.before}, *stages, *self.now.history])
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
