"""Which model a recipe means, how its images are prepared, and what its classes are called."""

import dataclasses
from contextlib import suppress
from pathlib import Path

from compressnet.container import read_header
from compressnet.errors import CompressnetError, FileError, PlanError, RecipeError, WeightsError, did_you_mean
from compressnet.recipe import DataSection, Draft, ModelSection
from compressnet.zoo import models, preprocessing, weights
from compressnet.zoo.models import ModelSpec
from compressnet.zoo.preprocessing import Preprocessing

Resolved = tuple[ModelSpec, Preprocessing, tuple[str, ...] | None]


def resolve_model(draft: Draft) -> Resolved | None:
    """The model, its preprocessing and classes.

    What is wrong is noted in the draft. Where that is only the weights, the model is given without them, so that layers
    can be checked too; where the model cannot be known, None.
    """
    section = _model_section(draft)
    if section is None:
        return None
    try:
        return _resolve(draft, section)
    except (WeightsError, FileError, PlanError, RecipeError) as error:
        key, text = _blamed(error)
        draft.mistake(key, text)
    if key == ("model", "weights") and section.weights is not None:
        with suppress(CompressnetError):
            return _resolve(draft, section.model_copy(update={"weights": None}))
    return None


def _model_section(draft: Draft) -> ModelSection | None:
    """The model section, even where other sections are wrong."""
    if draft.recipe is not None and draft.recipe.model is None:
        draft.mistake(("model",), "the key is missing; a recipe names its model")
        return None
    try:
        return ModelSection.model_validate(draft.raw.get("model"))
    except ValueError:
        return None


def _blamed(error: CompressnetError) -> tuple[tuple[str, str], str]:
    """The key an error is about, and its text without that key."""
    section, dot, key = str(error).partition(":")[0].partition(".")
    if dot and section in ("model", "data") and key.isidentifier():
        return (section, key), str(error).removeprefix(f"{section}.{key}: ")
    return ("model", "name" if isinstance(error, PlanError) else "weights"), str(error)


def _resolve(draft: Draft, section: ModelSection) -> Resolved:
    if section.name not in models.names():
        raise PlanError(f"unknown model '{section.name}'; {did_you_mean(section.name, models.names())}")
    data = draft.recipe.data if draft.recipe else None
    base, classes, spec = None, None, None
    preset = weights.preset(None, data.preset, "data.preset") if data and data.preset else None
    if section.weights is not None and weights.is_path(section.weights):
        spec, base, classes = _from_file(section)
    elif section.weights is not None:
        preset = preset or weights.preset(section.name, section.weights)
    if preset is not None:
        base = preprocessing.from_preset(preset)
    if spec is None:
        named = None if data is None else data.preset
        spec = weights.spec_for(section.name, section.weights, section.num_classes, named)
    if preset is not None and spec.num_classes == len(preset.meta["categories"]):
        classes = tuple(preset.meta["categories"])
    channels = preprocessing.input_channels(models.skeleton(spec))
    if base is None and spec.name in models.IMAGE_SIZES:
        base = preprocessing.resolve(None, channels=channels, image_size=models.IMAGE_SIZES[spec.name])
    return spec, resolve_preprocessing(base, data, channels), classes


def resolve_preprocessing(base: Preprocessing | None, data: DataSection | None, channels: int) -> Preprocessing:
    """What a recipe's data section makes of a model's own preprocessing.

    Raises:
        WeightsError: ``data.preset`` names no torchvision weights.
    """
    if data is None:
        return preprocessing.resolve(base, channels=channels)
    if data.preset:
        base = preprocessing.from_preset(weights.preset(None, data.preset, "data.preset"))
    keys = ("image_size", "resize", "crop", "interpolation", "mean", "std")
    return preprocessing.resolve(base, channels=channels, **{key: getattr(data, key) for key in keys})


def _from_file(
    section: ModelSection,
) -> tuple[ModelSpec | None, Preprocessing | None, tuple[str, ...] | None]:
    """What a file of ours says of itself; nothing for a plain state_dict."""
    path = Path(section.weights or "")
    if not path.exists():
        raise WeightsError("no such file", str(path))
    if path.suffix != ".safetensors":
        return None, None, None
    try:
        header = read_header(path)
    except FileError as error:
        if "not one of compressnet's" in str(error):
            return None, None, None
        raise
    if header.meta.get("model") is None:
        raise WeightsError("it holds a module that is not torchvision's", str(path))
    spec = ModelSpec.from_json(header.meta["model"])
    if spec.name != section.name:
        raise WeightsError(f"it holds {spec.name}, not {section.name}", str(path))
    if any("block" in item for item in header.meta["plan"]):
        raise WeightsError("it holds a model with blocks, which has no dense weights to start from", str(path))
    base = Preprocessing.from_json(header.meta["preprocessing"])
    classes = header.meta.get("classes")
    if section.num_classes and section.num_classes != spec.num_classes:
        return dataclasses.replace(spec, num_classes=section.num_classes), base, None
    return spec, base, tuple(classes) if classes else None
