"""The keys of a recipe and what they may hold."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from compressnet.fitting.linear import RIDGE
from compressnet.keys import Keys
from compressnet.nbytes import parse_nbytes
from compressnet.recipe.frequency import Frequency
from compressnet.recipe.recovery import (
    BatchNormSection,
    CalibrateSection,
    DistillSection,
    GradualSection,
    QuantiseSection,
)
from compressnet.recipe.rules import AnyRule, BlockRule, Rule

DATASETS = (
    "digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "imagenet", "imagefolder", "images", "fake",
)  # fmt: skip
ROOTLESS = ("digits", "fake")
"""The data sets that are not read from a folder."""


def _nbytes(given: Any) -> Any:
    return parse_nbytes(given) if isinstance(given, str) else given


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
        batch_size: images a step, of all processes together.
        workers: processes that load images; 0 loads in the main process.
        val_fraction: share of the training part held out to choose by, where the data set has no such part.
        augment: of training images: none, flip, crop (random resized crop and flip), randaugment (these and
            RandAugment), or affine (each image of a batch turned, scaled and shifted a little).
        magnitude: of randaugment.
        cache: keep images in memory as the model sees them while training, where they are not augmented one by one
            and take at most 1 GiB.
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
    augment: Literal["none", "flip", "crop", "randaugment", "affine"] = "none"
    magnitude: int = Field(default=9, ge=0, le=30)
    cache: bool = True
    preset: str | None = None
    resize: int | None = Field(default=None, ge=1, le=4096)
    crop: int | None = Field(default=None, ge=1, le=4096)
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    num_classes: int = Field(default=10, ge=1)
    samples: int = Field(default=64, ge=1)

    @property
    def labelled(self) -> bool:
        """Whether its images have labels."""
        return self.dataset != "images"


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
        lr: the highest learning rate.
        schedule: how the learning rate falls after it has risen over ``warmup_epochs``: cosine, to zero; one_cycle,
            along cosines from a 25th up and down to a 250,000th; step, times ``gamma`` every ``step_epochs``; constant.
        step_epochs: of the schedule step, counted from the start.
        gamma: of the schedule step.
        warmup_epochs: over which the learning rate rises; may be a fraction.
        optimizer: adamw or sgd.
        momentum: of sgd.
        weight_decay: of all parameters but biases and norm layers.
        label_smoothing: of the cross-entropy.
        dropout: probability of the model's dropout layers while it is trained; null is their own.
        mixup: α of the Beta distribution by which images of a batch are mixed with each other, or null.
        cutmix: the same of rectangles cut out of other images; with ``mixup``, each batch takes one of the two.
        clip_norm: largest gradient norm, or null.
        ema: decay of a moving average of all numbers, which is what is evaluated and saved then; or null.
        save_every: so many steps, or minutes such as ``10min``, what ``--resume`` needs is saved; at the end of each
            epoch it is anyway.
        amp: which half type products are computed in: auto, bfloat16 or else float16 on CUDA, none elsewhere; off;
            bfloat16; or float16.
    """

    epochs: int = Field(default=10, ge=0)
    lr: float = Field(default=0.001, gt=0, allow_inf_nan=False)
    schedule: Literal["cosine", "one_cycle", "step", "constant"] = "cosine"
    step_epochs: int = Field(default=10, ge=1)
    gamma: float = Field(default=0.1, gt=0, le=1)
    warmup_epochs: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    mixup: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    cutmix: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    clip_norm: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    ema: float | None = Field(default=None, gt=0, lt=1)
    save_every: Frequency = None
    amp: Literal["auto", "off", "bfloat16", "float16"] = "auto"

    @field_validator("amp", mode="before")
    @classmethod
    def _yaml_reads_off_as_false(cls, given: Any) -> Any:
        return "off" if given is False else given


class FinetuneSection(TrainSection):
    """How to train the compressed model.

    Args:
        recompute: indices of hashed weights, and dense weights, are made in each pass, and not kept between passes.
        labels: learn from the images' labels; without them from the dense model alone.
        calibrate: fit layers once more before training, from the numbers in the file, or null.
        batchnorm: estimate the statistics of norm layers anew before training, or null.
        gradual: begin with the dense weights and mix in the compressed ones, or null.
        distill: learn from the dense model too, or null.
        quantise: train through the quantisers of the export section, or null.
    """

    recompute: bool = False
    labels: bool = True
    calibrate: CalibrateSection | None = None
    batchnorm: BatchNormSection | None = None
    gradual: GradualSection | None = None
    distill: DistillSection | None = None
    quantise: QuantiseSection | None = None

    @model_validator(mode="after")
    def _compressed_before_quantised(self) -> "FinetuneSection":
        gradual, quantise = self.gradual, self.quantise
        if gradual and quantise and quantise.start < gradual.until:
            raise ValueError(
                f"quantise.start {quantise.start:g} is before gradual.until {gradual.until:g}: what is quantised "
                "is the compressed weight alone; let it start later"
            )
        return self

    @model_validator(mode="after")
    def _something_is_learned_from(self) -> "FinetuneSection":
        if not self.labels and self.distill is None:
            raise ValueError("without labels there is only the dense model to learn from; add distill: {}")
        return self


class ExportSection(Keys):
    """How numbers are stored in the exported file.

    Args:
        dtype: of what is not quantised; norm statistics stay float32 then.
        bits: of the numbers that hold weights, or ``auto``: as few as the tolerance allows; null quantises nothing.
        vector_bits: of biases, and of scales and shifts of norm layers, where ``bits`` are given.
        quantiser: uniform, multiples of a step; or codebook, the levels of k-means.
        group: what shares a step: all numbers of a tensor, or each row of it.
        tolerance: of ``auto``: the mean divergence of the coded model's answers from the model's own, in nats.
        fold_norm: norm layers are folded into the weights before them where these can take a row scale, else into two
            numbers a channel.
        coder: range, within a hundredth of the entropy; huffman, as Deep Compression; or none, which stores numbers as
            they are.
    """

    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    bits: int | Literal["auto"] | None = None
    vector_bits: int = Field(default=8, ge=2, le=16)
    quantiser: Literal["uniform", "codebook"] = "uniform"
    group: Literal["tensor", "row"] = "tensor"
    tolerance: float = Field(default=0.01, gt=0, allow_inf_nan=False)
    fold_norm: bool = False
    coder: Literal["range", "huffman", "none"] = "range"

    @field_validator("bits", mode="before")
    @classmethod
    def _bits_are_few_or_auto(cls, given: Any) -> Any:
        if given is not None and given != "auto" and not (type(given) is int and 2 <= given <= 16):
            raise ValueError(f"should be a whole number from 2 to 16, or auto, not {given!r}")
        return given


class Recipe(Keys):
    """Everything a run needs.

    Args:
        budget: bytes of the exported file, at most; ratios and bits that no rule gives are chosen for it.
    """

    budget: Annotated[int, BeforeValidator(_nbytes), Field(ge=1)] | None = None
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

    @model_validator(mode="after")
    def _quantise_needs_quantisers(self) -> "Recipe":
        quantise, export = self.finetune.quantise, self.export
        if quantise is None:
            return self
        if export.bits == "auto":
            raise ValueError("finetune.quantise: trains through export.bits, which must be a number then, not 'auto'")
        if export.bits is None and not any(rule.bits for rule in self.rules):
            raise ValueError("finetune.quantise: there are no bits to train through; give export.bits or a rule's bits")
        if quantise.rate and export.quantiser == "codebook":
            raise ValueError(
                "finetune.quantise.rate: numbers of a codebook keep their levels, and so their size; "
                "leave it out, or take export.quantiser: uniform"
            )
        return self

    @property
    def rules(self) -> tuple[Rule | BlockRule, ...]:
        """The rules of ``layers``, in order."""
        return self.layers
