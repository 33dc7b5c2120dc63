"""The sections inside ``finetune``: what brings the accuracy of a compressed model back, beside training."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from compressnet.keys import Keys


def _listed(given: Any) -> Any:
    return (given,) if isinstance(given, str) else given


Globs = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class DistillSection(Keys):
    """How to learn from the dense model, which is that of ``model.weights``.

    Args:
        temperature: that both models' logits are divided by.
        weight: of the dense model's word against the labels'; without labels it counts as 1.
        features: layers whose outputs are taught, by their names in the dense model, or globs of these.
        feature_weight: of the error of these outputs.
        attention: layers whose attention maps are taught, likewise.
        attention_weight: of the distance of these maps, β of the paper.
    """

    temperature: float = Field(default=4.0, gt=0, allow_inf_nan=False)
    weight: float = Field(default=0.5, ge=0, le=1)
    features: Globs = ()
    feature_weight: float = Field(default=10.0, ge=0, allow_inf_nan=False)
    attention: Globs = ()
    attention_weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)


class QuantiseSection(Keys):
    """How to train through the quantisers, so that few bits cost little.

    Args:
        start: after which share of the training it begins.
        rate: what the size of the file costs, against the loss: nats of its symbols' entropy, for each image of the
            training part, times this are added to the loss of an image.
    """

    start: float = Field(default=0.5, ge=0, le=1)
    rate: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class CalibrateSection(Keys):
    """How layers are fitted once more, to the dense model's outputs, before training.

    Args:
        images: how many of the training part, without their labels.
        passes: over all layers.
    """

    images: int = Field(default=1000, ge=1, le=1_000_000)
    passes: int = Field(default=1, ge=1, le=100)


class BatchNormSection(Keys):
    """How the statistics of norm layers are estimated anew, before training.

    Args:
        images: how many of the training part, without their labels.
    """

    images: int = Field(default=1000, ge=2, le=1_000_000)


class GradualSection(Keys):
    """How weights go from dense to compressed while they are trained.

    Args:
        until: the share of the training after which they are compressed.
    """

    until: float = Field(default=0.5, gt=0, le=1)
