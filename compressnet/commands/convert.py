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
from compressnet.errors import DataError, FileError, WeightsError, first_line
from compressnet.output import check_output
from compressnet.plan import Plan, PlannedLayer, make_plan
from compressnet.plan.price import price
from compressnet.pretrained import dense_model, with_weights
from compressnet.progress import SILENT, Progress
from compressnet.recipe import Recipe, read_recipe
from compressnet.rewrite import project_
from compressnet.sizing import Sized, check_budget, expected, resolve
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

    With a budget, the ratios and bits that the recipe leaves open are chosen when weights are there.

    Args:
        recipe: path, mapping or recipe.
        output: the file to write; not needed for a dry run.
        dry_run: only plan and price, without weights or data; with a budget these are looked at where they are there.
        force: replace a file that is there.
        overrides: ``key.path=value`` each.
        progress: is told.

    Returns:
        the account of the file, or of the plan.

    Raises:
        CompressnetError: the recipe, weights or data are wrong, or the file cannot be written.
    """
    draft = read_recipe(recipe, overrides)
    plan = make_plan(draft)
    check_budget(draft, plan)
    if dry_run:
        source = str(recipe) if isinstance(recipe, str | Path) else "recipe"
        return price(plan, source) if plan.recipe.budget is None else expected(_tried(plan, progress), source)
    if output is None:
        raise FileError("no output file is named", cure="-o FILE names it; --dry-run needs none")
    check_output(Path(output), force)
    if plan.recipe.model and plan.recipe.model.weights is None:
        progress.note("model.weights is null: an untrained model is converted; `compressnet run` can train it first")
    dataset = calibration_images(plan)
    model = dense_model(plan)
    images = _sample(plan, dataset, progress)
    blocks = BlockFit(model, plan.blocks, images)
    block_errors = _place_(blocks, progress)
    if plan.recipe.budget is not None:
        plan = resolve(plan, model, images, progress).plan
    errors = _project_(plan, model, images, progress)
    block_errors |= blocks.refit_() if errors else {}
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


def _tried(plan: Plan, progress: Progress) -> Sized:
    """How the budget of a plan is shared, with the weights and images that are there."""
    try:
        images = _sample(plan, calibration_images(plan), progress)
    except DataError as error:
        progress.note(f"no images: {first_line(error)}")
        images = None
    try:
        model = dense_model(plan)
    except WeightsError as error:
        progress.note(f"no weights, drawn ones stand for them: {first_line(error)}")
        assert plan.spec is not None
        model, images = with_weights(plan.spec, None, plan.recipe.seed), None
    if images is None:
        progress.note("errors of weights are counted by themselves, not by what they do to answers")
    _place_(BlockFit(model, plan.blocks, images), progress)
    return resolve(plan, model, images, progress)


def _project_(
    plan: Plan, model: nn.Module, images: Tensor | None, progress: Progress
) -> dict[str, tuple[float, float | None]]:
    """Calibrate where there are images, else project weights by themselves; the errors of each layer."""
    compressed = [layer for layer in plan.layers if layer.method]
    if not compressed:
        return {}
    with progress.task("projecting" if images is None else "calibrating", len(compressed)) as advance:

        def done(layer: PlannedLayer, error: float, output_error: float | None) -> None:
            known = {} if output_error is None else {"output_error": output_error}
            advance(1, layer=layer.name, error=error, **known)

        if images is None or plan.recipe.calibration is None:
            return project_(model, plan.layers, done, untrained=_untrained(plan), tables=False)
        return calibrate_(model, plan.layers, images, ridge=plan.recipe.calibration.ridge, on_layer=done)


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
        classes = plan.spec.num_classes if data.labelled and plan.recipe.finetune.labels else None
        return open_images(plain, plan.preprocessing, "train", classes, "the recipe")
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
