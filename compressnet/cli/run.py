"""``compressnet run``."""

from compressnet.cli.options import Compile, Device, Folder, Json, Recipe, Set

EXAMPLES = (
    "compressnet run quickstart -o runs/quickstart",
    "compressnet run recipe.yaml -o runs/mine --device cuda",
    "compressnet run recipe.yaml -o runs/small --set layers.0.ratio=32",
)


def run(
    recipe: Recipe,
    output: Folder,
    device: Device = "auto",
    compile: Compile = False,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Do all stages, from a recipe to the file to ship.

    They are pretrain, where the recipe says so, convert, finetune, export, evaluate and report. What is done already
    with the same inputs is not done again, and training goes on where it was interrupted.
    """
    from compressnet.cli.display import accounts, summaries, terminal
    from compressnet.cli.display.progress import progress
    from compressnet.commands.recipes import find
    from compressnet.commands.run import run

    finished = run(find(recipe), output, device=device, compile=compile, overrides=set_ or (), progress=progress())
    if json:
        terminal.show_json(finished.to_json())
    else:
        summaries.show_finished(finished)
        accounts.show(finished.account)
