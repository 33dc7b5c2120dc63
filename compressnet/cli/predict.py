"""``compressnet predict``."""

from pathlib import Path
from typing import Annotated

import typer

from compressnet.cli.options import Device, File, Json, Set

EXAMPLES = (
    "compressnet predict model.safetensors cat.jpg",
    "compressnet predict model.safetensors photos/*.jpg --top 1 --json",
)


def predict(
    file: File,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", show_default=False, help="Image files.")],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many classes of each image.")] = 5,
    device: Device = "auto",
    set_: Set = None,
    json: Json = False,
) -> None:
    """Name the most likely classes of images.

    They are prepared as the file says.
    """
    from compressnet.cli.display import summaries, terminal
    from compressnet.commands.predict import predict

    predictions = predict(file, images, top=top, device=device, overrides=set_ or ())
    if json:
        terminal.show_json([prediction.to_json() for prediction in predictions])
    else:
        summaries.show_predictions(predictions)
