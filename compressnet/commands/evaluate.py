"""``evaluate``: accuracy and loss of a file, or of a recipe's dense model."""

from collections.abc import Callable, Iterable
from pathlib import Path

from torch import nn

from compressnet.checkpoint import load
from compressnet.data.loading import make_loader
from compressnet.data.sources import Part
from compressnet.description import Description, describe
from compressnet.errors import FileError
from compressnet.plan import make_plan
from compressnet.pretrained import dense_model
from compressnet.progress import SILENT, Progress
from compressnet.recipe import Recipe, read_recipe
from compressnet.training.evaluation import Metrics
from compressnet.training.evaluation import evaluate as evaluate_model
from compressnet.training.parts import find_device, need_data, open_images, recipe_of


def evaluate(
    file: str | Path,
    *,
    recipe: str | Path | Recipe | None = None,
    part: Part = "test",
    device: str = "auto",
    overrides: Iterable[str] = (),
    progress: Progress = SILENT,
) -> Metrics:
    """Evaluate a model on a part of the data its recipe names.

    Args:
        file: of any stage, or a recipe (.yaml), whose dense model is evaluated.
        recipe: that names the data; by default the one that the file carries.
        part: train, val or test.
        device: auto, cpu, cuda or cuda:N.
        overrides: ``key.path=value`` each, such as ``data.root=…``.
        progress: is told.

    Raises:
        CompressnetError: the file or the data are wrong.
    """
    if Path(file).suffix in (".yaml", ".yml"):
        return evaluate_recipe(file, part=part, device=device, overrides=overrides, progress=progress)
    description = describe(file)
    named = recipe_of(description, file, overrides) if recipe is None else read_recipe(recipe, overrides).checked()
    return _measure(lambda: load(file), description, named, str(file), part, device, progress)


def evaluate_recipe(
    recipe: str | Path | Recipe,
    *,
    part: Part = "test",
    device: str = "auto",
    overrides: Iterable[str] = (),
    progress: Progress = SILENT,
) -> Metrics:
    """Evaluate the dense model of a recipe; as :func:`evaluate`."""
    plan = make_plan(read_recipe(recipe, overrides))
    where = "the recipe" if isinstance(recipe, Recipe) else str(recipe)
    described = Description.of(plan, "dense")
    return _measure(lambda: dense_model(plan), described, plan.recipe, where, part, device, progress)


def _measure(
    build: Callable[[], nn.Module],
    description: Description,
    recipe: Recipe,
    where: str,
    part: Part,
    device: str,
    progress: Progress,
) -> Metrics:
    on = find_device(device)
    if description.spec is None or description.preprocessing is None:
        raise FileError("it holds a module that is not torchvision's", where, "evaluate it with your own loop")
    data = need_data(recipe, where)
    dataset = open_images(
        recipe, description.preprocessing, part, description.spec.num_classes, where, description.classes
    )
    loader = make_loader(dataset, data.batch_size, data.workers, device=on)
    return evaluate_model(build().to(on), loader, on, progress=progress)
