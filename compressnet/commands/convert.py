"""``convert``: a recipe to a compressed model in a file."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compressnet.accounting import Account, account_of_file
from compressnet.calibration import BlockFit, calibrate_
from compressnet.checkpoint import Description, save
from compressnet.errors import DataError, FileError
from compressnet.plan import Plan, PlannedLayer, make_plan
from compressnet.plan.price import price
from compressnet.pretrained import dense_model
from compressnet.progress import SILENT, Progress
from compressnet.recipe import Recipe, read_recipe
from compressnet.rewrite import fits_outputs, project_, sample_inputs
from compressnet.training.parts import need_data, open_images, sample_images

IMAGES = 256  # of the training part, whose activations layers are fitted to


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
    errors, block_errors = _project_(plan, model, progress)
    description = Description.of(plan, "converted" if errors or block_errors else "dense")
    results = {
        "projection_errors": _rounded({name: error for name, (error, _) in errors.items()}),
        "output_errors": _rounded({name: error for name, (_, error) in errors.items()} | block_errors),
    }
    results = {kind: figures for kind, figures in results.items() if figures}
    save(model, output, dataclasses.replace(description, results=results), force=force)
    return account_of_file(output)


def _rounded(errors: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(f"{error:.6g}") for name, error in errors.items() if error is not None}


def _project_(
    plan: Plan, model: nn.Module, progress: Progress
) -> tuple[dict[str, tuple[float, float | None]], dict[str, float]]:
    """Calibrate where the recipe says so, else project weights by themselves; the errors of each layer and block."""
    compressed = [layer for layer in plan.layers if layer.method]
    wanted = plan.recipe.calibration if compressed or plan.blocks else None
    images = None if wanted is None else _images(plan, wanted.images, progress)
    blocks = BlockFit(model, plan.blocks, _block_images(plan, progress) if images is None else images)
    block_errors = _place_(blocks, progress)
    if not compressed:
        return {}, block_errors
    inputs = _inputs(plan, model, progress) if images is None else {}
    with progress.task("projecting" if images is None else "calibrating", len(compressed)) as advance:

        def done(layer: PlannedLayer, error: float, output_error: float | None) -> None:
            known = {} if output_error is None else {"output_error": output_error}
            advance(1, layer=layer.name, error=error, **known)

        if images is None or wanted is None:
            untrained = plan.recipe.model is not None and plan.recipe.model.weights is None
            errors = project_(model, plan.layers, inputs, done, untrained=untrained)
        else:
            errors = calibrate_(model, plan.layers, images, ridge=wanted.ridge, on_layer=done)
    return errors, block_errors | blocks.refit_()


ALONE = "calibration takes training images; --set calibration=null projects weights alone"


def _images(plan: Plan, count: int, progress: Progress, cure: str = ALONE) -> Tensor:
    """Images of the training part to calibrate on, as in evaluation, without their labels; ``cure`` if they fail."""
    data = need_data(plan.recipe, "calibration").model_copy(update={"augment": "none"})
    plain = plan.recipe.model_copy(update={"data": data})
    assert plan.spec is not None
    assert plan.preprocessing is not None
    try:
        dataset = open_images(plain, plan.preprocessing, "train", plan.spec.num_classes, "the recipe")
    except DataError as error:
        raise DataError(f"{error}\n  {cure}") from None
    progress.note(f"fitting layers to their outputs on {min(count, len(dataset))} training images")
    return sample_images(dataset, count, plan.recipe.seed)


def _place_(blocks: BlockFit, progress: Progress) -> dict[str, float]:
    """Place and fit the blocks, where there are any; the errors of the outputs behind them."""
    if not blocks.blocks:
        return {}
    with progress.task("fitting blocks", len(blocks.blocks)) as advance:
        return blocks.place_(lambda block, error: advance(1, layer=block.name, output_error=error))


def _block_images(plan: Plan, progress: Progress) -> Tensor | None:
    """Images that blocks are fitted to where the recipe has no calibration; None without data."""
    if not plan.blocks:
        return None
    names = ", ".join(block.name for block in plan.blocks)
    if plan.recipe.data is None:
        progress.note(f"no data: the layer behind {names} is fitted on Gaussian inputs")
        return None
    cure = f"convert fits the layer behind {names} on images; --set data=null takes Gaussian inputs"
    return _images(plan, IMAGES, progress, cure)


def _inputs(plan: Plan, model: nn.Module, progress: Progress) -> dict[str, Tensor]:
    """Samples of what the layers see that fit their outputs, where there are such layers and images."""
    fitted = [layer for layer in plan.layers if fits_outputs(layer)]
    if not fitted or plan.spec is None or plan.preprocessing is None:
        return {}
    if plan.recipe.data is None:
        progress.note(f"no data: {len(fitted)} layers are fitted on Gaussian inputs")
        return {}
    try:
        dataset = open_images(plan.recipe, plan.preprocessing, "train", plan.spec.num_classes, "the recipe")
    except DataError as error:
        message = f"{error}\n  convert fits {fitted[0].method} layers on images; --set data=null takes Gaussian inputs"
        raise DataError(message) from None
    images = min(IMAGES, len(dataset))
    progress.note(f"fitting {', '.join(layer.name for layer in fitted)} on {images} training images")
    return sample_inputs(model, fitted, sample_images(dataset, IMAGES, plan.recipe.seed))
