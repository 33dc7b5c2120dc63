"""``compressnet export``."""

from pathlib import Path
from typing import Annotated

import typer

from compressnet.cli.options import File, Force, Json, Set

EXAMPLES = (
    "compressnet export tuned/best.safetensors -o model.safetensors",
    "compressnet export tuned/best.safetensors -o model.safetensors --dtype bfloat16",
    "compressnet export tuned/best.safetensors -o torchvision.safetensors --dense",
)


def export(
    file: File,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", show_default=False, help="The file to write.")
    ],
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE",
            show_default=False,
            help="float32, float16 or bfloat16; else the recipe's export.dtype, or float32 with --dense.",
        ),
    ] = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Write an ordinary torchvision state_dict, for people without compressnet.")
    ] = False,
    force: Force = False,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Write the file to ship, and verify it.

    It is cast, saved, reloaded and compared with what it came from before it is called done.
    """
    from compressnet.cli.display import summaries, terminal
    from compressnet.cli.display.progress import progress
    from compressnet.commands.export import export

    exported = export(file, output, dtype=dtype, dense=dense, force=force, overrides=set_ or (), progress=progress())
    if json:
        terminal.show_json(exported.to_json())
    else:
        summaries.show_exported(exported)
