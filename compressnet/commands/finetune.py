"""``finetune``: train a converted file until its accuracy is back."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from compressnet.checkpoint import load
from compressnet.container import read_header
from compressnet.description import Description, describe
from compressnet.errors import TrainingError
from compressnet.plan import resolve_preprocessing
from compressnet.pretrained import is_trained, with_weights
from compressnet.progress import SILENT, Progress
from compressnet.recipe import Recipe
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
        progress: is told.

    Raises:
        CompressnetError: the file or the data are wrong, or there is nothing to resume.
    """
    on, best = find_device(device), Path(output) / "best.safetensors"
    check_start(best, resume, force)
    description = describe(file)
    recipe = recipe_of(description, file, overrides)
    dense, base = _dense_model(description, recipe), description.preprocessing
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
        teacher=Teacher(dense, distill, on) if (distill := recipe.finetune.distill) and dense else None,
        dense=dense,
        progress=progress,
    )


WITHOUT_DENSE = {
    "distill": "trains on the labels alone",
    "calibrate": "keeps the numbers in the file",
    "gradual": "trains the compressed weights from the start",
}
"""What wants the dense model, and what happens where it is null."""


def _dense_model(description: Description, recipe: Recipe) -> nn.Module | None:
    """The dense model of the recipe's weights, where the recipe wants something of it."""
    wanted, spec = [key for key in WITHOUT_DENSE if getattr(recipe.finetune, key) is not None], description.spec
    if not wanted or spec is None:
        return None
    source = recipe.model.weights if recipe.model else None
    if not is_trained(spec, source):
        raise TrainingError(
            "there is no trained dense model to learn from: model.weights "
            + ("is null" if source is None else "has another number of classes"),
            f"finetune.{wanted[0]}",
            f"--set finetune.{wanted[0]}=null {WITHOUT_DENSE[wanted[0]]}",
        )
    return with_weights(spec, source, recipe.seed)
