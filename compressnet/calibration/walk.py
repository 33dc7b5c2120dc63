"""All images through the model, layer by layer, each layer fitted where they halt at it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from compressnet.calibration.calls import Place
from compressnet.calibration.fit import fit_
from compressnet.calibration.images import taken
from compressnet.calibration.passage import Passage
from compressnet.calibration.sensitivity import Sensitivity
from compressnet.calibration.survey import Survey
from compressnet.fitting import Inputs, Pairs
from compressnet.rewrite import OnLayer

POSITIONS = 40_000  # of all images together, at which a layer is looked at
_NUMBERS = 1 << 27  # of them, at most
_LIVE = 3  # activations of the largest size that a model holds at a time, about
_KEPT = 32  # the same where a gradient is wanted


def walk_(
    model: nn.Module, places: Mapping[int, Place], images: Tensor, ridge: float, memory: int, on_layer: OnLayer | None
) -> None:
    """Fit every place that the images reach, in the order the layers run.

    Images pass through the model in parts of a few each, which halt at a layer until it is fitted. Where the
    activations of all images would not fit in memory, parts start later: layers that come early have many positions an
    image, so that fewer images do there.

    Args:
        model: in evaluation mode.
        places: its planned layers, by the id of their weight.
        images: shape (N, C, H, W).
        ridge: see :func:`compressnet.calibration.calibrate_`.
        memory: bytes that activations may take.
        on_layer: told each layer and its errors when it is done.

    Raises:
        DataError: they are no images, or the model cannot take them.
    """
    with taken(model, images):
        survey = Survey(model, places, images[:1])
    linear = {key: place for key, place in places.items() if place.linear}
    Sensitivity(linear).measure_(model, images, _between(1, memory // (_KEPT * survey.largest), 16))
    size = _between(1, memory // (8 * _LIVE * survey.largest), 16)
    waiting = [Passage(model, places, part, number) for number, part in enumerate(images.split(size))]
    running: list[Passage] = []
    by_name = {place.layer.name: place for place in places.values()}
    try:
        for name, largest in survey.rest.items():
            running = [passage for passage in running if not passage.free or passage.advance()]
            room = memory // (2 * _LIVE * largest)
            while waiting and (not running or _count(running) + len(waiting[0].images) <= room):
                running.append(waiting.pop(0))
                running[-1].advance()
            place = by_name[name]
            here = [passage for passage in running if passage.call and passage.call.place is place]
            if here and place.fitted is None:
                fit_(place, _pairs(here), ridge)
                assert place.errors is not None
                if on_layer:
                    on_layer(place.layer, *place.errors)
    finally:
        for passage in running:
            passage.abandon()


def _between(least: int, number: int, most: int) -> int:
    return max(least, min(number, most))


def _count(passages: Sequence[Passage]) -> int:
    return sum(len(passage.images) for passage in passages)


def _pairs(passages: Sequence[Passage]) -> Pairs:
    """Some positions of every image at the layer where passages halt."""
    call = passages[0].call
    assert call is not None
    layer = call.place.layer
    numbers = layer.shape[0] + layer.groups * (layer.dense_numel // layer.shape[0])  # a position
    wanted = min(POSITIONS, _NUMBERS // numbers)
    there = sum(passage.outputs.numel() for passage in passages) // layer.shape[0]
    blocks = [block for passage in passages for block in passage.rows(min(1.0, wanted / there))]
    inputs, outputs = (torch.cat(side) for side in zip(*blocks, strict=True))
    return Pairs(Inputs(inputs, call.biased), outputs)
