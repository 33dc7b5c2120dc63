"""A whole stage of training: from a model to a described file of its best epoch, with its test figures."""

import copy
import dataclasses
import re
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressnet.checkpoint import load, save
from compressnet.coding.choose import choose
from compressnet.coding.quantisers import Quantiser
from compressnet.data import memory
from compressnet.data.affine import random_affine
from compressnet.data.datasets import PartDataset
from compressnet.data.loading import make_loader
from compressnet.data.mixing import Mixing
from compressnet.description import Description
from compressnet.errors import DataError, FileError, TrainingError
from compressnet.fitting.linear import RIDGE
from compressnet.output import check_folder
from compressnet.plan import PlannedBlock, PlannedLayer, resolve_preprocessing
from compressnet.progress import SILENT, Progress
from compressnet.recipe import FinetuneSection, Recipe, TrainSection
from compressnet.training import distributed
from compressnet.training.board import Board
from compressnet.training.compiled import check_recompute
from compressnet.training.distillation import Teacher
from compressnet.training.evaluation import Divergence, Metrics, evaluate, from_json
from compressnet.training.loop import train
from compressnet.training.parts import check_batch, need_data, open_images
from compressnet.training.precision import half_of
from compressnet.training.preparation import Preparation, Stage
from compressnet.training.run import Gradual, Quantising, Run
from compressnet.training.state import check_state, sweep
from compressnet.training.trained import Trained
from compressnet.zoo.models import IMAGE_SIZES, ModelSpec


def check_start(path: Path, resume: bool, force: bool) -> None:
    """Refuse a stage that can neither start nor go on, before its model, images or teacher are read.

    Args:
        path: of the file to write; ``last.pt`` is beside it.
        resume: go on from ``last.pt``.
        force: replace what is there.

    Raises:
        FileError: the folder cannot be one, or the file exists and neither ``resume`` nor ``force`` is given.
        ResumeError: there is nothing to resume.
    """
    check_folder(path.parent)
    sweep(path, path.with_name("last.pt"), path.with_name("metrics.jsonl"))
    if resume:
        check_state(path.parent, path)
    elif path.exists() and not force:
        raise FileError("it exists already", str(path), "--resume goes on, --force starts anew")


def train_stage(
    model: nn.Module,
    description: Description,
    recipe: Recipe,
    settings: TrainSection,
    path: Path,
    *,
    where: str,
    origin: str,
    device: torch.device,
    resume: bool = False,
    teacher: Teacher | None = None,
    dense: nn.Module | None = None,
    compile: bool | str = False,
    tensorboard: bool = False,
    progress: Progress = SILENT,
) -> Trained:
    """Train, keep the best epoch by the val part, evaluate it once on the test part.

    Args:
        model: to train, on the CPU.
        description: of the file to write.
        recipe: names the data.
        settings: epochs, learning rate and the like.
        path: of the file to write; ``metrics.jsonl`` and ``last.pt`` go beside it.
        where: the file or recipe that is trained, for errors.
        origin: what the training started from; a resumed run must have the same.
        device: to train on.
        resume: go on from ``last.pt``.
        teacher: the dense model to learn from, or None.
        dense: the same, where ``calibrate`` or ``gradual`` needs it.
        compile: steps are compiled by ``torch.compile``, with the backend of that name where it is one.
        tensorboard: write the history for TensorBoard, too, into a folder ``tensorboard`` beside the file.
        progress: is told.

    Raises:
        CompressnetError: the data are wrong, or training cannot start or go on.
    """
    spec, base = description.spec, description.preprocessing
    if spec is None or base is None:
        raise FileError("it holds a module that is not torchvision's", where, "train it with your own loop")
    data = need_data(recipe, where)
    title = "pretrain" if description.stage == "dense" else "finetune"
    half_of(settings.amp, device, title)
    check_recompute(settings, bool(compile))
    labels = not isinstance(settings, FinetuneSection) or settings.labels
    count = spec.num_classes if labels else None
    with distributed.one_first():
        parts: dict[str, PartDataset] = {
            part: open_images(recipe, base, part, count, where, description.classes) for part in ("train", "val")
        }
        try:
            parts["test"] = open_images(recipe, base, "test", spec.num_classes, where, description.classes)
        except DataError as error:
            if labels:
                raise
            progress.note(f"nothing to test on: {error}")
    distributed.check_shares(data.batch_size, len(parts["train"]))
    if settings.epochs:
        check_batch(data, len(parts["train"]))
    of_data = tuple(parts["train"].classes) if labels else ()
    classes = _class_names(description.classes, of_data, spec.num_classes)
    description = dataclasses.replace(description, classes=classes)

    if teacher is not None:
        teacher.check(model.to(device), parts["val"][0][0][None].to(device))
    for part, augment in (("train", data.augment), ("val", "none")):
        if data.cache and augment in ("none", "affine") and memory.fits(parts[part]):
            loader = make_loader(parts[part], data.batch_size, data.workers, device="cpu")
            parts[part] = memory.keep(loader, parts[part], progress)
    _check_auxiliary(model, spec, resolve_preprocessing(base, data, base.channels).crop)

    def save_best(best: nn.Module, metrics: Metrics | Divergence, quantisers: Mapping[str, Quantiser]) -> None:
        if distributed.rank():
            return
        results = dict(description.results) | {"val": metrics.to_json()}
        grids = {name: quantiser.to_json() for name, quantiser in quantisers.items()}
        save(best, path, dataclasses.replace(description, results=results, quantisers=grids), force=True)

    fingerprint: dict[str, Any] = {
        "origin": origin,
        title: settings.model_dump(mode="json", exclude={"save_every"}),
        "data": data.model_dump(mode="json", exclude={"workers", "cache"}),
        "seed": recipe.seed,
        "processes": distributed.count(),
        "model": {"num_classes": spec.num_classes},
    }
    if (teacher or dense) and recipe.model is not None:
        fingerprint["model"]["weights"] = recipe.model.weights
    layers: list[PlannedLayer | PlannedBlock] = [*description.layers, *description.blocks]
    quantising = None
    if isinstance(settings, FinetuneSection) and settings.quantise:
        quantising = Quantising(settings.quantise, partial(choose, planned=layers, settings=recipe.export))
        fingerprint["export"] = recipe.export.model_dump(mode="json")
    stages: Mapping[str, Stage] = {}
    gradual = None
    if isinstance(settings, FinetuneSection):
        plain = parts["train"]
        if (settings.calibrate or settings.batchnorm) and data.augment not in ("none", "affine"):
            bare = recipe.model_copy(update={"data": data.model_copy(update={"augment": "none"})})
            plain = open_images(bare, base, "train", count, where, description.classes)
        ridge = recipe.calibration.ridge if recipe.calibration else RIDGE
        preparation = Preparation(
            description.layers, description.blocks, dense, plain, recipe.seed, ridge, data.batch_size, device
        )
        stages = preparation.stages(model, settings, progress)
        if settings.gradual and dense is not None:
            gradual = Gradual(settings.gradual, dense)
    board = Board(path.parent / "tensorboard")
    run = Run(
        settings,
        parts["train"],
        parts["val"],
        path.parent,
        save_best,
        device,
        data.batch_size,
        data.workers,
        recipe.seed,
        fingerprint,
        title=title,
        teacher=teacher,
        layers=layers,
        augment=random_affine if data.augment == "affine" else None,
        mix=Mixing(spec.num_classes, settings.mixup, settings.cutmix) if settings.mixup or settings.cutmix else None,
        quantising=quantising,
        compile="inductor" if compile is True else compile or None,
        recompute=isinstance(settings, FinetuneSection) and settings.recompute,
        labels=labels,
        stages=stages,
        gradual=gradual,
        **({"on_epoch": board} if tensorboard and not distributed.rank() else {}),
    )
    if teacher is not None and data.augment == "none" and run.mix is None:
        teacher.keep(make_loader(parts["train"], data.batch_size, data.workers, device=device), progress)
    with closing(board):
        standing = train(model, run, resume=resume, progress=progress)
    test = None
    if "test" in parts:
        order = distributed.share(range(len(parts["test"])))
        loader = make_loader(parts["test"], run.share, data.workers, order=order, device=device)
        test = evaluate(load(path).to(device), loader, device, progress=progress, title="testing")
    assert standing.before is not None
    assert standing.best is not None
    chosen = {key: value for key, value in standing.best.items() if key != "epoch"}
    trained = Trained(
        path,
        standing.epoch,
        int(standing.best["epoch"]),
        from_json(standing.before),
        from_json(chosen),
        test,
        {part: len(dataset) for part, dataset in parts.items()},
        {name: from_json(val) for name, val in standing.stages.items()},
    )
    if not distributed.rank():
        trained.write()
    return trained


def _class_names(of_model: tuple[str, ...] | None, of_data: tuple[str, ...], count: int) -> tuple[str, ...] | None:
    """What the classes are called after training on some data: as there, where it has them all.

    A thousand WordNet ids are ImageNet's folders, for which the model has words.
    """
    wordnet = len(of_data) == 1000 and all(re.fullmatch(r"n\d{8}", name) for name in of_data)
    return of_model if len(of_data) < count or (of_model and wordnet) else of_data


def _check_auxiliary(model: nn.Module, spec: ModelSpec, size: int) -> None:
    """Auxiliary heads run in training only, and need larger images than the rest of the model."""
    if not spec.options.get("aux_logits"):
        return
    ghost = copy.deepcopy(model).to("meta").train()
    try:
        ghost(torch.empty(2, 3, size, size, device="meta"))
    except RuntimeError:
        raise TrainingError(
            f"{spec.name}'s auxiliary head cannot take images of {size}×{size}",
            "data.image_size",
            f"train it on images of {IMAGE_SIZES.get(spec.name, 224)} pixels",
        ) from None
