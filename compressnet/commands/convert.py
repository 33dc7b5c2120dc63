"""``convert``: a recipe to a compressed model in a file."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compressnet.accounting import Account, account_of_file
from compressnet.calibration import BlockFit, calibrate_
from compressnet.checkpoint import save
from compressnet.data.datasets import PartDataset
from compressnet.description import Description
from compressnet.errors import DataError, FileError
from compressnet.output import check_output
from compressnet.plan import Plan, PlannedLayer, make_plan
from compressnet.plan.price import price
from compressnet.pretrained import dense_model
from compressnet.progress import SILENT, Progress
from compressnet.recipe import Recipe, read_recipe
from compressnet.rewrite import project_
from compressnet.training.parts import open_images, sample_images


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
    check_output(Path(output), force)
    if plan.recipe.model and plan.recipe.model.weights is None:
        progress.note("model.weights is null: an untrained model is converted; `compressnet run` can train it first")
    dataset = calibration_images(plan)
    model = dense_model(plan)
    errors, block_errors = _project_(plan, model, dataset, progress)
    description = Description.of(plan, "converted" if errors or block_errors else "dense")
    results = {
        "projection_errors": _rounded({name: error for name, (error, _) in errors.items()}),
        "output_errors": _rounded({name: error for name, (_, error) in errors.items()} | block_errors),
    }
    results = {kind: figures for kind, figures in results.items() if figures}
    save(model, output, dataclasses.replace(description, results=results), force=force)
    return account_of_file(output)


def _rounded(errors: Mapping[str, float | None]) -> dict[str, float]:
    known = {name: error for name, error in errors.items() if error is not None and math.isfinite(error)}
    return {name: float(f"{error:.6g}") for name, error in known.items()}


def _project_(
    plan: Plan, model: nn.Module, dataset: PartDataset | None, progress: Progress
) -> tuple[dict[str, tuple[float, float | None]], dict[str, float]]:
    """Calibrate where there are images, else project weights by themselves; the errors of each layer and block."""
    compressed = [layer for layer in plan.layers if layer.method]
    images = _sample(plan, dataset, progress)
    blocks = BlockFit(model, plan.blocks, images)
    block_errors = _place_(blocks, progress)
    if not compressed:
        return {}, block_errors
    with progress.task("projecting" if images is None else "calibrating", len(compressed)) as advance:

        def done(layer: PlannedLayer, error: float, output_error: float | None) -> None:
            known = {} if output_error is None else {"output_error": output_error}
            advance(1, layer=layer.name, error=error, **known)

        if images is None or plan.recipe.calibration is None:
            errors = project_(model, plan.layers, done, untrained=_untrained(plan))
        else:
            errors = calibrate_(model, plan.layers, images, ridge=plan.recipe.calibration.ridge, on_layer=done)
    return errors, block_errors | blocks.refit_()


def _place_(blocks: BlockFit, progress: Progress) -> dict[str, float]:
    """Place and fit the blocks, where there are any; the errors of the outputs behind them."""
    if not blocks.blocks:
        return {}
    with progress.task("fitting blocks", len(blocks.blocks)) as advance:
        return blocks.place_(lambda block, error: advance(1, layer=block.name, output_error=error))


def _untrained(plan: Plan) -> bool:
    return plan.recipe.model is not None and plan.recipe.model.weights is None


def _calibrates(plan: Plan) -> bool:
    """Whether images would be used."""
    fits = bool(plan.blocks) or any(layer.method for layer in plan.layers)
    return fits and plan.recipe.calibration is not None and not _untrained(plan)


def calibration_images(plan: Plan) -> PartDataset | None:
    """The training part as in evaluation, opened; None where weights are projected by themselves.

    Raises:
        DataError: it cannot be used.
    """
    data = plan.recipe.data
    if data is None or not _calibrates(plan):
        return None
    plain = plan.recipe.model_copy(update={"data": data.model_copy(update={"augment": "none"})})
    assert plan.spec is not None
    assert plan.preprocessing is not None
    try:
        return open_images(plain, plan.preprocessing, "train", plan.spec.num_classes, "the recipe")
    except DataError as error:
        cure = "convert fits layers on training images; --set calibration=null projects weights by themselves"
        raise DataError(f"{error}\n  {cure}") from None


def _sample(plan: Plan, dataset: PartDataset | None, progress: Progress) -> Tensor | None:
    """As many images of it as the recipe says, without their labels."""
    wanted = plan.recipe.calibration
    if dataset is None or wanted is None:
        if _calibrates(plan):
            progress.note("no data: weights are projected by themselves, not fitted to what layers see")
        return None
    there = len(dataset)
    taken = f"{wanted.images} training images" if wanted.images <= there else f"all {there} training images there are"
    progress.note(f"fitting layers on {taken}")
    return sample_images(dataset, wanted.images, plan.recipe.seed)
