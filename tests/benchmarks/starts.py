"""How near a product or a block is to the dense network right after conversion, before any training.

    COMPRESSNET_DATA=/path/to/data python tests/benchmarks/starts.py [products|blocks]

``products``: the relative error of a layer's outputs on 1,000 inputs that the fit to 2,048 others did not see.
``blocks``: the test error of LeNet-5 on MNIST with a block, whose dense weights are supplied, calibrated on 2,000
training images.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressnet
from compressnet.methods import BY_NAME
from compressnet.plan import make_plan
from compressnet.pretrained import dense_model
from compressnet.recipe import read_recipe
from compressnet.training.parts import open_images, sample_images

PRODUCTS: dict[str, list[dict[str, Any]]] = {
    "deepfried": [{"copies": copies} for copies in (1, 2, 4, 8)],
    "acdc": [{"depth": depth} for depth in (4, 12)],
    "monarch": [{}],
    "lowrank": [{"ratio": ratio} for ratio in (32, 16, 8)],
}
RUN = ["fc1", "relu3", "fc2"]
BLOCKS: dict[str, tuple[list[dict[str, Any]], dict[str, Any] | None]] = {
    "dense": ([], None),
    "deepfried_head, 1,024 features": ([{"match": RUN, "block": "deepfried_head", "features": 1024}], {}),
    "deepfried_head, 2,048 features": ([{"match": RUN, "block": "deepfried_head", "features": 2048}], {}),
    "the same, the layer behind hashednet 8×": (
        [
            {"match": RUN, "block": "deepfried_head", "features": 2048},
            {"match": "fc2", "method": "hashednet", "ratio": 8},
        ],
        {},
    ),
    "2,048 features, 256 images": ([{"match": RUN, "block": "deepfried_head", "features": 2048}], {"images": 256}),
    "2,048 features, no images": ([{"match": RUN, "block": "deepfried_head", "features": 2048}], None),
    "acdc_stack, depth 12": ([{"match": RUN, "block": "acdc_stack", "depth": 12}], {}),
}


def lenet(source: Path, folder: Path) -> dict[str, Any]:
    """The recipe's model and data."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for archive in (source / "mnist").glob("*.gz"):
        if not (raw / archive.name).exists():
            (raw / archive.name).symlink_to(archive)
    model = {"name": "lenet5", "weights": str(source / "weights" / "lenet5-mnist.pth")}
    return {"model": model, "data": {"dataset": "mnist", "root": str(folder), "mean": [0.1307], "std": [0.3081]}}


def squeezenet(source: Path, folder: Path) -> dict[str, Any]:
    """The same; all 1,000 images are taken as training images."""
    (folder / "train").symlink_to(source / "imagenet-sample" / "val")
    data = {"dataset": "imagefolder", "root": str(folder), "preset": "SqueezeNet1_1_Weights.IMAGENET1K_V1"}
    return {
        "model": {"name": "squeezenet1_1", "weights": str(source / "weights" / "squeezenet1_1.pth")},
        "data": data,
    }


def seen(recipe: dict[str, Any], name: str, images: int) -> tuple[Tensor, Tensor]:
    """The inputs of a layer, shape (3048, in), and its weight; of a 1×1 convolution, positions of all images."""
    plan = make_plan(read_recipe(recipe))
    model = dense_model(plan).eval()
    assert plan.spec is not None
    assert plan.preprocessing is not None
    dataset = open_images(plan.recipe, plan.preprocessing, "train", plan.spec.num_classes, "the recipe")
    layer, kept = model.get_submodule(name), []

    def keep(module: nn.Module, args: tuple[Tensor]) -> None:
        kept.append(args[0].movedim(1, -1).flatten(0, -2) if args[0].dim() == 4 else args[0])

    layer.register_forward_pre_hook(keep)
    with torch.no_grad():
        for batch in sample_images(dataset, images, 0).split(32):
            model(batch)
    rows = torch.cat(kept)
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:3048]
    weight = layer.get_parameter("weight").detach()
    return rows[chosen], weight


def products(source: Path, folder: Path) -> Iterator[tuple[str, ...]]:
    """A row a layer and setting."""
    yield "layer", "dense numbers", "method", "keys", "stored", "error of the outputs"
    nets = {"LeNet-5 fc1": (lenet(source, folder), "fc1", 3100)}
    nets["SqueezeNet 1.1 features.12.squeeze"] = (squeezenet(source, folder), "features.12.squeeze", 200)
    for title, (recipe, name, images) in nets.items():
        inputs, dense = seen(recipe, name, images)
        wanted = F.linear(inputs[2048:], dense.flatten(1))
        for method, settings in PRODUCTS.items():
            for keys in settings:
                weight = BY_NAME[method](tuple(dense.shape), BY_NAME[method].Config(**keys), 0)
                weight.project_(dense, inputs[:2048])
                with torch.no_grad():
                    error = (weight.matmul(inputs[2048:]) - wanted).norm() / wanted.norm()
                words = " ".join(f"{key} {value}" for key, value in keys.items()) or "default"
                yield title, f"{dense.numel():,}", method, words, f"{weight.numel:,}", f"{error:.3f}"


def blocks(source: Path, folder: Path) -> Iterator[tuple[str, ...]]:
    """A row a block."""
    yield "form", "stored numbers", "test error %"
    file = folder / "converted.safetensors"
    for title, (layers, calibration) in BLOCKS.items():
        given = None if calibration is None else {"images": 2000} | calibration
        account = compressnet.convert(
            lenet(source, folder) | {"layers": layers, "calibration": given}, file, force=True
        )
        metrics = compressnet.evaluate(file, device="cpu")
        yield title, f"{account.numel:,}", f"{100 - metrics.top1:.2f}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        for table in sys.argv[1:] or ["products", "blocks"]:
            for number, row in enumerate(globals()[table](Path(os.environ["COMPRESSNET_DATA"]), Path(made))):
                print(f"| {' | '.join(row)} |" + ("\n" + "|---" * len(row) + "|" if number == 0 else ""), flush=True)
            print()
