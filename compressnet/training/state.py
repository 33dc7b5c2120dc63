"""``last.pt``: everything a run needs to go on where it stopped."""

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compressnet.errors import ResumeError, TrainingError


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state; it replaces the old one whole or not at all.

    Raises:
        TrainingError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        torch.save(state | {"random": _random_state()}, temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        raise TrainingError(f"the state cannot be saved: {error}", str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def load_state(path: Path, fingerprint: dict[str, Any]) -> dict[str, Any]:
    """Read the state and set the random generators.

    Args:
        path: of ``last.pt``.
        fingerprint: what the run depends on; it must be that of the run which is resumed.

    Raises:
        ResumeError: there is no state, it is damaged, or it belongs to another run.
    """
    if not path.exists():
        raise ResumeError("there is nothing to resume", str(path), "start without --resume")
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        before = state["fingerprint"]
    except Exception:
        raise ResumeError("the state is damaged", str(path), "start anew with --force") from None
    differing = [key for key in fingerprint if json.dumps(fingerprint[key]) != json.dumps(before.get(key))]
    if differing:
        changes = "; ".join(f"{key} was {before.get(key)!r}, is {fingerprint[key]!r}" for key in differing)
        raise ResumeError(f"it belongs to another run: {changes}", str(path), "start anew with --force")
    _set_random_state(state["random"])
    return dict(state)


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
