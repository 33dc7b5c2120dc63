"""``last.pt``: everything a run needs to go on where it stopped."""

import glob
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compressnet.container import read_header
from compressnet.digest import verify
from compressnet.errors import FileError, ResumeError, TrainingError
from compressnet.output import replacing
from compressnet.training import distributed


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state; it replaces the old one whole or not at all. Process 0 writes, the others wait.

    Raises:
        TrainingError: it cannot be written.
    """
    random = distributed.everyones(_random_state())
    if distributed.rank():
        distributed.wait()
        return
    try:
        with replacing(path, force=True) as temporary:
            _write(temporary, state | {"random": random})
    except FileError as error:
        cure = "the state before it is kept: make room, and --resume goes on from there"
        raise TrainingError(f"the state is not saved: {error}", cure=cure) from None
    distributed.wait()


def _write(path: Path, state: dict[str, Any]) -> None:
    """What the system refuses is an OSError; torch hides it behind a word about its archive."""
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def sweep(*paths: Path) -> None:
    """Remove what a process that was killed while it wrote one of these files has left."""
    for path in paths:
        for part in path.parent.glob(f".{glob.escape(path.stem)}.*.part{path.suffix}"):
            part.unlink(missing_ok=True)


def check_state(folder: Path, best: Path) -> None:
    """Refuse, before any work, to resume what cannot be resumed.

    Args:
        folder: of ``last.pt``.
        best: the file of the best epoch so far.

    Raises:
        ResumeError: there is no state, or the best epoch so far is gone or damaged.
    """
    if not (folder / "last.pt").exists():
        cure = "start anew with --force" if best.exists() else "start without --resume"
        raise ResumeError("there is nothing to resume", str(folder / "last.pt"), cure)
    try:
        verify(read_header(best))
    except FileError:
        raise ResumeError("the best epoch so far is gone or damaged", str(best), "start anew with --force") from None


def load_state(path: Path, fingerprint: dict[str, Any]) -> dict[str, Any]:
    """Read the state and set the random generators.

    Args:
        path: of ``last.pt``.
        fingerprint: what the run depends on; it must be that of the run which is resumed.

    Raises:
        ResumeError: the state is damaged, or belongs to another run.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        before = state["fingerprint"]
    except Exception:
        raise ResumeError("the state is damaged", str(path), "start anew with --force") from None
    if changes := "; ".join(_changes(before, fingerprint)):
        raise ResumeError(f"it belongs to another run: {changes}", str(path), "start anew with --force")
    _set_random_state(state["random"][distributed.rank()])
    return dict(state)


def _changes(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """What differs, key by key, as a recipe writes them.

    >>> list(_changes({"data": {"root": "a", "resize": 32}}, {"data": {"root": "b", "resize": 32}}))
    ["data.root was 'a', is 'b'"]
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for name in now | before:
            yield from _changes(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    elif json.dumps(before) != json.dumps(now):
        yield f"{key} was {before!r}, is {now!r}"


def _random_state() -> dict[str, Any]:
    kind, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "python": [version, list(internal), gauss],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
