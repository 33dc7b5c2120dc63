import subprocess
import sys
from pathlib import Path

import pytest

from compressnet.cli import app
from tests.cli.calls import compressnet

COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]
HEAVY = ("torch", "torchvision", "yaml", "PIL", "compressnet.recipe")

PROBE = f"""
import sys
from compressnet.cli import main
try:
    main()
finally:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


def probe(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True)


def test_the_commands_are_those_of_the_documentation() -> None:
    assert COMMANDS == ["convert", "finetune", "export", "report", "evaluate", "run", "predict", "recipes"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_each_command_with_examples(command: str) -> None:
    result = compressnet(command, "--help")
    assert result.exit_code == 0
    assert f"Usage: compressnet {command}" in result.stdout.replace("Usage: root", "Usage: compressnet")
    examples = result.stdout.partition("Examples:\n")[2].splitlines()
    assert examples
    assert all(f"compressnet {command}" in line for line in examples)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["recipes"], *([c, "--help"] for c in COMMANDS)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    result = probe(*arguments)
    assert result.returncode == 0
    assert result.stderr.strip() == "[]"


def test_the_report_of_a_file_imports_nothing_heavy(exported: Path) -> None:
    result = probe("report", str(exported))
    assert result.returncode == 0, result.stderr
    assert result.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "Usage"),
        (["comvert"], "convert"),
        (["convert"], "RECIPE"),
        (["finetune", "x"], "--output"),
        (["report", "--colour"], "--colour"),
        (["evaluate", "x", "--part", "all"], "--part"),
        (["predict", "x", "y", "--top", "0"], "--top"),
    ],
)
def test_a_mistake_in_the_call_is_exit_2(arguments: list[str], named: str) -> None:
    result = compressnet(*arguments)
    assert result.exit_code == 2
    assert named in result.output
