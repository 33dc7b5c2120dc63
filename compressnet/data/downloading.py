"""Downloads that leave either a whole data set behind or nothing."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from compressnet.errors import DataError


def download_once(name: str, root: Path, entries: Sequence[str], build: Callable[[Path, bool], Any]) -> Any:
    """A torchvision data set, downloaded only when it is not there.

    Args:
        name: of the data set, for the error.
        root: folder to hold it; made when absent.
        entries: what the data set makes in its root. They are downloaded into a folder beside and moved at the end;
            those there already, such as archives put there by hand, are taken along and not fetched again.
        build: makes the data set from a root, with or without downloading; raises RuntimeError when it is not there.

    Raises:
        DataError: the download failed, or what is there is damaged.
    """
    try:
        return build(root, False)
    except RuntimeError:
        pass  # torchvision's word for "not there"
    except (OSError, EOFError, ValueError, AssertionError) as error:
        raise DataError(f"{name} is damaged", str(root), f"remove {' and '.join(entries)} there") from error
    made = not root.exists()
    staging: Path | None = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".download-", dir=root))
        _copy(entries, root, staging)
        with redirect_stdout(sys.stderr):  # torchvision prints there; stdout is for data
            build(staging, True)
        _move(entries, staging, root)
        return build(root, False)
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()
        cure = f"check the network, or put {' or '.join(entries)} into {root} yourself, as torchvision lays it out"
        raise DataError(
            f"{name} is not there and cannot be downloaded: {reason[-1] if reason else type(error).__name__}",
            str(root),
            cure,
        ) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        if made:
            with suppress(OSError):
                root.rmdir()  # only when it is still empty


def _copy(entries: Sequence[str], root: Path, target: Path) -> None:
    for entry in entries:
        if (root / entry).is_dir():
            shutil.copytree(root / entry, target / entry)
        elif (root / entry).exists():
            shutil.copy2(root / entry, target / entry)


def _move(entries: Sequence[str], source: Path, root: Path) -> None:
    for entry in entries:
        if not (source / entry).exists():
            continue
        if (root / entry).is_dir():
            shutil.rmtree(root / entry)
        (source / entry).replace(root / entry)
