"""The images a command works on: a part of the recipe's data, prepared for a model."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import torch

from compressnet.data.datasets import PartDataset, check_classes, open_part
from compressnet.data.sources import Part
from compressnet.description import Description
from compressnet.errors import DataError, DeviceError, RecipeError, listing
from compressnet.maths.hashing import Purpose, permutation
from compressnet.plan import check_taught, resolve_preprocessing
from compressnet.recipe import DataSection, Recipe, read_recipe
from compressnet.recipe.schema import CalibrationSection
from compressnet.training.distributed import own_device
from compressnet.zoo.models import skeleton
from compressnet.zoo.preprocessing import Preprocessing


def need_data(recipe: Recipe, where: str) -> DataSection:
    """The recipe's data section.

    Raises:
        DataError: it has none.
    """
    if recipe.data is None:
        cure = "--set data.dataset=imagefolder --set data.root=PATH names the images; so does evaluate --recipe"
        raise DataError("its recipe has no data section", where, cure)
    return recipe.data


def need_labels(recipe: Recipe, where: str) -> DataSection:
    """The recipe's data section, of images that have labels.

    Raises:
        DataError: it has none.
    """
    data = need_data(recipe, where)
    if not data.labelled:
        cure = "give class folders, data.dataset: imagefolder; finetune learns without by finetune.labels: false"
        raise DataError(f"the images of data set '{data.dataset}' have no labels", str(data.root), cure)
    return data


def recipe_of(
    description: Description, file: str | Path, overrides: Iterable[str], free: Collection[str] = ()
) -> Recipe:
    """The recipe a file carries, with overrides of what is not fixed by the file.

    Args:
        description: of the file.
        file: for errors.
        overrides: ``key.path=value`` each.
        free: keys of the model that a command can change; a recipe that names no model then has the file's.

    Raises:
        RecipeError: an override is wrong, or is of what only ``convert`` and what comes before it use.
    """
    overrides, raw = list(overrides), dict(description.recipe)
    for override in overrides:
        key = override.partition("=")[0]
        section = key.partition(".")[0]
        if key in free and description.spec:
            raw = {"model": {"name": description.spec.name}} | raw | {"pretrain": None}
        elif section in ("model", "layers", "calibration", "pretrain"):
            cure = "convert the recipe again with it"
            if section == "model":
                cure += "; finetune takes model.num_classes and model.weights"
            raise RecipeError(f"--set '{override}': {file} is converted already", cure=cure)
    draft = read_recipe(raw, overrides)
    draft.source = f"the recipe in {file}"
    if description.spec and draft.recipe and draft.recipe.finetune.distill:
        check_taught(draft, skeleton(description.spec))
    return draft.checked()


def open_images(
    recipe: Recipe,
    base: Preprocessing,
    part: Part,
    num_classes: int | None,
    where: str,
    classes: Sequence[str] | None = None,
) -> PartDataset:
    """A part of the recipe's data, prepared for a model; training images are augmented one by one as the recipe says.

    Args:
        recipe: names the data.
        base: the model's own preprocessing.
        part: train, val or test.
        num_classes: of the model; None where labels are not looked at: there may be none, or of other classes.
        where: of the recipe, for errors.
        classes: of the model, where their names are known; the data's labels must be theirs.

    Raises:
        DataError: the data is missing or empty, or its classes are not the model's.
    """
    data = need_data(recipe, where) if num_classes is None else need_labels(recipe, where)
    preprocessing = resolve_preprocessing(base, data, base.channels)
    single = "none" if part != "train" or data.augment == "affine" else data.augment
    transform = preprocessing.transform(single, data.magnitude)
    dataset = open_part(data, part, transform, recipe.seed)
    if num_classes is None:
        return dataset
    check_classes(dataset, num_classes)
    if classes and len(dataset.classes) < num_classes and dataset.classes != list(classes[: len(dataset.classes)]):
        raise DataError(
            f"has {len(dataset.classes)} classes, the model {num_classes}; its labels would not be the model's",
            str(data.root or data.dataset),
            f"it needs a folder for every class: {listing(classes, 6)}; "
            f"or `finetune FILE --set model.num_classes={len(dataset.classes)}` makes the last layer anew",
        )
    return dataset


def check_batch(data: DataSection, images: int) -> None:
    """Refuse a batch that is larger than the training part.

    Args:
        data: the recipe's section.
        images: of the training part.

    Raises:
        DataError: with the largest batch there can be.
    """
    if data.batch_size > images:
        what = f"{data.batch_size} images a step, but there are {images} to train on"
        raise DataError(what, "data.batch_size", f"set it to {images} at most")


def sample_images(dataset: PartDataset, count: int, seed: int) -> torch.Tensor:
    """Some images of a part, chosen by a specified permutation: shape (at most count, C, H, W)."""
    order = permutation(len(dataset), seed, Purpose.ORDER)[:count].tolist()
    return torch.stack([dataset[index][0] for index in order])


def choosing_images(recipe: Recipe, base: Preprocessing, where: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Images by which steps are chosen, of whatever classes.

    Args:
        recipe: names the data, or has none.
        base: the model's own preprocessing.
        where: of the recipe, for errors.

    Returns:
        of the part train, as many as calibration takes, to weigh numbers by; of the part val, a third as many at most,
        to judge by, as a model is surer of what it was trained on. None without data.

    Raises:
        DataError: they cannot be used.
    """
    if recipe.data is None:
        return None
    plain = recipe.model_copy(update={"data": recipe.data.model_copy(update={"augment": "none"})})
    wanted = (recipe.calibration or CalibrationSection()).images
    try:
        train = open_images(plain, base, "train", None, where)
        val = open_images(plain, base, "val", None, where)
        return sample_images(train, wanted, recipe.seed), sample_images(val, max(1, wanted // 3), recipe.seed)
    except DataError as error:
        cure = "steps are chosen by images; --set data=null chooses without, and worse"
        raise DataError(f"{error}\n  {cure}") from None


def find_device(name: str) -> torch.device:
    """The device of a name: auto, cpu, cuda or cuda:N; of several processes each has its own.

    Raises:
        DeviceError: it is not there.
    """
    if name == "auto":
        return own_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"unknown device '{name}'", "--device", "there are auto, cpu, cuda and cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"unknown device '{name}'", "--device", "there are auto, cpu, cuda and cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"no such CUDA device; this machine has {torch.cuda.device_count()}",
            f"--device {name}",
            "--device cpu works",
        )
    return own_device(device)
