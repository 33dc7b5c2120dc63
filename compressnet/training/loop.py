"""The one training loop, for dense and compressed models alike."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from compressnet.coding.quantisers import Quantiser, from_json
from compressnet.data.layout import channels_last
from compressnet.data.loading import ahead, make_loader
from compressnet.errors import TrainingError
from compressnet.hashed import recomputing
from compressnet.maths.hashing import Purpose, derive, permutation
from compressnet.plan import PlannedBlock
from compressnet.progress import SILENT, Progress
from compressnet.recipe.frequency import is_due
from compressnet.training import distributed
from compressnet.training.averaging import MovingAverage
from compressnet.training.compiled import compiling
from compressnet.training.descent import Descent
from compressnet.training.dropout import set_dropout_
from compressnet.training.evaluation import Divergence, Metrics, evaluate
from compressnet.training.finite import LIMIT, check_finite
from compressnet.training.gradual import Mixture
from compressnet.training.history import in_words, write_history
from compressnet.training.interrupt import Interrupted, StopRequest, stop_request
from compressnet.training.objective import Objective
from compressnet.training.precision import float32_products, half_of
from compressnet.training.quantised import QuantisedParameters, Through
from compressnet.training.run import Run, Standing
from compressnet.training.schedule import learning_rate
from compressnet.training.state import load_state, save_state


def train(model: nn.Module, run: Run, *, resume: bool = False, progress: Progress = SILENT) -> Standing:
    """Train a model; the best epoch by the val part is saved as it comes.

    Ctrl-C and SIGTERM save the state after the step in flight; ``resume`` goes on from the state that was saved last,
    on the CPU to the same bits as an uninterrupted run.

    Raises:
        TrainingError: the loss or what it moves stays not finite, or there is nothing to resume.
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
        if run.settings.dropout is not None:
            set_dropout_(model, run.settings.dropout)
        self.now = Standing()
        self.half = half_of(run.settings.amp, run.device, run.title)
        scaler = torch.amp.GradScaler(run.device.type, enabled=self.half is torch.float16)
        self.descent = Descent(model, run.settings, run.layers, scaler)
        self.quantised: QuantisedParameters | None = None
        self.network = self._prepared(model)
        self.mixture: Mixture | None = None
        self.objective = Objective(model, run)
        self.averages: list[MovingAverage] = []
        self._average(model)
        self.saved = time.monotonic()

    def start(self, resume: bool) -> None:
        if resume:
            state = load_state(self.run.folder / "last.pt", self.run.fingerprint)
            self.model.load_state_dict(state["model"])
            self.now = Standing(**state["standing"])
            if self.now.quantisers:
                chosen = {name: from_json(keys) for name, keys in self.now.quantisers.items()}
                self._quantise(chosen).load_state_dict(state["quantised"])
            for average, kept in zip(self.averages, state["averages"], strict=True):
                average.load_state_dict(kept)
            self.descent.load_state_dict(state)
        else:
            before = self._evaluate()
            self.now.before = before.to_json()
            self.run.save_best(self.model, before, {})
            self.now.best, self.now.best_score = {"epoch": 0, **self.now.before}, self.run.score(before, 0.0)
            self.save()
            self.run.on_epoch({"epoch": 0, "val": self.now.before})
        write_history(self.run.folder, self.now.before, self.now.stages, self.now.history)

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
            write_history(self.run.folder, self.now.before, self.now.stages, self.now.history)
            self.progress.note(f"{self.run.title}, {name}: val {val}")
            if number := distributed.agreed(request.number):
                raise Interrupted(number, f"{self.run.title}, after {name}")
        if self.run.gradual is not None:
            heads = [block.head for block in self.run.layers if isinstance(block, PlannedBlock)]
            self.mixture = Mixture(self.model, self.run.gradual.dense, self.run.device, heads)

    def epoch(self, request: StopRequest) -> None:
        run, now = self.run, self.now
        self.model.train()
        task = self.progress.task(f"{run.title}: epoch {now.epoch + 1} of {run.settings.epochs}", run.steps)
        with task as advance, recomputing(self.model, run.recompute):
            advance(now.batch)
            began = time.monotonic()
            for images, labels, indices in self._batches():
                self._step(images, labels, indices)
                now.batch += 1
                began, before = time.monotonic(), began
                now.seconds += began - before
                advance(1, **now.figures())
                due = is_due(run.settings.save_every, now.epoch * run.steps + now.batch, began - self.saved)
                number = distributed.agreed(request.number or int(due))  # 1 asks for a save; signals are larger
                if number:
                    self.save()
                    began = time.monotonic()
                if number > 1:
                    raise Interrupted(number, f"{run.title}, {now.place()} of {run.steps}")
        self._end_epoch()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, Sequence[int]]]:
        run = self.run
        seed = derive(run.seed, self.now.epoch)
        shuffled = permutation(len(run.train), seed, Purpose.ORDER).tolist()
        order = distributed.share(shuffled[self.now.batch * run.batch_size : run.steps * run.batch_size])
        loader: DataLoader = make_loader(run.train, run.share, run.workers, order=order, seed=seed, device=run.device)
        for number, (images, labels) in enumerate(ahead(loader, run.device)):
            yield images, labels, order[number * run.share : (number + 1) * run.share]

    def _step(self, images: Tensor, labels: Tensor, indices: Sequence[int]) -> None:
        run, now = self.run, self.now
        images = channels_last(images if run.augment is None else run.augment(images))
        if run.mix is not None:
            images, labels = run.mix(images, labels)
        step = now.epoch * run.steps + now.batch
        if self.quantised is None and run.quantises(step):
            self._begin_to_quantise()
        self.descent.begin(learning_rate(run.settings, step, run.steps))
        if self.mixture is not None:
            self.mixture.to_(run.compressed(step))
        with torch.autocast(run.device.type, dtype=self.half, enabled=self.half is not None):
            loss, logits = self.objective(self.network(images), images, labels, indices, self.quantised)
        hits = _hits(logits, labels) if run.labels else 0
        loss_sum, right, seen = distributed.total(loss.item() * len(images), hits, len(images))
        learned = self.descent.step(loss, loss_sum)
        distributed.average_(self.descent.statistics.live)
        if not learned:
            self._skip()
            return
        for average in self.averages:
            average.update()
        now.count(loss_sum, int(right) if run.labels else None, int(seen))

    def _skip(self) -> None:
        self.now.skipped += 1
        self.now.skipped_in_a_row += 1
        if self.now.skipped_in_a_row == LIMIT:
            what = f"the loss or its gradient is not finite in {LIMIT} steps in a row, the last of them"
            raise TrainingError(f"{what} {self.now.place(1)}", cure=self._cure())

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
        self.descent.add(self.quantised)
        self._average(self.quantised)
        return self.quantised

    def _prepared(self, module: nn.Module, fixed: Iterable[str] = ()) -> Callable[[Tensor], Any]:
        """What a step runs; evaluation runs the model itself."""
        network = distributed.parallel(module, fixed)
        return torch.compile(network, backend=self.run.compile) if self.run.compile else network

    def _average(self, module: nn.Module) -> None:
        if self.run.settings.ema is not None:
            self.averages.append(MovingAverage(module, self.run.settings.ema))

    def _evaluate(self) -> Metrics | Divergence:
        run, title = self.run, f"{self.run.title}: choosing"
        order = distributed.share(range(len(run.val)))
        loader = make_loader(run.val, run.share, run.workers, order=order, device=run.device)
        measure = evaluate if run.labels or run.teacher is None else run.teacher.judge
        return measure(self.model, loader, run.device, half=self.half, progress=self.progress, title=title)

    def _end_epoch(self) -> None:
        now = self.now
        self._check_finite()
        record: dict[str, Any] = {
            "epoch": now.epoch + 1,
            **now.figures(),
            "lr": learning_rate(self.run.settings, (now.epoch + 1) * self.run.steps - 1, self.run.steps),
            "seconds": now.seconds,
            "skipped": now.skipped,
        }
        with ExitStack() as instead:
            for average in self.averages:
                instead.enter_context(average.applied())
            if self.quantised is not None:
                instead.enter_context(self.quantised.applied())
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
        now.begin_epoch()
        self.save()
        write_history(self.run.folder, now.before, now.stages, now.history)
        self.run.on_epoch(record)
        self.progress.note(f"{self.run.title}, {in_words(record, val)}")

    def _consider(self, epoch: int, val: Metrics | Divergence, nats: float) -> None:
        """Save the model where it is the best so far."""
        now, score = self.now, self.run.score(val, nats)
        if now.best is None or score > now.best_score:
            now.best, now.best_score = {"epoch": epoch, **val.to_json()}, score
            self.run.save_best(self.model, val, {} if self.quantised is None else self.quantised.quantisers())

    def _cure(self) -> str:
        return f"lower {self.run.title}.lr, or set {self.run.title}.clip_norm; the last good files are kept"

    def _check_finite(self) -> None:
        check_finite(self.model, self.now.place(), self._cure())

    def save(self) -> None:
        self._check_finite()
        state = {
            "fingerprint": self.run.fingerprint,
            "model": self.model.state_dict(),
            **self.descent.state_dict(),
            "quantised": None if self.quantised is None else self.quantised.state_dict(),
            "averages": [average.state_dict() for average in self.averages],
            "standing": vars(self.now).copy(),
        }
        save_state(self.run.folder / "last.pt", state)
        self.saved = time.monotonic()


def _hits(logits: Tensor, labels: Tensor) -> int:
    """How many labels, or largest shares of mixed images, are the likeliest class."""
    classes = labels if labels.dim() == 1 else labels.argmax(1)
    return int((logits.argmax(1) == classes).sum())
