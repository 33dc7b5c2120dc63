"""The keys of a recipe and what they may hold."""

from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, create_model, model_validator

from compressnet.block import BlockConfig
from compressnet.blocks import BLOCKS
from compressnet.blocks import BY_NAME as BLOCK_BY_NAME
from compressnet.fitting.linear import RIDGE
from compressnet.keys import Keys
from compressnet.methods import BY_NAME, METHODS
from compressnet.structured import MethodConfig

Scale = Annotated[float, Field(ge=0, allow_inf_nan=False)]
DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "imagenet", "imagefolder", "fake")
ROOTLESS = ("digits", "fake")
"""The data sets that are not read from a folder."""


class ModelSection(Keys):
    """Which dense model.

    Args:
        name: a torchvision classification model, or one of the papers' nets.
        weights: a torchvision name (``IMAGENET1K_V1``), ``DEFAULT``, a path (.pth, .safetensors, a file of ours), or
            null.
        num_classes: by default the weights' own; another number makes the last layer anew.
    """

    name: str
    weights: str | None = None
    num_classes: int | None = Field(default=None, ge=1, le=1_000_000)


class DataSection(Keys):
    """Which images, and how they are prepared.

    Args:
        dataset: by name.
        root: the folder it is in, or is downloaded to.
        image_size: side of the square the model sees.
        batch_size: images a step.
        workers: processes that load images; 0 loads in the main process.
        val_fraction: share of the training part held out to choose by, where the data set has no such part.
        augment: of training images: none, flip, or crop (random resized crop and flip).
        cache: keep images in memory as the model sees them while training, where they are not augmented and take at
            most 1 GiB.
        preset: torchvision weights whose preprocessing is used, such as ``SqueezeNet1_1_Weights.IMAGENET1K_V1``.
        resize: shorter side before the crop.
        crop: side of the centre crop.
        interpolation: of the resize.
        mean: subtracted, a channel each, from values in 0 … 1.
        std: divided by.
        num_classes: of the data set ``fake``.
        samples: of each part of the data set ``fake``.
    """

    dataset: Literal[DATASETS]  # type: ignore[valid-type]
    root: str | None = None
    image_size: int | None = Field(default=None, ge=1, le=4096)
    batch_size: int = Field(default=64, ge=1)
    workers: int = Field(default=0, ge=0, le=256)
    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    augment: Literal["none", "flip", "crop"] = "none"
    cache: bool = True
    preset: str | None = None
    resize: int | None = Field(default=None, ge=1, le=4096)
    crop: int | None = Field(default=None, ge=1, le=4096)
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    num_classes: int = Field(default=10, ge=1)
    samples: int = Field(default=64, ge=1)


class MatchSpec(Keys):
    """Layers by what they are.

    Args:
        name: a glob on the full module name.
        type: conv2d, linear, or attention for an attention's input projection.
        kernel: height and width.
        min_numel: least number of weights.
    """

    name: str = "*"
    type: Literal["conv2d", "linear", "attention"] | None = None
    kernel: tuple[int, int] | None = None
    min_numel: int = Field(default=0, ge=0)


class PacedSection(Keys):
    """At what pace the numbers learn that a rule stores.

    Args:
        lr_scale: times the learning rate, for what is stored; or a number for each tensor of it.
        weight_decay: of what is stored; by default the method's or block's own, else that of the training section.
    """

    lr_scale: Scale | dict[str, Scale] = 1.0
    weight_decay: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class Rule(PacedSection):
    """Which layers take which method; every method adds its own keys.

    Args:
        match: a glob on the full module name, a list of globs, or a ``MatchSpec``.
        method: by name.
        grouped: also take grouped and depthwise convolutions, which globs leave alone; an exact name always takes them.
    """

    match: str | tuple[str, ...] | MatchSpec
    method: str
    grouped: bool = False

    @property
    def config(self) -> MethodConfig:
        """The method's own keys."""
        config = BY_NAME[self.method].Config
        return config(**{key: getattr(self, key) for key in config.model_fields})


class BudgetRule(Rule):
    """A rule of a method that has a ``ratio``, in whose place each layer may have a budget.

    Args:
        numel: how many numbers to store for each layer at most.
        nbytes: how many bytes each layer may take in the exported file.
    """

    ratio: float | None = Field(default=None, ge=1, allow_inf_nan=False)
    numel: int | None = Field(default=None, ge=1)
    nbytes: int | None = Field(default=None, ge=1)

    def config_at(self, ratio: float) -> MethodConfig:
        """The method's own keys, with a ratio."""
        config = BY_NAME[self.method].Config
        return config(**{key: getattr(self, key) for key in config.model_fields} | {"ratio": ratio})


class BlockRule(PacedSection):
    """Which run of layers a block stands for; every block adds its own keys.

    Args:
        match: names or globs of consecutive children of one ``nn.Sequential``: linear layers, ReLU and dropout.
        block: by name.
    """

    match: str | tuple[str, ...]
    block: str

    @property
    def config(self) -> BlockConfig:
        """The block's own keys."""
        config = BLOCK_BY_NAME[self.block].Config
        return config(**{key: getattr(self, key) for key in config.model_fields})


BLOCK_TAG = "block "  # before the names of blocks, so that a method may have the same


def _rule_of(method: Any) -> Any:
    fields: Any = {"method": (Literal[method.name], ...)}
    if "ratio" not in method.Config.sizes:
        return create_model(f"{method.name}_rule", __base__=(Rule, method.Config), **fields)
    rule = create_model(f"{method.name}_rule", __base__=(BudgetRule, method.Config), **fields)
    rule.sizes = (*method.Config.sizes, "numel", "nbytes")  # type: ignore[attr-defined]
    return rule


def _block_rule_of(block: Any) -> Any:
    fields: Any = {"block": (Literal[block.name], ...)}
    return create_model(f"{block.name}_rule", __base__=(BlockRule, block.Config), **fields)


def _tag(rule: Any) -> str | None:
    """The name of a rule's method, or of its block with the tag before it."""
    get = rule.get if isinstance(rule, dict) else lambda key: getattr(rule, key, None)
    name, tag = (get("block"), BLOCK_TAG) if get("block") is not None else (get("method"), "")
    return f"{tag}{name}" if isinstance(name, str) else None


RULES: dict[str, type[Rule]] = {method.name: _rule_of(method) for method in METHODS}
BLOCK_RULES: dict[str, type[BlockRule]] = {block.name: _block_rule_of(block) for block in BLOCKS}
TAGS: dict[str, type[Keys]] = {**RULES, **{f"{BLOCK_TAG}{name}": rule for name, rule in BLOCK_RULES.items()}}
_TAGGED: Any = [Annotated[rule, Tag(tag)] for tag, rule in TAGS.items()]
AnyRule: Any = Annotated[reduce(or_, _TAGGED), Discriminator(_tag)]


class CalibrationSection(Keys):
    """Images whose activations ``convert`` fits layers to.

    Args:
        images: how many of the training part, without their labels.
        ridge: how strongly fitted weights are drawn to the dense ones, relative to the mean square of their inputs.
    """

    images: int = Field(default=200, ge=1, le=1_000_000)
    ridge: float = Field(default=RIDGE, ge=0, allow_inf_nan=False)


class TrainSection(Keys):
    """How to train, dense or compressed: the same loop.

    Args:
        epochs: passes over the training part.
        lr: the highest learning rate; it rises linearly over ``warmup_epochs`` and falls along a cosine.
        optimizer: adamw or sgd.
        momentum: of sgd.
        weight_decay: of all parameters but biases and norm layers.
        warmup_epochs: may be a fraction.
        label_smoothing: of the cross-entropy.
        clip_norm: largest gradient norm, or null.
    """

    epochs: int = Field(default=10, ge=0)
    lr: float = Field(default=0.001, gt=0, allow_inf_nan=False)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    warmup_epochs: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip_norm: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class DistillSection(Keys):
    """How to learn from the dense model, which is that of ``model.weights``.

    Args:
        temperature: that both models' logits are divided by.
        weight: of the dense model's word against the labels'.
    """

    temperature: float = Field(default=4.0, gt=0, allow_inf_nan=False)
    weight: float = Field(default=0.5, ge=0, le=1)


class FinetuneSection(TrainSection):
    """How to train the compressed model.

    Args:
        distill: learn from the dense model too, or null.
    """

    distill: DistillSection | None = None


class ExportSection(Keys):
    """How numbers are stored in the exported file.

    Args:
        dtype: of the parameters; norm statistics stay float32.
    """

    dtype: Literal["float32", "float16", "bfloat16"] = "float16"


class Recipe(Keys):
    """Everything a run needs."""

    model: ModelSection | None = None
    data: DataSection | None = None
    layers: tuple[AnyRule, ...] = ()
    calibration: CalibrationSection | None = CalibrationSection()
    pretrain: TrainSection | None = None
    finetune: FinetuneSection = FinetuneSection()
    export: ExportSection = ExportSection()
    seed: int = Field(default=0, ge=0, le=2**32 - 1)

    @model_validator(mode="after")
    def _pretrain_needs_no_weights(self) -> "Recipe":
        if self.pretrain and self.model and self.model.weights is not None:
            raise ValueError(
                "pretrain: trains a model without weights, but model.weights is "
                f"'{self.model.weights}'; leave one of them out"
            )
        return self

    @property
    def rules(self) -> tuple[Rule | BlockRule, ...]:
        """The rules of ``layers``, in order."""
        return self.layers
