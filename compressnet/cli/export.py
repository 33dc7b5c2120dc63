"""``compressnet export``."""

from pathlib import Path
from typing import Annotated

import typer

from compressnet.cli.options import File, Force, Json, Set

EXAMPLES = (
    "compressnet export tuned/best.safetensors -o model.safetensors",
    "compressnet export tuned/best.safetensors -o model.safetensors --bits 5 --fold-norm",
    "compressnet export tuned/best.safetensors -o model.safetensors --set export.coder=none --dtype bfloat16",
    "compressnet export tuned/best.safetensors -o model.safetensors --target-size 500kB",
    "compressnet export tuned/best.safetensors -o torchvision.safetensors --dense",
    "compressnet export model.safetensors -o model.onnx --onnx",
)


def export(
    file: File,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", show_default=False, help="The file to write.")
    ],
    bits: Annotated[
        str | None,
        typer.Option(
            metavar="BITS",
            show_default=False,
            help="Of each number that holds a weight, 2 to 16; or auto; else the recipe's export.bits.",
        ),
    ] = None,
    target_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            show_default=False,
            help="How many bytes the file may have, such as 500kB or 2.5MiB: the finest steps that fit are chosen.",
        ),
    ] = None,
    fold_norm: Annotated[
        bool, typer.Option("--fold-norm", help="Fold norm layers into the weights before them, where these take it.")
    ] = False,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE",
            show_default=False,
            help="Of what is not quantised: float32, float16 or bfloat16; else the recipe's export.dtype, or "
            "float32 with --dense.",
        ),
    ] = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Write an ordinary torchvision state_dict, for people without compressnet.")
    ] = False,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write the dense model for ONNX runtimes; pip install 'compressnet[onnx]'.")
    ] = False,
    pt2: Annotated[bool, typer.Option("--pt2", help="Write the dense model as a torch.export program.")] = False,
    with_recipe: Annotated[
        bool, typer.Option("--with-recipe", help="The file carries the recipe and what was measured, too.")
    ] = False,
    force: Force = False,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Write the file to ship, and verify it.

    It is quantised, coded, saved, reloaded and compared before it is called done.
    """
    from compressnet.cli.display import summaries, terminal
    from compressnet.cli.display.progress import progress
    from compressnet.commands.export import export

    overrides = [*(set_ or ()), *([f"export.bits={bits}"] if bits else []), *(["export.fold_norm=true"] * fold_norm)]
    exported = export(
        file,
        output,
        dtype=dtype,
        dense=dense,
        onnx=onnx,
        pt2=pt2,
        with_recipe=with_recipe,
        target_size=target_size,
        force=force,
        overrides=overrides,
        progress=progress(),
    )
    if json:
        terminal.show_json(exported.to_json())
    else:
        summaries.show_exported(exported)
