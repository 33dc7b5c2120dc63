"""``docs/cli.md`` is made from the commands themselves; ``python tests/docs/test_cli_reference.py`` makes it anew."""

from pathlib import Path
from typing import Any

import typer.main

from compressnet.cli import app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"

HEAD = """\
# The command line

Data goes to stdout, progress and errors to stderr. The exit code is 0 when all went well, 1 for an error whose message
says how to mend it, 2 for a mistake in the call, 130 after Ctrl-C and 143 after SIGTERM. `NO_COLOR` is respected.
"""


def reference() -> str:
    """The page: a section for each command."""
    group: Any = typer.main.get_command(app)
    return "\n".join([HEAD, *(_section(name, command) for name, command in group.commands.items())])


def _section(name: str, command: Any) -> str:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    usage = " ".join(_argument(parameter) for parameter in arguments)
    rows = [f"| `{_name(parameter)}` | {_words(parameter)} |" for parameter in command.params]
    lines = [line.removeprefix("  ") for line in command.epilog.splitlines()[2:]]
    return "\n".join(
        [
            f"## {name}",
            "",
            f"    compressnet {name} {usage} [OPTIONS]",
            "",
            *(line.strip() for line in command.help.splitlines()),
            "",
            "| | |",
            "|---|---|",
            *rows,
            "",
            "```sh",
            *lines,
            "```",
            "",
        ]
    )


def _argument(parameter: Any) -> str:
    name = parameter.metavar + ("…" if parameter.nargs != 1 else "")
    return name if parameter.required else f"[{name}]"


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return _argument(parameter)
    value = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
    return ", ".join(parameter.opts) + value


def _words(parameter: Any) -> str:
    default = parameter.default
    if parameter.required and parameter.param_type_name == "option":
        return f"{parameter.help} Required."
    if isinstance(default, bool) or default in (None, ()):
        return str(parameter.help)
    return f"{parameter.help} Default: `{getattr(default, 'value', default)}`."


def test_the_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), f"make it anew: python {Path(__file__).name}"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
