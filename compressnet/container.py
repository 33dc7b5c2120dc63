"""The file as bytes: a safetensors file with one JSON metadata entry, read and checked without torch.

``docs/format.md`` is the specification. The digest is SHA-256 of the whole file with the digest's own 64 characters
written as zeros, so it covers metadata, tensor table and payload alike.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from compressnet.errors import FileError
from compressnet.metadata import damage

FORMAT = 1
KEY = "compressnet"
BLANK = "0" * 64
MOST_HEADER_NBYTES = 100_000_000  # safetensors' own limit
NBYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class Span:
    """Where a tensor lies: numbers of a type and shape, and bytes of the payload."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes in the payload."""
        return self.end - self.start

    @property
    def numel(self) -> int:
        """How many numbers."""
        count = 1
        for side in self.shape:
            count *= side
        return count


@dataclass(frozen=True)
class Header:
    """What stands before the payload."""

    path: Path
    nbytes: int
    """Of the header with its eight bytes of length."""
    file_nbytes: int
    spans: Mapping[str, Span]
    meta: Mapping[str, Any]


def read_header(path: str | Path) -> Header:
    """Read and check everything but the payload.

    Raises:
        FileError: the file is missing, truncated, not ours, inconsistent or of a newer format.
    """
    path = Path(path)
    with open_file(path) as file:
        length, text = _read_text(path, file)
    try:
        table = json.loads(text)
        entry = table.pop("__metadata__", {}).get(KEY)
        spans = {name: _span(item) for name, item in table.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise foreign(path) from None
    if entry is None:
        raise FileError(
            "a safetensors file, but not one of compressnet's",
            str(path),
            "a plain state_dict can be a recipe's model.weights",
        )
    header = Header(path, 8 + length, path.stat().st_size, spans, _parse_meta(path, entry))
    _check_spans(header)
    return header


def _span(item: Mapping[str, Any]) -> Span:
    dtype, shape, (start, end) = item["dtype"], item["shape"], item["data_offsets"]
    if not isinstance(dtype, str) or not all(type(count) is int and count >= 0 for count in (*shape, start, end)):
        raise ValueError
    return Span(dtype, tuple(shape), start, end)


def open_file(path: Path) -> BinaryIO:
    """Open for reading.

    Raises:
        FileError: it is missing or cannot be read.
    """
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise FileError("no such file", str(path)) from None
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", str(path)) from None


def _read_text(path: Path, file: BinaryIO) -> tuple[int, bytes]:
    start = file.read(8)
    length = int.from_bytes(start, "little")
    size = os.fstat(file.fileno()).st_size
    if len(start) == 8 and not 2 <= length <= MOST_HEADER_NBYTES:
        raise foreign(path)
    if len(start) < 8 or 8 + length > size:
        raise FileError(f"truncated: it ends after {size:,} bytes, within its header", str(path), "fetch it again")
    return length, file.read(length)


def foreign(path: Path) -> FileError:
    """The error for a file that is something else."""
    with path.open("rb") as file:
        start = file.read(4)
    pickled = start[:2] in (b"PK", b"\x80\x02")
    kind = "a PyTorch pickle" if pickled else "not a safetensors file"
    cure = "a state_dict can be a recipe's model.weights" if pickled else None
    return FileError(f"{kind}, not one of compressnet's files", str(path), cure)


def _parse_meta(path: Path, entry: str) -> dict[str, Any]:
    try:
        meta = json.loads(entry)
        version = meta["format"]
        made_by = (meta.get("versions") or {}).get("compressnet") or "a newer compressnet"
        numbered = type(version) is int and version >= 0 and isinstance(meta["sha256"], str)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise damaged(path) from None
    if not numbered:
        raise damaged(path)
    if version == 0:
        raise FileError("format version 0, which was never frozen", str(path), "convert the model again")
    if version > FORMAT:
        raise FileError(
            f"format version {version}, written by compressnet {made_by}; this one reads up to {FORMAT}",
            str(path),
            "pip install --upgrade compressnet",
        )
    if what := damage(meta):
        raise damaged(path, what)
    return dict(meta)


def damaged(path: str | Path, what: str = "compressnet metadata") -> FileError:
    """The error for metadata that is not what any version writes."""
    return FileError(f"its {what} is damaged", str(path), "fetch it again")


def _check_spans(header: Header) -> None:
    end = 0
    for name, span in sorted(header.spans.items(), key=lambda item: (item[1].start, item[1].end)):
        if span.dtype not in NBYTES or span.start != end or span.numel * NBYTES[span.dtype] != span.nbytes:
            raise FileError(f"tensor {name} does not fit its declared place", str(header.path), "fetch it again")
        end = span.end
    if header.nbytes + end != header.file_nbytes:
        problem = "truncated" if header.nbytes + end > header.file_nbytes else "longer than it says"
        raise FileError(
            f"{problem}: {header.file_nbytes:,} bytes where its header declares {header.nbytes + end:,}",
            str(header.path),
            "fetch it again",
        )


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
