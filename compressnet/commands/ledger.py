"""What a run has done, so that its next call does only what is missing."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compressnet.container import read_header
from compressnet.digest import verify
from compressnet.errors import FileError
from compressnet.output import replacing


class Ledger:
    """``run.json``: which stage was done with which inputs, and what it measured.

    Args:
        folder: of the run.

    Attributes:
        skipped: the stages that were done already.

    Raises:
        FileError: it cannot be read, or is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run.json"
        self.skipped: list[str] = []
        try:
            self.entries = json.loads(self.path.read_text())
        except FileNotFoundError:
            self.entries = {}
        except OSError as error:
            raise FileError(f"cannot be read: {error.strerror}", str(self.path), "remove it to start anew") from None
        except (ValueError, RecursionError):
            self.entries = None
        if not _is_ledger(self.entries):
            raise FileError("it is damaged", str(self.path), "remove it to start anew")

    def stage(self, name: str, inputs: Any, output: Path | None, make: Callable[[], Any]) -> Any:
        """Do a stage, or return what it gave when it was done with the same inputs and its output is there, whole."""
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        entry = self.entries.get(name)
        done = entry and entry["inputs"] == key
        if done and (output is None or digest_of(output) == entry["output"] is not None):
            self.skipped.append(name)
            return entry["result"]
        result = make()
        self.entries[name] = {"inputs": key, "output": digest_of(output) if output else None, "result": result}
        with replacing(self.path, force=True) as temporary:
            temporary.write_text(json.dumps(self.entries, indent=1))
        return result


def _is_ledger(entries: Any) -> bool:
    return isinstance(entries, dict) and all(
        isinstance(entry, dict) and entry.keys() >= {"inputs", "output", "result"} for entry in entries.values()
    )


def digest_of(path: Path) -> str | None:
    """The digest of a file of ours that is whole, else None."""
    try:
        header = read_header(path)
        verify(header)
    except FileError:
        return None
    return str(header.meta["sha256"])
