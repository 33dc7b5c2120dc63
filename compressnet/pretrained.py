"""The dense model a plan starts from: torchvision's weights, a state_dict, or the dense weights of a file of ours."""

from pathlib import Path

from torch import Tensor, nn

from compressnet.block import Block
from compressnet.checkpoint import load
from compressnet.container import read_header
from compressnet.errors import FileError, listing
from compressnet.layers import CompressedLayer
from compressnet.plan import Plan
from compressnet.zoo import models, weights
from compressnet.zoo.models import ModelSpec


def dense_model(plan: Plan) -> nn.Module:
    """Build the plan's dense model on the CPU, in float32 and evaluation mode.

    Without weights it has torchvision's own initialisation, drawn with the recipe's seed; so has the last layer where
    the recipe wants another number of classes than the weights have.

    Raises:
        WeightsError: the weights cannot be read, or do not fit the model.
    """
    if plan.spec is None or plan.recipe.model is None:
        raise ValueError("a module of the caller's own is its own dense model")
    return with_weights(plan.spec, plan.recipe.model.weights, plan.recipe.seed)


def with_weights(spec: ModelSpec, source: str | None, seed: int) -> nn.Module:
    """A dense model with weights of any source; as :func:`dense_model`."""
    if source is None or not is_ours(source):
        return weights.dense_model(spec, source, seed)
    model = models.fresh(spec, seed)
    state = dense_state(load(source, form="compressed"), source)
    weights.load_weights_(model, state, weights.classifier_keys(spec), source)
    return model.eval()


def is_trained(spec: ModelSpec, source: str | None) -> bool:
    """Whether weights are of the model's number of classes, so that its dense form needs no training."""
    return source is not None and spec.num_classes == num_classes_of(spec, source)


def num_classes_of(spec: ModelSpec, source: str) -> int:
    """How many classes weights of a model tell apart."""
    if is_ours(source):
        return ModelSpec.from_json(read_header(source).meta["model"]).num_classes
    return weights.spec_for(spec.name, source, None, None).num_classes


def classes_of(source: str) -> tuple[str, ...] | None:
    """The names of the classes that weights tell apart, where they are a file of ours that knows them."""
    classes = read_header(source).meta.get("classes") if is_ours(source) else None
    return tuple(classes) if classes else None


def is_ours(path: str) -> bool:
    """Whether a path is that of a compressnet file."""
    if Path(path).suffix != ".safetensors":
        return False
    try:
        read_header(path)
    except FileError as error:
        if "not one of compressnet's" in str(error):
            return False
        raise
    return True


def dense_state(model: nn.Module, where: str = "the model") -> dict[str, Tensor]:
    """The state_dict of the dense model that computes the same, with torchvision's names.

    Args:
        model: compressed or dense.
        where: it comes from.

    Raises:
        FileError: a block stands for layers of it.
    """
    blocks = [name for name, module in model.named_modules() if isinstance(module, Block)]
    if blocks:
        raise FileError(
            f"there is no dense form of the model: at {listing(blocks, 4)} a block stands for several layers",
            where,
            "export it without --dense; compressnet.load runs it",
        )
    state = {name: tensor for name, tensor in model.state_dict().items() if ".structured." not in name}
    for name, module in model.named_modules():
        if isinstance(module, CompressedLayer):
            state[f"{name}{module.parameter}"] = module.weight.detach()
    return {name: tensor.contiguous() for name, tensor in state.items()}
