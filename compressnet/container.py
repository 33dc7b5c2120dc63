"""The file as bytes: a safetensors file with one JSON metadata entry, read and checked without torch.

``docs/format.md`` is the specification.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from compressnet.errors import FileError
from compressnet.index import MOST_NBYTES, Unreadable, inflated
from compressnet.metadata import damage

PLAIN, CODED = 1, 2
"""The format versions: tensors as they are, and tensors as coded symbols."""
KEY = "compressnet"
MOST_HEADER_NBYTES = 100_000_000  # safetensors' own limit
PACKED = "coded"
"""The one tensor of a coded file: index, records and streams."""
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
    """What stands before the numbers.

    Args:
        path: of the file.
        nbytes: of the header with its eight bytes of length.
        file_nbytes: of the whole file.
        spans: of the tensors; in a coded file those of their streams, one after the other.
        meta: what the file says of itself.
        index_nbytes: of a coded file's index, with its length.
        records: of a coded file: how each tensor is coded, one after the other.
        streams: of a coded file: bytes of each tensor's streams.
    """

    path: Path
    nbytes: int
    file_nbytes: int
    spans: Mapping[str, Span]
    meta: Mapping[str, Any]
    index_nbytes: int = 0
    records: bytes = b""
    streams: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def coded(self) -> bool:
        """Whether its tensors are coded."""
        return self.meta["format"] == CODED


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
    if header.coded:
        header = _with_index(header)
    if what := damage(header.meta):
        raise damaged(path, what)
    return header


def _with_index(header: Header) -> Header:
    """The header of a coded file, completed by its index.

    Raises:
        FileError: the index is damaged.
    """
    with open_file(header.path) as file:
        file.seek(header.nbytes)
        start = file.read(4)
        nbytes = int.from_bytes(start, "little")
        try:
            if list(header.spans) != [PACKED] or len(start) < 4 or nbytes > MOST_NBYTES:
                raise Unreadable
            meta = inflated(file.read(nbytes))
            tensors, size = meta.pop("tensors"), meta.pop("records")
            streams = {name: tuple(lengths) for name, _, lengths, *_ in tensors}
            place, spans = 4 + nbytes + size, {}
            for name, shape, lengths, *dtype in tensors:
                spans[name] = _span(
                    {"dtype": (*dtype, "F32")[0], "shape": shape, "data_offsets": [place, place + sum(lengths)]}
                )
                place += sum(lengths)
            whole = all(type(length) is int and length >= 0 for lengths in streams.values() for length in lengths)
            known = all(span.dtype in NBYTES for span in spans.values())
            fits = type(size) is int and size >= 0 and header.nbytes + place == header.file_nbytes
            if not (whole and known and fits and len(streams) == len(tensors)):
                raise Unreadable
        except (Unreadable, ValueError, TypeError, KeyError):
            raise damaged(header.path, "index") from None
        records = file.read(size)
    meta = {**meta, "format": CODED, "sha256": header.meta["sha256"]}
    return replace(header, spans=spans, meta=meta, index_nbytes=4 + nbytes, records=records, streams=streams)


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
    if version > CODED:
        raise FileError(
            f"format version {version}, written by compressnet {made_by}; this one reads up to {CODED}",
            str(path),
            "pip install --upgrade compressnet",
        )
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
