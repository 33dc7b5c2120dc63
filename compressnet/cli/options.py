"""The arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Recipe = Annotated[
    str,
    typer.Argument(metavar="RECIPE", show_default=False, help="A recipe (.yaml), or the name of one that comes along."),
]
File = Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="A compressnet file of any stage.")]
Folder = Annotated[
    Path, typer.Option("-o", "--output", metavar="DIR", show_default=False, help="The folder that takes the files.")
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        show_default=False,
        help="Override a key of the recipe, such as finetune.epochs=3 or layers.0.ratio=8; may be repeated.",
    ),
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile training steps by torch.compile.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
