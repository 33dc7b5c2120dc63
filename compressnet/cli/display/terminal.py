"""The two streams, and what is drawn on them."""

import json
import sys
from typing import Any

from rich.box import Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compressnet.cli.display.grid import Grid

RULES = Box("    \n    \n ── \n    \n ── \n ── \n    \n    \n")  # below the head and above the totals, nothing else
ENDLESS = 10_000  # a pipe has no width: nothing is folded in it


def console(stderr: bool = False) -> Console:
    """A console that takes text as it is; colours only on a terminal, and not with NO_COLOR."""
    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = ENDLESS
    return made


def is_narrow(columns: int = 130) -> bool:
    """Whether stdout is a terminal of fewer columns than every column of a report takes, or a table of that width."""
    return console().width < columns


def show_error(text: str) -> None:
    """One message on stderr, in lines as long as they are."""
    console(stderr=True).print(Text.assemble(("Error", "bold red"), f": {text}"), soft_wrap=True)


def show_text(text: str) -> None:
    """Lines of data on stdout, folded between words on a terminal."""
    console().print(Text(text))


def show_json(value: Any) -> None:
    """JSON on stdout."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def show_markdown(text: str) -> None:
    """Markdown on stdout."""
    sys.stdout.write(text + "\n")


def show_grid(grid: Grid) -> None:
    """A table on stdout; names too long for a terminal are folded, never cut."""
    table = Table(box=RULES, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in grid.columns:
        right = "right" if column.numbers else "left"
        table.add_column(column.title, justify=right, no_wrap=column.numbers, overflow="fold")  # type: ignore[arg-type]
    for row in grid.rows:
        table.add_row(*map(Text, row))
    if grid.totals:
        table.add_section()
    for row in grid.totals:
        table.add_row(*map(Text, row), style="bold")
    console().print(table)
