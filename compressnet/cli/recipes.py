"""``compressnet recipes``."""

import sys
from typing import Annotated

import typer

from compressnet.cli.options import Json

EXAMPLES = (
    "compressnet recipes",
    "compressnet recipes quickstart > mine.yaml",
)


def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", show_default=False, help="Print the text of this recipe.")
    ] = None,
    json: Json = False,
) -> None:
    """List the recipes that come along, or print one.

    The text of one is a start for one's own.
    """
    from compressnet.cli.display import summaries, terminal
    from compressnet.commands.recipes import recipe, recipes

    found = recipes() if name is None else [recipe(name)]
    if json:
        terminal.show_json([item.to_json() for item in found])
    elif name is None:
        summaries.show_recipes(found)
    else:
        sys.stdout.write(found[0].text)
