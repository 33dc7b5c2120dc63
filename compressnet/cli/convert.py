"""``compressnet convert``."""

from pathlib import Path
from typing import Annotated

import typer

from compressnet.cli.options import Force, Json, Recipe, Set

EXAMPLES = (
    "compressnet convert quickstart --dry-run",
    "compressnet convert recipe.yaml -o converted.safetensors",
    "compressnet convert recipe.yaml -o small.safetensors --set layers.0.ratio=32",
    "compressnet convert recipe.yaml -o small.safetensors --target-size 500kB",
)


def convert(
    recipe: Recipe,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", show_default=False, help="The file to write.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only plan and price: no file, and without a budget no weights and no data."),
    ] = False,
    target_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            show_default=False,
            help="The recipe's budget: how many bytes the exported file may have, such as 500kB or 2.5MiB.",
        ),
    ] = None,
    force: Force = False,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Compress the layers of a model as a recipe says.

    Prints what each layer was and is, and how near it is to the dense one.
    """
    if output is None and not dry_run:
        raise typer.BadParameter("needed, unless --dry-run is given", param_hint="-o")
    from compressnet.cli.display import accounts, terminal
    from compressnet.cli.display.progress import progress
    from compressnet.commands.convert import convert
    from compressnet.commands.recipes import find

    overrides = [*(set_ or ()), *([f"budget={target_size}"] if target_size else [])]
    account = convert(find(recipe), output, dry_run=dry_run, force=force, overrides=overrides, progress=progress())
    if json:
        terminal.show_json(account.to_json())
    else:
        accounts.show(account)
