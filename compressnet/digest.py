"""The digest of a file: SHA-256 of the whole of it with the digest's own 64 characters written as zeros.

So it covers metadata, tensor table and payload alike.
"""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from compressnet.container import Header, open_file, read_header
from compressnet.errors import FileError

BLANK = "0" * 64


def digest(path: Path, header_nbytes: int, written: str) -> tuple[str, int]:
    """SHA-256 of a file with its own digest as zeros, and where the digest stands.

    Args:
        path: of the file.
        header_nbytes: length of the header with its eight bytes.
        written: the 64 characters that stand in the file for the digest.

    Raises:
        FileError: the digest does not stand exactly once in the header.
    """
    with open_file(path) as file:
        head = file.read(header_nbytes)
        mark = f'\\"sha256\\":\\"{written}\\"'.encode()
        if len(written) != 64 or head.count(mark) != 1:
            raise FileError("its digest is damaged", str(path), "fetch it again")
        place = head.index(mark) + len(mark) - 66
        hashed = _hash(file, head[:place] + BLANK.encode() + head[place + 64 :])
    return hashed, place


def sha256(path: Path) -> str:
    """SHA-256 of any file as it is.

    Raises:
        FileError: it cannot be read.
    """
    with open_file(path) as file:
        return _hash(file)


def _hash(file: BinaryIO, start: bytes = b"") -> str:
    hashed = hashlib.sha256(start)
    while part := file.read(1 << 20):
        hashed.update(part)
    return hashed.hexdigest()


def verify(header: Header) -> None:
    """Check the digest.

    Raises:
        FileError: the bytes are not those that were written.
    """
    if digest(header.path, header.nbytes, str(header.meta["sha256"]))[0] != header.meta["sha256"]:
        raise FileError(
            "its SHA-256 does not match: the file was changed after it was written", str(header.path), "fetch it again"
        )


def seal(path: Path) -> str:
    """Write the digest into a file that was written with a blank one; returns it."""
    header = read_header(path)
    value, place = digest(path, header.nbytes, BLANK)
    with path.open("r+b") as file:
        file.seek(place)
        file.write(value.encode())
        file.flush()
        os.fsync(file.fileno())
    return value
