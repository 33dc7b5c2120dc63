"""A tensor as a record and its streams."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compressnet.coding import symbols as coded
from compressnet.coding.quantisers import LARGEST, Codebook, Quantiser, Uniform
from compressnet.coding.records import DamagedError, Reader, Writer
from compressnet.coding.symbols import Coder
from compressnet.maths import bitmaps, gaps

CONSTANT, REPEAT, PLANES, UNIFORM, ROWS, CODEBOOK, HALF_CODEBOOK, GAPS = range(8)
"""How a tensor is coded: the first byte of its record."""
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_GAP_BITS = (4, 6, 8, 10)  # of a gap's code, that are tried


@dataclass(frozen=True)
class Coded:
    """A coded tensor.

    Args:
        dtype: that it decodes to, as safetensors calls it.
        shape: of the tensor.
        record: how it is coded.
        streams: its symbols.
    """

    dtype: str
    shape: tuple[int, ...]
    record: bytes
    streams: tuple[bytes, ...]

    @property
    def nbytes(self) -> int:
        """Of record and streams."""
        return len(self.record) + sum(map(len, self.streams))


def encode(tensor: Tensor, quantiser: Quantiser | None = None, coder: Coder = "range") -> Coded:
    """A tensor in the fewest bytes of the ways there are for it.

    Args:
        tensor: on the CPU.
        quantiser: of its numbers; without one, and with one of a type, they are kept as they are.
        coder: of symbols.
    """
    tensor = tensor.detach().contiguous()
    if isinstance(quantiser, Uniform | Codebook):
        ways = [_quantised(tensor, quantiser, coder)]
    else:
        ways = [_as_planes(tensor, coder)]
    if tensor.numel() and _same(tensor):
        ways.append(_as_constant(tensor))
    if tensor.dtype is torch.uint8 and tensor.numel():
        ways += _as_gaps(tensor, coder)
    return min(ways, key=lambda way: way.nbytes)


def _made(tensor: Tensor, record: Writer, *streams: bytes) -> Coded:
    return Coded(_NAMES[tensor.dtype], tuple(tensor.shape), bytes(record.data), streams)


def _bytes(tensor: Tensor) -> np.ndarray:
    """The bytes of each number: shape (numel, bytes), the lowest first."""
    return tensor.reshape(-1, 1).view(torch.uint8).numpy() if tensor.numel() else np.zeros((0, 1), dtype=np.uint8)


def _same(tensor: Tensor) -> bool:
    each = _bytes(tensor)
    return bool((each == each[0]).all())


def _as_constant(tensor: Tensor) -> Coded:
    record = Writer()
    record.byte(CONSTANT)
    record.data += _bytes(tensor)[0].tobytes()
    return _made(tensor, record)


def _as_planes(tensor: Tensor, coder: Coder) -> Coded:
    record, each = Writer(), _bytes(tensor)
    record.byte(PLANES)
    planes = range(tensor.element_size() if tensor.numel() else 0)
    streams = [coded.encode(each[:, plane].astype(np.int32), record, coder) for plane in planes]
    return _made(tensor, record, *streams)


def _quantised(tensor: Tensor, quantiser: Uniform | Codebook, coder: Coder) -> Coded:
    record, streams = Writer(), []
    if isinstance(quantiser, Codebook):
        half = all(float(np.float16(level)) == level for level in quantiser.levels)
        record.byte(HALF_CODEBOOK if half else CODEBOOK)
        record.count(len(quantiser.levels))
        record.floats(quantiser.levels, "e" if half else "f")
    else:
        record.byte(UNIFORM if quantiser.rows is None else ROWS)
        record.floats([quantiser.step])
        if quantiser.rows is not None:
            streams.append(coded.encode(np.array(quantiser.rows, dtype=np.int32), record, coder))
    streams.append(coded.encode(quantiser.symbols(tensor.float()).flatten().numpy(), record, coder))
    return _made(tensor.float(), record, *streams)


def _as_gaps(tensor: Tensor, coder: Coder) -> list[Coded]:
    """Of a bitmap: the gaps between the positions that are set."""
    kept = bitmaps.positions(tensor.flatten(), 8 * tensor.numel()).long()
    if not len(kept) or len(kept) > 4 * tensor.numel():
        return []
    ways = []
    for bits in _GAP_BITS:
        record = Writer()
        record.byte(GAPS)
        record.byte(bits)
        codes = gaps.encode(kept, bits)
        record.count(len(codes))
        ways.append(_made(tensor, record, coded.encode(codes.numpy().astype(np.int32), record, coder)))
    return ways


def decode(
    record: Reader, dtype: str, shape: Sequence[int], streams: Sequence[bytes], earlier: Sequence[Tensor]
) -> Tensor:
    """The tensor of a record and its streams.

    Args:
        record: read from its place.
        dtype: that it decodes to.
        shape: of the tensor.
        streams: as many as the record says.
        earlier: the tensors before it, one of which it may repeat.

    Raises:
        DamagedError: they are not what :func:`encode` makes.
    """
    kind, count, made = record.byte(), int(np.prod(shape, dtype=np.int64)), DTYPES[dtype]
    if len(streams) != _streams(kind, made, count):
        raise DamagedError
    if kind == REPEAT:
        place = record.count()
        if place >= len(earlier) or earlier[place].shape != torch.Size(shape) or earlier[place].dtype != made:
            raise DamagedError
        return earlier[place].clone()
    if kind == CONSTANT:
        number = torch.frombuffer(bytearray(record.take(made.itemsize)), dtype=made)
        return number.expand(count).clone().view(tuple(shape))
    if kind == PLANES and not count:
        return torch.zeros(tuple(shape), dtype=made)
    if kind == PLANES:
        each = np.stack([_plane(record, stream, count) for stream in streams], axis=1)
        return torch.from_numpy(each).flatten().view(made).view(tuple(shape))
    if kind == GAPS and made is torch.uint8:
        return _bitmap(record, streams[0], count).view(tuple(shape))
    if made is not torch.float32:
        raise DamagedError
    return _numbers(kind, record, shape, streams)


def _streams(kind: int, dtype: torch.dtype, count: int) -> int:
    if kind == PLANES:
        return dtype.itemsize if count else 0
    return {CONSTANT: 0, REPEAT: 0, ROWS: 2}.get(kind, 1)


def _plane(record: Reader, stream: bytes, count: int) -> np.ndarray:
    plane = coded.decode(record, stream, count)
    if plane.min() < 0 or plane.max() > 255:
        raise DamagedError
    return plane.astype(np.uint8)


def _bitmap(record: Reader, stream: bytes, count: int) -> Tensor:
    bits, codes = record.byte(), record.count()
    if not 2 <= bits <= 16 or codes > 8 * count:
        raise DamagedError
    symbols = torch.from_numpy(coded.decode(record, stream, codes)).long()
    if (symbols < 0).any() or (symbols >= 2**bits).any():
        raise DamagedError
    positions = gaps.kept_by(symbols, bits)
    if len(positions) and positions[-1] >= 8 * count:
        raise DamagedError
    kept = torch.zeros(8 * count, dtype=torch.bool)
    kept[positions] = True
    return bitmaps.pack(kept)


def _numbers(kind: int, record: Reader, shape: Sequence[int], streams: Sequence[bytes]) -> Tensor:
    count = int(np.prod(shape, dtype=np.int64))
    quantiser: Quantiser
    try:
        if kind in (CODEBOOK, HALF_CODEBOOK):
            levels = record.count()
            if levels > LARGEST:
                raise DamagedError
            quantiser = Codebook(record.floats(levels, "e" if kind == HALF_CODEBOOK else "f"))
        elif kind in (UNIFORM, ROWS):
            (step,), rows = record.floats(1), None
            if kind == ROWS:
                rows = tuple(coded.decode(record, streams[0], shape[0] if shape else 1).tolist())
            quantiser = Uniform(step, rows=rows)
        else:
            raise DamagedError
    except ValueError:
        raise DamagedError from None
    symbols = coded.decode(record, streams[-1], count)
    if isinstance(quantiser, Codebook) and count and not 0 <= symbols.min() <= symbols.max() < len(quantiser.levels):
        raise DamagedError
    return quantiser.numbers(torch.from_numpy(symbols).view(tuple(shape)))
