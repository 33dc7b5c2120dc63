"""Pretrained weights: torchvision's by name, or a state_dict from a path."""

import math
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from compressnet.errors import PlanError, WeightsError, did_you_mean, listing
from compressnet.zoo import models
from compressnet.zoo.models import MAX_CLASSES, MAX_IMAGE_SIZE, OPTIONS, ModelSpec
from compressnet.zoo.state_dicts import read_state_dict as read_state_dict

_SUFFIXES = (".pth", ".pt", ".safetensors")
# DenseNet's published files hold keys from before dots were forbidden in module names.
_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..+)$")


def is_path(weights: str) -> bool:
    """Is this a file, rather than the name of torchvision's weights?

    >>> is_path("weights/mine.pth"), is_path("IMAGENET1K_V1"), is_path("AlexNet_Weights.IMAGENET1K_V1")
    (True, False, False)
    """
    separated = os.sep in weights or "/" in weights
    return separated or Path(weights).suffix.lower() in _SUFFIXES or Path(weights).exists()


@cache
def _published() -> dict[str, Any]:
    """The WeightsEnum class of every model that has one."""
    from torchvision import models as torchvision_models

    known = torchvision_models.list_models(module=torchvision_models)
    return {name: torchvision_models.get_model_weights(name) for name in known}


def preset(model_name: str | None, weights_name: str, where: str = "model.weights") -> Any:
    """The member of torchvision's ``WeightsEnum`` of that name.

    Args:
        model_name: whose weights a name without a class means (``IMAGENET1K_V1``, ``DEFAULT``).
        weights_name: such a name, or one with its class (``SqueezeNet1_1_Weights.IMAGENET1K_V1``), of any model.
        where: the recipe's key, for the error.

    Raises:
        WeightsError: there are no such weights.
    """
    class_name, _, member = weights_name.rpartition(".")
    if class_name:
        classes = {enum.__name__: enum for enum in _published().values()}
        if class_name not in classes:
            near = did_you_mean(class_name, sorted(classes))
            raise WeightsError(f"unknown weights '{weights_name}'; {near}", where, "or give the path of a file")
        enum = classes[class_name]
    elif model_name is None:
        cure = f"write it with its class, such as ResNet18_Weights.{weights_name}"
        raise WeightsError(f"'{weights_name}' could be any model's", where, cure)
    elif model_name not in _published():
        models.check_name(model_name)
        cure = "give the path of a .pth or .safetensors file, or null to train from nothing"
        what = f"torchvision has no weights for {model_name}, so none called '{weights_name}'"
        raise WeightsError(what, where, cure)
    else:
        enum = _published()[model_name]
    members = [entry.name for entry in enum]
    if member != "DEFAULT" and member not in members:
        raise WeightsError(
            f"unknown weights '{weights_name}'; {did_you_mean(member, [*members, 'DEFAULT'])}",
            where,
            f"{enum.__name__} has {', '.join(members)} and DEFAULT; or give the path of a file",
        )
    return enum[member] if member in members else enum.DEFAULT


def _own_weights(name: str, weights_name: str) -> Any:
    """The same, refused when they are another model's or made for a model of another shape."""
    models.check_name(name)
    found = preset(name, weights_name)
    if type(found) is not _published().get(name):
        raise WeightsError(
            f"'{weights_name}' are not weights of {name}",
            "model.weights",
            f"there are {', '.join(w.name for w in _published().get(name, ())) or 'none'}",
        )
    return found


def classifier_keys(spec: ModelSpec) -> set[str]:
    """The tensors whose shape depends on the number of classes, auxiliary heads' included."""
    return set(_classifier_keys(spec.name, tuple(sorted(spec.options.items()))))


@cache
def _classifier_keys(name: str, options: tuple[tuple[str, bool], ...]) -> frozenset[str]:
    two, three = (models.skeleton(ModelSpec(name, n, dict(options))).state_dict() for n in (2, 3))
    return frozenset(key for key, tensor in two.items() if tensor.shape != three[key].shape)


def load_weights_(
    model: nn.Module, state: Mapping[str, Tensor], classifier_keys: Iterable[str], where: str
) -> set[str]:
    """Copy weights into a model, strictly, but for a classifier of another number of classes.

    What is on ``meta`` takes the tensors as they are, in the model's dtype.

    Args:
        model: on the CPU, or a skeleton; when the weights do not fit, what it holds afterwards is undefined.
        state: tensors by key, of any floating dtype.
        classifier_keys: the tensors that may differ in their first dimension.
        where: the file or name, for the error.

    Returns:
        The classifier tensors that were left as they were.

    Raises:
        WeightsError: tensors are missing, unexpected, misshapen or not finite.
    """
    old_names = {key: _DENSENET.sub(r"\1\2", key) for key in state}
    own = model.state_dict()
    given: OrderedDict[str, Tensor] = OrderedDict((old_names[key], tensor) for key, tensor in state.items())
    # Module versions, by which old files are understood; a file without them is taken to have today's layout at the
    # top (MNASNet refuses it otherwise) and an unknown one below (ViT and batch norm then mend old keys themselves).
    versions = {"": {"version": getattr(model, "_version", None)}}
    given._metadata = getattr(state, "_metadata", versions)  # type: ignore[attr-defined]
    other = [key for key in given if key in own and given[key].shape != own[key].shape]
    kept = {key for key in classifier_keys if key in other and given[key].shape[1:] == own[key].shape[1:]}
    misshapen = [f"{key} is {_shape(given[key])}, not {_shape(own[key])}" for key in other if key not in kept]
    for key in other:
        del given[key]
    hollow = any(parameter.is_meta for parameter in model.parameters())
    taken: set[int] = set()
    for key in [key for key in given if hollow and key in own]:
        tensor = given[key].to(own[key].dtype).contiguous()
        given[key] = tensor.clone() if tensor.data_ptr() in taken else tensor  # parameters share no memory
        taken.add(tensor.data_ptr())
    try:
        result = model.load_state_dict(given, strict=False, assign=hollow)
    except RuntimeError as error:
        raise WeightsError(f"does not fit {type(model).__name__}: {error}", where) from error
    missing = [key for key in result.missing_keys if key not in other]
    wrong = [
        f"{len(keys)} {word} ({listing(keys, 4)})"
        for word, keys in (
            ("missing", missing), ("unexpected", result.unexpected_keys), ("misshapen", misshapen),
        )
        if keys
    ]  # fmt: skip
    if wrong:
        cure = "the file must be a state_dict of this very model, with torchvision's names"
        raise WeightsError(f"does not fit {type(model).__name__}: {'; '.join(wrong)}", where, cure)
    broken = [key for key, tensor in given.items() if tensor.is_floating_point() and not _is_finite(tensor)]
    if broken:
        cure = "its training has diverged, or the file is damaged"
        raise WeightsError(f"{listing(broken, 4)} holds infinite numbers, or what is no number", where, cure)
    return kept


def _is_finite(tensor: Tensor) -> bool:
    """By the extremes, which take no memory; what is no number is both of them."""
    return tensor.numel() == 0 or all(extreme.isfinite() for extreme in tensor.aminmax())


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"


def dense_model(spec: ModelSpec, weights: str | None, seed: int) -> nn.Module:
    """The dense model on the CPU, in fp32 and eval mode: fresh, then with its weights.

    Args:
        spec: which model; a number of classes other than the weights' leaves the classifier fresh.
        weights: torchvision's name (downloaded into its cache when absent), a path, or None.
        seed: of what is fresh.

    Raises:
        PlanError: there is no such model.
        WeightsError: the weights cannot be had, read, or do not fit.
    """
    if weights is None:
        return models.fresh(spec, seed)
    state = read_state_dict(weights, mapped=False) if is_path(weights) else _download(_own_weights(spec.name, weights))
    model = models.skeleton(spec)  # so that the numbers are in memory once
    if load_weights_(model, state, classifier_keys(spec), weights):
        model = models.fresh(spec, seed)
        load_weights_(model, state, classifier_keys(spec), weights)
    return model


def _download(weights: Any) -> Mapping[str, Tensor]:
    try:
        return weights.get_state_dict(progress=True, check_hash=True, map_location="cpu")
    except (URLError, OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        cache_folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise WeightsError(
            f"cannot be downloaded: {error}",
            str(weights),
            f"fetch {weights.url} elsewhere and put it into {cache_folder}, or give its path as model.weights",
        ) from error


def spec_for(name: str, weights: str | None, num_classes: int | None, preset: str | None) -> ModelSpec:
    """The model a recipe means, with nothing downloaded.

    Args:
        name: of the model.
        weights: torchvision's name, a path, or None.
        num_classes: or None for what the weights have: as many as torchvision's categories, or as the file's
            classifier; without weights ImageNet's 1000, and the papers' 10 for their nets.
        preset: the recipe's ``data.preset``, if any. With torchvision's weights or preset, GoogLeNet and
            Inception get images normalised ImageNet's way and turn them to their own.

    Raises:
        PlanError: no such model, or no such number of classes.
        WeightsError: no such weights or preset, or a file that cannot be read.
    """
    models.check_name(name)
    if num_classes is not None and not 1 <= num_classes <= MAX_CLASSES:
        raise PlanError(f"{num_classes} is no number of classes", "model.num_classes", f"1 to {MAX_CLASSES}")
    if preset is not None:
        _check_preset(name, preset)
    named = weights is not None and not is_path(weights)
    known = OPTIONS.get(name, {})
    options: dict[str, Any] = {}
    if "aux_logits" in known:
        options = {"aux_logits": True, "transform_input": named or preset is not None}
    if weights is None:
        from compressnet.zoo import papers

        classes = papers.NUM_CLASSES if name in papers.NAMES else 1000
    elif named:
        own = _own_weights(name, weights)
        classes = len(own.meta.get("categories") or range(1000))
        if "image_size" in known and own.meta["min_size"][0] != 224:
            options["image_size"] = own.meta["min_size"][0]
    else:
        state = read_state_dict(weights)
        if "image_size" in known:
            options |= _vit_image_size(state)
        if "aux_logits" in known:
            options["aux_logits"] = any(key.startswith(("aux1.", "AuxLogits.")) for key in state)
        classes = num_classes or _classes_in(state, ModelSpec(name, 1000, options), weights)
    return ModelSpec(name, num_classes or classes, options)


def _vit_image_size(state: Mapping[str, Tensor]) -> dict[str, int]:
    """The side of the images whose patches a vision transformer's position embeddings count, where it is not 224."""
    positions, patches = state.get("encoder.pos_embedding"), state.get("conv_proj.weight")
    if positions is None or patches is None or positions.ndim != 3 or patches.ndim != 4:
        return {}
    size = math.isqrt(positions.shape[1] - 1) * patches.shape[-1]
    return {} if size == 224 or not 1 <= size <= MAX_IMAGE_SIZE else {"image_size": size}


def _check_preset(name: str, weights_name: str) -> None:
    preset(name, weights_name, "data.preset")


def _classes_in(state: Mapping[str, Tensor], spec: ModelSpec, where: str) -> int:
    """The number of classes of a state_dict."""
    keys = sorted(classifier_keys(spec))
    found = {len(state[key]) for key in keys if key in state and state[key].ndim}
    if len(found) != 1:
        what = f"does not tell {spec.name}'s number of classes by {listing(keys, 4)}"
        raise WeightsError(what, where, f"is it a state_dict of {spec.name}? If so, say model.num_classes")
    return found.pop()
