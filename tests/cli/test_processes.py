"""What only a real process shows: signals, pipes, terminals, tracebacks."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.calls import start, succeed, tree

TRAINING = ["--device", "cpu", "--set", "data.samples=160", "--set", "data.batch_size=4", "--set", "finetune.epochs=3"]


def interrupted(number: int, when: str, *arguments: object) -> tuple[int, str]:
    """Send a signal, as a terminal does to all processes of a command, when a line of stderr begins as told.

    Returns:
        the exit code and the rest of stderr.
    """
    with start(*arguments) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(when):
                os.killpg(process.pid, number)
                break
        rest = process.communicate(timeout=60)[1]
    return process.returncode, rest


def finish(*arguments: object) -> None:
    """Let a command do well in a process of its own."""
    with start(*arguments) as process:
        rest = process.communicate(timeout=120)[1]
    assert process.returncode == 0, rest


def weights(path: Path) -> dict[str, Any]:
    return dict(torch.load(path, weights_only=True)["model"])


@pytest.fixture(scope="module")
def uninterrupted(converted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    finish("finetune", converted, "-o", folder, *TRAINING)
    return folder


@pytest.mark.parametrize(("number", "code", "workers"), [(signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 0)])
def test_an_interrupted_finetune_goes_on_to_the_same_bits(
    number: int, code: int, workers: int, converted: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    training = [*TRAINING, "--set", f"data.workers={workers}"]
    arguments = ["finetune", converted, "-o", tmp_path, *training]
    ended, rest = interrupted(number, "finetune: epoch 2 of 3", *arguments)
    assert ended == code, rest
    assert "Error: interrupted at finetune, epoch 2, step " in rest
    assert "--resume goes on from there" in rest
    assert "Traceback" not in rest
    assert tree(tmp_path).keys() == {"best.safetensors", "last.pt", "metrics.jsonl"}
    finish(*arguments, "--resume")
    if not workers:  # the recipe in the file tells of them
        assert (tmp_path / "best.safetensors").read_bytes() == (uninterrupted / "best.safetensors").read_bytes()
    once, twice = weights(uninterrupted / "last.pt"), weights(tmp_path / "last.pt")
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_an_interrupted_run_goes_on_by_the_same_command(recipe: Path, tmp_path: Path) -> None:
    arguments = ["run", recipe, "-o", tmp_path / "run", *TRAINING]
    ended, rest = interrupted(signal.SIGINT, "finetune: epoch 1 of 3", *arguments)
    assert ended == 130, rest
    assert "the same command goes on from there" in rest
    assert "Traceback" not in rest
    assert "done before with the same inputs: pretrain, convert" in succeed(*arguments)


@pytest.mark.parametrize(
    ("number", "code", "message"), [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "")]
)
def test_a_signal_outside_of_training_ends_at_once(number: int, code: int, message: str, tmp_path: Path) -> None:
    pipe = tmp_path / "recipe.yaml"
    os.mkfifo(pipe)  # reading it waits for a writer that never writes
    with start("report", pipe) as process:
        writer = _open_when_read(pipe)
        time.sleep(1)  # until it waits: Python forgets a signal that comes just before a read that blocks
        process.send_signal(number)
        assert process.communicate(timeout=60) == ("", message)
    assert process.returncode == code
    os.close(writer)


def _open_when_read(pipe: Path) -> int:
    for _ in range(600):
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.1)
    raise AssertionError("nobody reads the pipe")


@pytest.mark.parametrize("arguments", [["recipes", "quickstart"], ["report", "--json"], ["report"], ["--help"]])
def test_a_reader_that_goes_away_is_no_error(arguments: list[str], exported: Path) -> None:
    with start(*arguments, *([exported] * 40 if arguments[0] == "report" else [])) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_a_bug_keeps_its_plain_traceback() -> None:
    code = "from compressnet.cli import app, main\n@app.command()\ndef bug(): 1 / 0\nmain()"
    result = subprocess.run([sys.executable, "-c", code, "bug"], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback (most recent call last):")
    assert result.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert "─" not in result.stderr


def on_terminal(*arguments: object, columns: int = 80, **environment: str) -> str:
    """Everything a command shows on a terminal."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    inherited = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "compressnet", *map(str, arguments)],
        stdout=theirs,
        stderr=theirs,
        env=inherited | {"TERM": "xterm-256color"} | environment,
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # how a terminal ends on Linux
        pass
    os.close(ours)
    process.wait(60)
    return re.sub(r"\x1b\[[01]m", "", shown.decode()) if "NO_COLOR" in environment else shown.decode()


def test_a_report_fits_a_terminal_of_80_columns(exported: Path) -> None:
    shown = on_terminal("report", exported, NO_COLOR="1").split("\r\n")
    table = shown[next(i for i, line in enumerate(shown) if line.startswith("layer ")) :]
    assert max(map(len, table)) <= 80
    assert "…" not in "".join(shown)
    assert "dense, no rule matches it: conv1, fc2" in shown


@pytest.mark.parametrize("model", ["alexnet", "resnet50"])
def test_a_table_of_methods_fits_a_terminal_of_80_columns(model: str) -> None:
    shown = on_terminal("report", "--methods", model, NO_COLOR="1").split("\r\n")
    assert max(map(len, shown)) <= 80
    assert not [line for line in shown if "…" in line and not line.startswith("–") and ":" not in line]
    assert len([line for line in shown if line.startswith("layers ")]) == 3


def test_names_too_long_for_a_terminal_are_folded() -> None:
    shown = on_terminal("report", "quickstart", columns=60, NO_COLOR="1")
    assert "…" not in shown
    assert all(len(line) <= 60 for line in shown.splitlines())


def test_colours_are_for_terminals_that_want_them() -> None:
    assert "\x1b[1;31mError" in on_terminal("report", "nowhere")
    assert on_terminal("report", "nowhere", NO_COLOR="1") == "Error: nowhere: no such file\r\n"


def test_a_terminal_shows_bars(converted: Path) -> None:
    shown = on_terminal("evaluate", converted, "--device", "cpu", columns=100)
    assert "evaluating" in shown
    assert "━" in shown
    assert "top1" in shown


def test_a_terminal_shows_how_training_goes(converted: Path, tmp_path: Path) -> None:
    shown = on_terminal("finetune", converted, "-o", tmp_path / "out", *TRAINING, columns=120)
    for part in ("finetune: epoch 2 of 3", "img/s", "loss ", "top1 "):
        assert part in shown
    assert re.search(r"\d:\d\d<\d:\d\d", shown), "the time it took, and the time that is left"
