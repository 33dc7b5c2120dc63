"""``run``: all stages in order, those already done with the same inputs skipped."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressnet.accounting import Account, account_of_file, with_measured
from compressnet.commands.convert import calibration_images, convert
from compressnet.commands.evaluate import evaluate, evaluate_recipe
from compressnet.commands.export import export
from compressnet.commands.finetune import finetune
from compressnet.commands.ledger import Ledger, digest_of
from compressnet.description import Description
from compressnet.digest import sha256
from compressnet.errors import DataError, ResumeError
from compressnet.output import check_folder
from compressnet.plan import Plan, make_plan
from compressnet.pretrained import dense_model, is_trained
from compressnet.progress import SILENT, Progress
from compressnet.recipe import Recipe, TrainSection, read_recipe
from compressnet.sizing import check_budget
from compressnet.training.compiled import check_recompute
from compressnet.training.evaluation import Divergence, Metrics, from_json
from compressnet.training.interrupt import Interrupted
from compressnet.training.parts import check_batch, find_device, need_labels
from compressnet.training.stage import check_start, train_stage

_INDIFFERENT: dict[str, Any] = {"data": {"workers", "cache"}, "pretrain": {"save_every"}, "finetune": {"save_every"}}
"""The keys that change nothing of what a stage gives."""


@dataclass(frozen=True)
class Finished:
    """What a run gave.

    Args:
        folder: of its files.
        skipped: stages that were done already.
        metrics: of each model on the test part: dense (where it is trained), finetuned, exported.
        val: the same on the val part, as training has measured it; converted, and after stages before training, too.
        nbytes: of each model's file.
        account: of the exported file.
        dense_file_nbytes: of the dense model's file in fp32, where the run has trained it; else of its numbers.
    """

    folder: Path
    skipped: tuple[str, ...]
    metrics: Mapping[str, Metrics]
    val: Mapping[str, Metrics | Divergence]
    nbytes: Mapping[str, int]
    account: Account
    dense_file_nbytes: int

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "folder": str(self.folder),
            "skipped": list(self.skipped),
            "metrics": {name: metrics.to_json() for name, metrics in self.metrics.items()},
            "val": {name: metrics.to_json() for name, metrics in self.val.items()},
            "nbytes": dict(self.nbytes),
            "dense_file_nbytes": self.dense_file_nbytes,
            "report": self.account.to_json(),
        }


def run(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    output: str | Path,
    *,
    device: str = "auto",
    overrides: Iterable[str] = (),
    compile: bool | str = False,
    progress: Progress = SILENT,
) -> Finished:
    """Pretrain (where the recipe says so), convert, fine-tune, export, evaluate.

    Args:
        recipe: path, mapping or recipe.
        output: the folder that takes every file; a second call with the same recipe does only what is missing, and goes
            on where training was interrupted.
        device: auto, cpu, cuda or cuda:N.
        overrides: ``key.path=value`` each.
        compile: training steps are compiled; see :func:`compressnet.finetune`.
        progress: is told.

    Raises:
        CompressnetError: as the stages raise.
    """
    find_device(device)
    draft = read_recipe(recipe, overrides)
    plan = make_plan(draft)
    check_budget(draft, plan)
    if plan.recipe.pretrain or (plan.recipe.finetune.epochs and plan.recipe.finetune.labels):
        need_labels(plan.recipe, draft.source)
    folder = Path(output)
    check_folder(folder)
    check_recompute(plan.recipe.finetune, bool(compile))
    return _Pipeline(plan, folder, device, compile, progress).run()


class _Pipeline:
    def __init__(self, plan: Plan, folder: Path, device: str, compile: bool | str, progress: Progress) -> None:
        self.plan, self.recipe = plan, plan.recipe
        self.folder, self.device, self.compile, self.progress = folder, device, compile, progress
        self.ledger = Ledger(folder)
        self.asked = plan.recipe.model_dump(mode="json", exclude=_INDIFFERENT)
        self.metrics: dict[str, Metrics] = {}
        self.val: dict[str, Metrics | Divergence] = {}

    def run(self) -> Finished:
        dense_nbytes = self._dense()
        files = {"converted": self._convert()}
        if self.recipe.finetune.epochs:
            files["finetuned"] = self._finetune(files["converted"])
        account = self._export(list(files.values())[-1])
        dense_nbytes = dense_nbytes or account.dense_nbytes
        nbytes = {"dense": dense_nbytes, **{name: file.stat().st_size for name, file in files.items()}}
        nbytes["exported"] = account.file_nbytes or 0
        return Finished(self.folder, tuple(self.ledger.skipped), self.metrics, self.val, nbytes, account, dense_nbytes)

    def _dense(self) -> int | None:
        """Train the dense model, or measure the one there is; the baseline either way."""
        asked = [self.asked[key] for key in ("model", "data", "pretrain", "seed")]
        if self.recipe.pretrain is None:
            weights = self.recipe.model.weights if self.recipe.model else None
            if self.recipe.data is not None and self.plan.spec and is_trained(self.plan.spec, weights):
                self._measure("dense", [*asked, self._weights()], self._evaluate_dense)
            return None
        path = self.folder / "pretrain" / "dense.safetensors"

        def go(resume: bool) -> dict[str, Any]:
            check_start(path, resume, force=True)
            description = Description.of(self.plan, "dense")
            bare = make_plan(read_recipe(self.recipe.model_copy(update={"layers": ()})))
            trained = train_stage(
                dense_model(self.plan),
                dataclasses.replace(description, layers=bare.layers, blocks=()),
                self.recipe,
                self.recipe.pretrain or TrainSection(),
                path,
                where="the recipe",
                origin=f"{self.asked['model']}",
                device=find_device(self.device),
                resume=resume,
                compile=self.compile,
                progress=self.progress,
            )
            return trained.to_json()

        trained = self.ledger.stage("pretrain", asked, path, lambda: _resuming(path.parent, go))
        self.metrics["dense"], self.val["dense"] = Metrics(**trained["test"]), Metrics(**trained["best"])
        assert self.recipe.model is not None
        section = self.recipe.model.model_copy(update={"weights": str(path)})
        self.recipe = self.recipe.model_copy(update={"model": section, "pretrain": None})
        return path.stat().st_size

    def _convert(self) -> Path:
        path = self.folder / "converted.safetensors"
        asked = [self.asked[key] for key in ("model", "data", "layers", "calibration", "seed")]

        def make() -> None:
            convert(self.recipe, path, force=True, progress=self.progress)

        if self.recipe.budget is not None:
            asked += [self.asked[key] for key in ("budget", "export")]
        configs = [dict(layer.config) for layer in self.plan.layers]  # a budget of bytes hangs on export.dtype
        self.ledger.stage("convert", [*asked, self._weights(), configs], path, make)
        return path

    def _weights(self) -> str | None:
        """The digest of the file that the dense weights come from, where it is one of the user's or of this run."""
        path = Path((self.recipe.model and self.recipe.model.weights) or "")
        return sha256(path) if path.is_file() else None

    def _finetune(self, converted: Path) -> Path:
        path = self.folder / "finetune" / "best.safetensors"
        sections = ["finetune", "data", "seed"] + ["export"] * (self.recipe.finetune.quantise is not None)
        asked = [digest_of(converted), *(self.asked[key] for key in sections)]

        def go(resume: bool) -> dict[str, Any]:
            return finetune(
                converted,
                path.parent,
                device=self.device,
                resume=resume,
                force=not resume,
                overrides=self._overrides("data", "finetune", "export"),
                compile=self.compile,
                progress=self.progress,
            ).to_json()

        trained = self.ledger.stage("finetune", asked, path, lambda: _resuming(path.parent, go))
        self.val["converted"] = from_json(trained["before"])
        self.val |= {f"after {stage}": from_json(val) for stage, val in trained.get("stages", {}).items()}
        self.val["finetuned"] = from_json(trained["best"])
        if "test" in trained:
            self.metrics["finetuned"] = Metrics(**trained["test"])
        return path

    def _export(self, last: Path) -> Account:
        path = self.folder / "model.safetensors"
        over = self._overrides("export", "budget")

        def make() -> dict[str, Any]:
            return export(last, path, force=True, overrides=over, progress=self.progress).to_json()

        self.ledger.stage("export", [digest_of(last), *over], path, make)
        if self.recipe.data is not None:
            asked = [digest_of(path), self.asked["data"]]
            self._measure(
                "exported",
                asked,
                lambda: evaluate(path, recipe=self.recipe, device=self.device, progress=self.progress),
            )
        return with_measured(account_of_file(path), account_of_file(last))

    def _overrides(self, *sections: str) -> list[str]:
        """This run's settings, for a file whose own may be of an earlier run with, say, other ``data.workers``."""
        wanted = self.recipe.model_dump(mode="json")
        return [f"{name}={json.dumps(wanted[name], ensure_ascii=False)}" for name in sections]

    def _evaluate_dense(self) -> Metrics:
        images = calibration_images(self.plan)  # what later stages refuse is told before weights are downloaded
        if images is not None and self.recipe.data is not None and self.recipe.finetune.epochs:
            check_batch(self.recipe.data, len(images))
        return evaluate_recipe(self.recipe, device=self.device, progress=self.progress)

    def _measure(self, name: str, asked: list[Any], make: Callable[[], Metrics]) -> None:
        """Evaluate on the test part; what needs no labels may have none that are the model's."""
        try:
            self.metrics[name] = Metrics(**self.ledger.stage(f"test {name}", asked, None, lambda: make().to_json()))
        except DataError as error:
            if self.recipe.finetune.labels and self.recipe.data and self.recipe.data.labelled:
                raise
            self.progress.note(f"{name}: nothing to test on: {error}")


def _resuming(folder: Path, go: Callable[[bool], dict[str, Any]]) -> dict[str, Any]:
    """Train, from where an interrupted run of the same inputs stopped if there is one; drop its state at the end."""
    state = folder / "last.pt"
    try:
        try:
            result = go(state.exists())
        except ResumeError:
            result = go(False)
    except Interrupted as stop:
        raise Interrupted(stop.number, stop.place, "the same command goes on from there") from None
    state.unlink(missing_ok=True)
    return result
