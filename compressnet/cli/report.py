"""``compressnet report``."""

from typing import Annotated

import typer

from compressnet.cli.options import Json, Set

EXAMPLES = (
    "compressnet report model.safetensors",
    "compressnet report recipe.yaml --set layers.0.ratio=32",
    "compressnet report --methods resnet18 --ratio 8",
    "compressnet report dense.safetensors converted.safetensors model.safetensors --markdown",
)


def report(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", show_default=False, help="Files of any stage, or recipes, which are priced."),
    ],
    json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
    methods: Annotated[
        bool,
        typer.Option("--methods", help="Show what can hold each layer of a model (by name), a recipe's or a file's."),
    ] = False,
    ratio: Annotated[
        float, typer.Option(metavar="RATIO", min=1, help="With --methods: dense numbers per stored number.")
    ] = 16,
    set_: Set = None,
) -> None:
    """Show where every byte is; several files are compared.

    A recipe is priced. With --methods, a table of what each method would store for each layer. --json prints a list
    with one entry a path.
    """
    if json and markdown:
        raise typer.BadParameter("--json and --markdown exclude each other", param_hint="--markdown")
    from compressnet.cli.display import accounts, choices, terminal
    from compressnet.commands.recipes import shipped_path
    from compressnet.commands.report import report, report_methods

    if methods:
        tables = [report_methods(shipped_path(path) or path, ratio=ratio, overrides=set_ or ()) for path in paths]
        if json:
            terminal.show_json([table.to_json() for table in tables])
        for table in () if json else tables:
            choices.show(table, markdown)
        return
    found = report(*(shipped_path(path) or path for path in paths), overrides=set_ or ())
    if json:
        terminal.show_json([account.to_json() for account in found])
    elif len(found) > 1:
        accounts.compare(found, markdown)
    else:
        accounts.show(found[0], markdown)
