"""``convert``: a recipe to a compressed model in a file."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compressnet.accounting import Account, account_of_file
from compressnet.calibration import calibrate_
from compressnet.checkpoint import Description, save
from compressnet.errors import DataError, FileError
from compressnet.plan import Plan, PlannedLayer, make_plan
from compressnet.plan.price import price
from compressnet.pretrained import dense_model
from compressnet.progress import SILENT, Progress
from compressnet.recipe import Recipe, read_recipe
from compressnet.rewrite import project_
from compressnet.training.parts import need_data, open_images, sample_images


def convert(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    output: str | Path | None = None,
    *,
    dry_run: bool = False,
    force: bool = False,
    overrides: Iterable[str] = (),
    progress: Progress = SILENT,
) -> Account:
    """Plan, price, load weights, project, rewrite, save.

    Args:
        recipe: path, mapping or recipe.
        output: the file to write; not needed for a dry run.
        dry_run: only plan and price, without weights or data.
        force: replace a file that is there.
        overrides: ``key.path=value`` each.
        progress: is told.

    Returns:
        the account of the file, or of the plan.

    Raises:
        CompressnetError: the recipe, weights or data are wrong, or the file cannot be written.
    """
    plan = make_plan(read_recipe(recipe, overrides))
    if dry_run:
        return price(plan, str(recipe) if isinstance(recipe, str | Path) else "recipe")
    if output is None:
        raise FileError("no output file is named", cure="-o FILE names it; --dry-run needs none")
    if Path(output).exists() and not force:
        raise FileError("it exists already", str(output), "--force replaces it")
    if plan.recipe.model and plan.recipe.model.weights is None:
        progress.note("model.weights is null: an untrained model is converted; `compressnet run` can train it first")
    model = dense_model(plan)
    errors = _project_(plan, model, progress)
    description = Description.of(plan, "converted" if errors else "dense")
    results = {
        "projection_errors": _rounded({name: error for name, (error, _) in errors.items()}),
        "output_errors": _rounded({name: error for name, (_, error) in errors.items()}),
    }
    results = {kind: figures for kind, figures in results.items() if figures}
    save(model, output, dataclasses.replace(description, results=results), force=force)
    return account_of_file(output)


def _rounded(errors: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(f"{error:.6g}") for name, error in errors.items() if error is not None}


def _project_(plan: Plan, model: nn.Module, progress: Progress) -> dict[str, tuple[float, float | None]]:
    """Calibrate where the recipe says so, else project weights by themselves; the errors of each layer."""
    compressed = [layer for layer in plan.layers if layer.method]
    wanted = plan.recipe.calibration if compressed else None
    if wanted is not None and plan.recipe.data is None:
        progress.note("no data: weights are projected by themselves, not fitted to what layers see")
        wanted = None
    images = None if wanted is None else _images(plan, wanted.images, progress)
    with progress.task("projecting" if images is None else "calibrating", len(compressed)) as advance:

        def done(layer: PlannedLayer, error: float, output_error: float | None) -> None:
            known = {} if output_error is None else {"output_error": output_error}
            advance(1, layer=layer.name, error=error, **known)

        if images is None or wanted is None:
            return project_(model, plan.layers, done)
        return calibrate_(model, plan.layers, images, ridge=wanted.ridge, on_layer=done)


def _images(plan: Plan, count: int, progress: Progress) -> Tensor:
    """Images of the training part to calibrate on, as in evaluation, without their labels."""
    data = need_data(plan.recipe, "calibration").model_copy(update={"augment": "none"})
    plain = plan.recipe.model_copy(update={"data": data})
    assert plan.spec is not None
    assert plan.preprocessing is not None
    try:
        dataset = open_images(plain, plan.preprocessing, "train", plan.spec.num_classes, "the recipe")
    except DataError as error:
        cure = "convert fits layers on training images; --set calibration=null projects weights by themselves"
        raise DataError(f"{error}\n  {cure}") from None
    taken = (
        f"{count} training images" if count <= len(dataset) else f"{len(dataset)}, all the training images there are"
    )
    progress.note(f"fitting layers on {taken}")
    return sample_images(dataset, count, plan.recipe.seed)
