"""``compressnet evaluate``."""

from enum import StrEnum
from typing import Annotated

import typer

from compressnet.cli.options import Device, Json, Set

EXAMPLES = (
    "compressnet evaluate tuned/best.safetensors",
    "compressnet evaluate model.safetensors --recipe recipe.yaml",
    "compressnet evaluate model.safetensors --json --set data.root=/data/imagenet",
    "compressnet evaluate recipe.yaml --part val",
)


class Part(StrEnum):
    """What is evaluated on."""

    test = "test"
    val = "val"
    train = "train"


def evaluate(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", show_default=False, help="A compressnet file, or a recipe, whose dense model is evaluated."
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE", show_default=False, help="It names the images; else the recipe in the file does."
        ),
    ] = None,
    part: Annotated[Part, typer.Option(help="test, val or train: the part of the data.")] = Part.test,
    device: Device = "auto",
    set_: Set = None,
    json: Json = False,
) -> None:
    """Measure accuracy and loss.

    The images are those that the recipe in the file names, or another.
    """
    from compressnet.cli.display import summaries, terminal
    from compressnet.cli.display.progress import progress
    from compressnet.commands.evaluate import evaluate
    from compressnet.commands.recipes import shipped_path

    metrics = evaluate(
        shipped_path(file) or file,
        recipe=recipe and (shipped_path(recipe) or recipe),
        part=part.value,
        device=device,
        overrides=set_ or (),
        progress=progress(),
    )
    if json:
        terminal.show_json(metrics.to_json())
    else:
        summaries.show_metrics({part.value: metrics})
