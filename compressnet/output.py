"""Files that appear whole or not at all, and names that are refused before any work is done for them."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from compressnet.errors import FileError


def check_output(path: Path, force: bool) -> None:
    """Refuse the name of a file that may not be written.

    Raises:
        FileError: it is a folder, or it exists and ``force`` is not given.
    """
    if os.path.isdir(path):
        raise FileError("it is a folder", str(path), "name a file")
    if os.path.exists(path) and not force:
        raise FileError("it exists already", str(path), "--force replaces it")


def check_folder(folder: Path) -> None:
    """Refuse the name of a folder that cannot be made, or written to.

    Raises:
        FileError: it or one above it is a file, or it may not be written to.
    """
    nearest = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    if not os.path.isdir(nearest):
        raise FileError("it is a file, not a folder", str(nearest), "name a folder with -o")
    if not os.access(nearest, os.W_OK):
        raise FileError(f"cannot be written: {os.strerror(errno.EACCES)}", str(nearest))


@contextmanager
def replacing(path: Path, force: bool) -> Iterator[Path]:
    """A temporary name beside ``path`` that takes its place when the block ends well.

    Raises:
        FileError: it is a folder, it exists and ``force`` is not given, or it cannot be written.
    """
    check_output(path, force)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # safetensors writes files for their owner alone
        temporary.replace(path)
    except OSError as error:
        raise FileError(f"cannot be written: {error.strerror or error}", str(path)) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
