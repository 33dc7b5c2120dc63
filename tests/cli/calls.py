"""Commands as a user gives them: in this process, where that is enough, or in one of their own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from compressnet.cli import app


def compressnet(*arguments: object) -> Result:
    """Run a command in this process; a bug raises."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def succeed(*arguments: object) -> str:
    """What a command prints."""
    result = compressnet(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def read_json(*arguments: object) -> Any:
    """What a command prints with ``--json``."""
    return json.loads(succeed(*arguments, "--json"))


def _hear_ctrl_c() -> None:
    """A process that was started in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def start(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, which does not outlive the block, whatever happens in it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "compressnet", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        preexec_fn=_hear_ctrl_c,
    )
    try:
        yield process
        process.wait(60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
