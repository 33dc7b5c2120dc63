"""``finetune``: train a converted file until its accuracy is back."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import torch

from compressnet.checkpoint import load
from compressnet.container import read_header
from compressnet.description import Description, describe
from compressnet.errors import TrainingError
from compressnet.plan import resolve_preprocessing
from compressnet.pretrained import is_trained, with_weights
from compressnet.progress import SILENT, Progress
from compressnet.recipe import Recipe
from compressnet.training import board
from compressnet.training.distillation import Teacher
from compressnet.training.parts import find_device, recipe_of
from compressnet.training.stage import Trained, check_start, train_stage


def finetune(
    file: str | Path,
    output: str | Path,
    *,
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    overrides: Iterable[str] = (),
    tensorboard: bool = False,
    progress: Progress = SILENT,
) -> Trained:
    """Train the model of a file by the recipe it carries.

    Args:
        file: of any stage.
        output: the folder that takes ``best.safetensors``, ``metrics.jsonl`` and ``last.pt``.
        device: auto, cpu, cuda or cuda:N.
        resume: go on from ``last.pt``.
        force: start anew where there are files already.
        overrides: ``key.path=value`` each, on the recipe in the file.
        tensorboard: write the history for TensorBoard, too, into the folder ``tensorboard`` in the output.
        progress: is told.

    Raises:
        CompressnetError: the file or the data are wrong, or there is nothing to resume.
    """
    if tensorboard:
        board.check()
    on, best = find_device(device), Path(output) / "best.safetensors"
    check_start(best, resume, force)
    description = describe(file)
    recipe = recipe_of(description, file, overrides)
    base = description.preprocessing
    described = dataclasses.replace(
        description,
        stage="finetuned",
        preprocessing=resolve_preprocessing(base, recipe.data, base.channels) if base else None,
        recipe=recipe.model_dump(mode="json", exclude_defaults=True),
    )
    return train_stage(
        load(file, form="compressed"),
        described,
        recipe,
        recipe.finetune,
        best,
        where=str(file),
        origin=f"{Path(file).name} {read_header(file).meta['sha256'][:16]}",
        device=on,
        resume=resume,
        teacher=_teacher(description, recipe, on),
        tensorboard=tensorboard,
        progress=progress,
    )


def _teacher(description: Description, recipe: Recipe, device: torch.device) -> Teacher | None:
    """The dense model of the recipe's weights, where the recipe wants to learn from it."""
    settings, spec = recipe.finetune.distill, description.spec
    if settings is None or spec is None:
        return None
    source = recipe.model.weights if recipe.model else None
    if not is_trained(spec, source):
        raise TrainingError(
            "there is no trained dense model to learn from: model.weights "
            + ("is null" if source is None else "has another number of classes"),
            "finetune.distill",
            "--set finetune.distill=null trains on the labels alone",
        )
    return Teacher(with_weights(spec, source, recipe.seed), settings, device)
