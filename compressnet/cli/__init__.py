"""The command line: each command has a file, which parses, calls the function of that name and draws what it returns.

Nothing here imports torch before a command runs: ``--help`` answers at once.
"""

import os
import signal
import sys
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from compressnet import __version__
from compressnet.cli import convert, evaluate, export, finetune, predict, recipes, report, run
from compressnet.cli.processes import check_together
from compressnet.errors import CompressnetError


class _Boundary(TyperGroup):
    """The one place where errors become messages and exit codes; a bug goes through and keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CompressnetError as error:
            from compressnet.cli.display.terminal import show_error

            show_error(str(error))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(128 + signal.SIGINT) from None


app = typer.Typer(
    name="compressnet",
    cls=_Boundary,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)

for _command, _examples in (
    (convert.convert, convert.EXAMPLES),
    (finetune.finetune, finetune.EXAMPLES),
    (export.export, export.EXAMPLES),
    (report.report, report.EXAMPLES),
    (evaluate.evaluate, evaluate.EXAMPLES),
    (run.run, run.EXAMPLES),
    (predict.predict, predict.EXAMPLES),
    (recipes.recipes, recipes.EXAMPLES),
):
    # \b keeps the lines of a paragraph as they are
    app.command(epilog="\b\nExamples:\n" + "\n".join(f"  {line}" for line in _examples))(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"compressnet {__version__}")
        raise typer.Exit


@app.callback()
def _compressnet(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Ship a vision network in little space: FreshNet, HashedNet and Deep-Fried forms of torchvision models.

    A recipe says which layers take which form. `run` goes all the way from a recipe to the file to ship; convert,
    finetune and export are its stages, report and evaluate look at the file of any of them.
    """
    check_together(context.invoked_subcommand)


def main() -> None:
    """The console script."""
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a × is no reason to fail on a terminal that cannot show it
    try:
        app(prog_name="compressnet")
    finally:
        _flush()


def _terminate(number: int, frame: FrameType | None) -> None:
    """End by way of every ``finally``, so that nothing half-written stays."""
    raise SystemExit(128 + number)


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
