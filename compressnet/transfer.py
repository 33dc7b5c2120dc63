"""A compressed model for another task: its last layer is made anew, everything else is kept."""

import dataclasses

import torch
from torch import nn

from compressnet.description import Description
from compressnet.metadata import ERRORS
from compressnet.plan import PlannedLayer
from compressnet.plan.classes import of_classes
from compressnet.progress import SILENT, Progress
from compressnet.rewrite import project_
from compressnet.zoo import models
from compressnet.zoo.weights import classifier_keys


def renew_classifier_(
    model: nn.Module, description: Description, num_classes: int, seed: int, progress: Progress = SILENT
) -> Description:
    """Make the last layer anew for another number of classes, and with it those of auxiliary heads.

    It is drawn as the model's library draws it. A layer that a method held takes its form again, by the same keys, at
    the norm of what was drawn.

    Args:
        model: of a file, compressed, on the CPU; changed in place.
        description: of that file.
        num_classes: from now on.
        seed: of what is drawn.
        progress: is told.

    Returns:
        the description of the model as it is now: without names of classes, grids of numbers, and figures of before.
    """
    if description.spec is None:
        raise ValueError("of a module of the caller's own nobody knows which layer is the last")
    spec = dataclasses.replace(description.spec, num_classes=num_classes)
    keys, fresh = classifier_keys(spec), models.fresh(spec, seed)
    renewed: dict[str, PlannedLayer] = {}
    for layer in description.layers:
        if layer.parameter in keys:
            new = renewed[layer.name] = of_classes(layer, num_classes)
            model.set_submodule(layer.name, _drawn(fresh.get_submodule(layer.name), new, seed))
            held = new.method or (f"dense, as {new.remark}" if layer.method else "dense")
            progress.note(f"{layer.name} is made anew for {num_classes} classes: {held}")
    project_(model, tuple(renewed.values()), untrained=True)
    past = renewed.keys() | {block.name for block in description.blocks if block.head in renewed}
    errors = {kind: description.results[kind] for kind in ERRORS if kind in description.results}
    return dataclasses.replace(
        description,
        layers=tuple(renewed.get(layer.name, layer) for layer in description.layers),
        spec=spec,
        classes=None,
        quantisers={},
        results={kind: {name: e for name, e in of.items() if name not in past} for kind, of in errors.items()},
    )


def _drawn(fresh: nn.Module, planned: PlannedLayer, seed: int) -> nn.Module:
    """A dense layer of the planned shape: that of a fresh model, where it fits.

    Behind a block it takes the block's features. Vision transformers start theirs from zeros, which a product of
    factors could never leave.
    """
    assert isinstance(fresh, nn.Linear | nn.Conv2d)
    fits = tuple(fresh.weight.shape) == planned.shape
    if fits and (planned.method is None or fresh.weight.any()):
        return fresh
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if not fits:
            return nn.Linear(planned.shape[1], planned.shape[0], fresh.bias is not None).eval()
        fresh.reset_parameters()
    return fresh
