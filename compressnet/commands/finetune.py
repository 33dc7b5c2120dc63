"""``finetune``: train a converted file until its accuracy is back."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from compressnet.checkpoint import load
from compressnet.container import read_header
from compressnet.description import Description, describe
from compressnet.errors import TrainingError, listing
from compressnet.plan import resolve_preprocessing
from compressnet.pretrained import classes_of, num_classes_of, with_weights
from compressnet.progress import SILENT, Progress
from compressnet.recipe import Recipe
from compressnet.training import board, distributed
from compressnet.training.distillation import Teacher
from compressnet.training.parts import find_device, recipe_of
from compressnet.training.stage import check_start, train_stage
from compressnet.training.trained import Trained
from compressnet.transfer import renew_classifier_

TRANSFERRED = ("model.num_classes", "model.weights")
"""Keys of the model that a file may still be given: for another task, and its teacher."""


@distributed.together()
def finetune(
    file: str | Path,
    output: str | Path,
    *,
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    overrides: Iterable[str] = (),
    compile: bool | str = False,
    tensorboard: bool = False,
    progress: Progress = SILENT,
) -> Trained:
    """Train the model of a file by the recipe it carries.

    Where ``torchrun`` has started several processes, all of them train it together; see
    :mod:`compressnet.training.distributed`. Where ``model.num_classes`` is overridden by another number than the model
    has, its last layer is made anew.

    Args:
        file: of any stage.
        output: the folder that takes ``best.safetensors``, ``metrics.jsonl`` and ``last.pt``.
        device: auto, cpu, cuda or cuda:N.
        resume: go on from ``last.pt``.
        force: start anew where there are files already.
        overrides: ``key.path=value`` each, on the recipe in the file.
        compile: steps are compiled by ``torch.compile``, with the backend of that name where it is one.
        tensorboard: write the history for TensorBoard, too, into the folder ``tensorboard`` in the output.
        progress: is told.

    Raises:
        CompressnetError: the file or the data are wrong, or there is nothing to resume.
    """
    if tensorboard:
        board.check()
    on, best = find_device(device), Path(output) / "best.safetensors"
    progress = SILENT if distributed.rank() else progress
    check_start(best, resume, force)
    description = describe(file)
    recipe = recipe_of(description, file, overrides, TRANSFERRED)
    model = load(file, form="compressed")
    classes, spec = recipe.model.num_classes if recipe.model else None, description.spec
    if classes and spec and classes != spec.num_classes:
        description = renew_classifier_(model, description, classes, recipe.seed, progress)
    taught, base = _dense_model(description, recipe, "distill"), description.preprocessing
    described = dataclasses.replace(
        description,
        stage="finetuned",
        preprocessing=resolve_preprocessing(base, recipe.data, base.channels) if base else None,
        recipe=recipe.model_dump(mode="json", exclude_defaults=True),
    )
    return train_stage(
        model,
        described,
        recipe,
        recipe.finetune,
        best,
        where=str(file),
        origin=f"{Path(file).name} {read_header(file).meta['sha256'][:16]}",
        device=on,
        resume=resume,
        teacher=Teacher(taught, distill, on) if taught and (distill := recipe.finetune.distill) else None,
        dense=_dense_model(description, recipe, "calibrate", "gradual"),
        compile=compile,
        tensorboard=tensorboard,
        progress=progress,
    )


WITHOUT_DENSE = {
    "distill": "trains on the labels alone",
    "calibrate": "keeps the numbers in the file",
    "gradual": "trains the compressed weights from the start",
}
"""What wants the dense model, and what happens where it is null."""


def _dense_model(description: Description, recipe: Recipe, *keys: str) -> nn.Module | None:
    """The dense model of the recipe's weights, where the recipe wants one of some things of it."""
    wanted, spec = [key for key in keys if getattr(recipe.finetune, key) is not None], description.spec
    if not wanted or spec is None:
        return None
    where = f"finetune.{wanted[0]}"
    cure = (
        f"--set model.weights=PATH names one of {spec.num_classes} classes; "
        f"--set {where}=null {WITHOUT_DENSE[wanted[0]]}"
    )
    source = recipe.model.weights if recipe.model else None
    if source is None:
        raise TrainingError("there is no trained dense model to learn from: model.weights is null", where, cure)
    taught = num_classes_of(spec, source)
    if taught != spec.num_classes:
        what = f"the dense model, of {source}, tells {taught} classes apart, the compressed one {spec.num_classes}"
        raise TrainingError(what, where, cure)
    names = classes_of(source)
    if names and description.classes and names != description.classes:
        what = f"the dense model, of {source}, tells {listing(names, 4)} apart, the compressed one "
        raise TrainingError(f"{what}{listing(description.classes, 4)}", where, cure)
    return with_weights(spec, source, recipe.seed)
