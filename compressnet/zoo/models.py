"""Models by name: which there are, their skeletons on the meta device, and fresh ones."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from compressnet.errors import FileError, PlanError, did_you_mean

MAX_CLASSES = 1_000_000
MAX_IMAGE_SIZE = 4096
OPTIONS: Mapping[str, Mapping[str, type]] = {
    "googlenet": {"aux_logits": bool, "transform_input": bool},
    "inception_v3": {"aux_logits": bool, "transform_input": bool},
    **{f"vit_{size}": {"image_size": int} for size in ("b_16", "b_32", "l_16", "l_32", "h_14")},
}
"""Further arguments of a model's builder that a file may give, and their types."""
IMAGE_SIZES: Mapping[str, int] = {
    "inception_v3": 299,
    "lenet5": 28,
    "lenet_300_100": 28,
    "freshnets_cnn": 32,
    "resnet18_cifar": 32,
}
"""Side of the images of models whose usual ones are not of 224 pixels."""
_FACTORIES = frozenset({torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn})
_DRAWS = frozenset({torch.Tensor.normal_, torch.Tensor.uniform_})


@dataclass(frozen=True)
class ModelSpec:
    """What builds a model: enough to make it again, with nothing else at hand.

    Attributes:
        name: one of :func:`names`.
        num_classes: width of the last layer.
        options: further arguments of the builder, of those in ``OPTIONS``.
    """

    name: str
    num_classes: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The form that travels in a file."""
        return {"name": self.name, "num_classes": self.num_classes, "options": dict(self.options)}

    @classmethod
    def from_json(cls, value: object) -> "ModelSpec":
        """The inverse of :meth:`to_json`; trusts nothing, as a file may come from anywhere.

        Raises:
            FileError: a key, type or value is not what :meth:`to_json` writes.
        """
        if not isinstance(value, dict) or set(value) != {"name", "num_classes", "options"}:
            raise FileError("holds no model description of name, num_classes and options", "model", _DAMAGED)
        name, num_classes, options = value["name"], value["num_classes"], value["options"]
        if not isinstance(name, str) or name not in names():
            near = did_you_mean(name, names()) if isinstance(name, str) else None
            raise FileError(f"unknown model {name!r}" + (f"; {near}" if near else ""), "model.name", _NEWER)
        if type(num_classes) is not int or not 1 <= num_classes <= MAX_CLASSES:
            raise FileError(f"{num_classes!r} is no number of classes", "model.num_classes", _DAMAGED)
        if not isinstance(options, dict):
            raise FileError(f"{options!r} is no set of options", "model.options", _DAMAGED)
        for key, setting in options.items():
            if key not in OPTIONS.get(name, ()):
                raise FileError(f"{name} has no option {key!r}", "model.options", _NEWER)
            kind = OPTIONS[name][key]
            if type(setting) is not kind or (kind is int and setting not in range(1, MAX_IMAGE_SIZE + 1)):
                raise FileError(f"{setting!r} is not a setting of it", f"model.options.{key}", _DAMAGED)
        return cls(name, num_classes, dict(options))


_DAMAGED = "the file is damaged, or not from compressnet"
_NEWER = "a newer compressnet or torchvision may know it: pip install -U compressnet torchvision"


@cache
def names() -> list[str]:
    """Every model there is: torchvision's classifiers and the papers' nets.

    >>> [name for name in names() if name.startswith(("lenet", "alex", "squeeze"))]
    ['alexnet', 'lenet5', 'lenet_300_100', 'squeezenet1_0', 'squeezenet1_1']
    """
    from torchvision import models

    from compressnet.zoo import papers

    return sorted({*models.list_models(module=models), *papers.NAMES})


def check_name(name: str) -> None:
    """Refuse a model there is not.

    Raises:
        PlanError: with the nearest name.
    """
    if name not in names():
        raise PlanError(
            f"unknown model '{name}'; {did_you_mean(name, names())}",
            "model.name",
            "any classifier of torchvision.models.list_models() will do",
        )


class _MetaFactories(TorchFunctionMode):
    """Sends what the big factories make to the meta device.

    Parameters and norm statistics are born there, while what is computed from numbers (Swin's relative positions, the
    width arithmetic of RegNets, which reads its tensors back) is real. ``torch.device("meta")`` sends everything.
    """

    def __torch_function__(
        self, func: Callable, types: Iterable, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``, on meta when it is one of the factories and no device was asked for; there, draw nothing."""
        kwargs = kwargs or {}
        if func in _DRAWS and args[0].is_meta:
            return args[0]
        if func in _FACTORIES and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)


def skeleton(spec: ModelSpec) -> nn.Module:
    """The model without its numbers: parameters and norm statistics on ``meta``, other buffers real; in eval mode.

    Raises:
        PlanError: there is no such model.
    """
    check_name(spec.name)
    # The CPU underneath, whatever default device the caller has set: computed buffers stay off the accelerator.
    with torch.device("cpu"), _MetaFactories():
        return _build(spec, initialise=False).eval()


def fresh(spec: ModelSpec, seed: int) -> nn.Module:
    """The model on the CPU as its own library initialises it; the global random state stays untouched; in eval mode.

    Args:
        spec: which.
        seed: of the random state the initialisation draws from. PyTorch does not promise the same numbers in another
            version, so fresh weights are stored, never re-made.

    Raises:
        PlanError: there is no such model.
    """
    check_name(spec.name)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        return _build(spec, initialise=True).eval()


def drop_auxiliary_(model: nn.Module, spec: ModelSpec) -> ModelSpec:
    """Take away the heads that never run in evaluation, in place; returns what builds the model without them."""
    if not spec.options.get("aux_logits"):
        return spec
    for head in ("aux1", "aux2", "AuxLogits"):
        if hasattr(model, head):
            setattr(model, head, None)
    model.aux_logits = False  # type: ignore[assignment]
    return ModelSpec(spec.name, spec.num_classes, {**spec.options, "aux_logits": False})


def _build(spec: ModelSpec, initialise: bool) -> nn.Module:
    from torchvision import models

    # These two warn, and are slow to initialise, unless told whether to.
    asked = {"init_weights": initialise} if "aux_logits" in OPTIONS.get(spec.name, ()) else {}
    return models.get_model(spec.name, weights=None, num_classes=spec.num_classes, **spec.options, **asked)
