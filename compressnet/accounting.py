"""Where every byte of a file is: from its header alone, without torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from compressnet.container import Header, Span, damaged, read_header

AUXILIARY = "never runs in evaluation"


@dataclass(frozen=True)
class Row:
    """One weight, or what is left of the model, as stored.

    Args:
        name: of the layer, or of the group.
        method: that holds it; ``dense`` where it is stored as it was, empty for groups.
        shape: of the dense weight; empty for groups.
        dense_numel: numbers in the dense model; 0 for heads that never run in evaluation, which earn no credit.
        numel: numbers stored.
        nbytes: bytes of the file; None where nothing is stored yet, or what they are thought to be for a budget.
        dense_macs: multiply–accumulates of one image with the dense weight.
        macs: the same as executed.
        error: of the weight's projection, relative.
        remark: why it is dense, or what a user should know.
        output_error: of the layer's outputs on calibration images, relative.
        positions_nbytes: bytes among ``nbytes`` that say where values are (bitmap or gaps), each counted as a number.
        bits: of each number, where the plan says them.
        loss_share: of what all layers are thought to lose, where a budget was shared among them.
    """

    name: str
    method: str
    shape: tuple[int, ...]
    dense_numel: int
    numel: int
    nbytes: int | None = None
    dense_macs: int | None = None
    macs: int | None = None
    error: float | None = None
    remark: str | None = None
    output_error: float | None = None
    positions_nbytes: int = 0
    bits: int | None = None
    loss_share: float | None = None

    @property
    def ratio(self) -> float | None:
        """Dense numbers per stored number."""
        return self.dense_numel / self.numel if self.numel and self.dense_numel else None

    @property
    def width(self) -> float:
        """Bytes of a stored number, those of positions aside."""
        numbers = self.numel - self.positions_nbytes
        return ((self.nbytes or 0) - self.positions_nbytes) / numbers if numbers else 0.0


@dataclass(frozen=True)
class Account:
    """All of a file, or of a plan that has no file yet.

    Args:
        path: of the file or recipe.
        stage: dense, converted, finetuned, exported; ``plan`` for a recipe.
        model: its name.
        rows: they add up to the model.
        header_nbytes: bytes of the file before the tensors; None for a plan.
        file_nbytes: of the whole file; None for a plan.
        results: measured figures the file carries.
        index_nbytes: of a coded file: what it says of itself, deflated; elsewhere that is in the header.
        records_nbytes: of a coded file: how its numbers are coded, code tables included.
        budget: of the exported file in bytes, where a plan was made for one; then bytes are what is expected.
    """

    path: str
    stage: str
    model: str
    rows: tuple[Row, ...]
    header_nbytes: int | None = None
    file_nbytes: int | None = None
    results: Mapping[str, Any] | None = None
    index_nbytes: int = 0
    records_nbytes: int = 0
    budget: int | None = None

    @property
    def nbytes(self) -> int | None:
        """Of the whole file, or what a budget is expected to come to."""
        if self.budget is None:
            return self.file_nbytes
        return sum(self.overhead.values()) + sum(row.nbytes or 0 for row in self.rows)

    @property
    def overhead(self) -> dict[str, int]:
        """Bytes of the file that hold no number, by what they are."""
        parts = {"header": self.header_nbytes or 0, "index": self.index_nbytes, "code records": self.records_nbytes}
        return {name: nbytes for name, nbytes in parts.items() if nbytes}

    @property
    def dense_numel(self) -> int:
        """Numbers of the dense model as it runs in evaluation."""
        return sum(row.dense_numel for row in self.rows)

    @property
    def numel(self) -> int:
        """Numbers stored."""
        return sum(row.numel for row in self.rows)

    @property
    def dense_nbytes(self) -> int:
        """The dense model's numbers in fp32, four bytes each."""
        return 4 * self.dense_numel

    @property
    def same_dtype_nbytes(self) -> int | None:
        """The dense model's numbers, each as wide as the stored numbers of its row."""
        if self.file_nbytes is None:
            return None
        return round(sum(row.dense_numel * row.width for row in self.rows))

    @property
    def dense_macs(self) -> int | None:
        """Multiply–accumulates of one image through the dense weights."""
        return _total([row.dense_macs for row in self.rows if row.shape and row.dense_numel])

    @property
    def macs(self) -> int | None:
        """The same as executed."""
        return _total([row.macs for row in self.rows if row.shape and row.dense_numel])

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        totals = ("dense_numel", "numel", "dense_nbytes", "same_dtype_nbytes", "dense_macs", "macs")
        return asdict(self) | {key: getattr(self, key) for key in totals}


def _total(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def standing_for(run: Sequence[str]) -> str:
    """The remark on a block."""
    return f"stands for {run[0]} … {run[-1]}" if len(run) > 1 else "stands for the layer"


def account_of_file(path: str | Path) -> Account:
    """Account for every byte of a file.

    Raises:
        FileError: it is not a whole file of ours.
    """
    return account_of(read_header(path))


def with_measured(account: Account, source: Account) -> Account:
    """An account with what was measured of the file that it came from, where it does not say so itself."""
    before = {row.name: row for row in source.rows}
    rows = [
        replace(row, error=before[row.name].error, output_error=before[row.name].output_error)
        if row.name in before and row.error is None
        else row
        for row in account.rows
    ]
    return replace(account, rows=tuple(rows), results=account.results or source.results)


def account_of(header: Header) -> Account:
    """Account for every byte of a file whose header is read.

    Raises:
        FileError: its metadata is damaged.
    """
    try:
        return _account_of(header)
    except (LookupError, TypeError, AttributeError, ValueError):
        raise damaged(header.path) from None


def _account_of(header: Header) -> Account:
    meta = header.meta
    spans = dict(header.spans)
    results = meta.get("results", {})
    errors = results.get("projection_errors", {}), results.get("output_errors", {})
    auxiliary = {item["name"].split(".")[0] for item in meta["plan"] if item.get("remark") == AUXILIARY}
    rows = [_layer_row(item, spans, *errors) for item in meta["plan"] if item.get("remark") != AUXILIARY]
    aux_spans = [spans.pop(name) for name in list(spans) if name.split(".")[0] in auxiliary]
    biases = [
        spans.pop(name)
        for name in list(spans)
        if name.endswith((".bias", ".in_proj_bias")) and len(spans[name].shape) == 1
    ]
    rows += _group("biases", biases)
    rows += _group("norm layers and others", list(spans.values()))
    rows += _group("auxiliary heads", aux_spans, credit=False, remark=AUXILIARY)
    account = Account(
        str(header.path),
        str(meta["stage"]),
        (meta.get("model") or {}).get("name", "a module"),
        tuple(rows),
        header.nbytes,
        header.file_nbytes,
        meta.get("results"),
        header.index_nbytes,
        len(header.records),
    )
    counted = sum(account.overhead.values()) + sum(row.nbytes or 0 for row in rows)
    assert counted == header.file_nbytes, f"{counted} bytes counted, {header.file_nbytes} in the file"
    return account


def _layer_row(
    item: Mapping[str, Any], spans: dict[str, Span], errors: Mapping[str, float], outputs: Mapping[str, float]
) -> Row:
    name, method = item["name"], item.get("method")
    if "block" in item:
        return _block_row(item, spans, outputs.get(name))
    dense = f"{name}_weight" if item["kind"] == "attention" else f"{name}.weight"
    own = [key for key in spans if key.startswith(f"{name}.structured.")] if method else [dense]
    parts = [spans.pop(key) for key in own]
    return Row(
        name,
        method or "dense",
        tuple(item["shape"]),
        math.prod(item.get("dense_shape") or item["shape"]),
        sum(part.numel for part in parts),
        sum(part.nbytes for part in parts),
        item.get("dense_macs"),
        item.get("macs"),
        errors.get(name),
        item.get("remark"),
        outputs.get(name),
        sum(part.nbytes for part in parts if part.dtype == "U8"),
        item.get("bits"),
    )


def _block_row(item: Mapping[str, Any], spans: dict[str, Span], output_error: float | None) -> Row:
    parts = [spans.pop(key) for key in list(spans) if key.startswith(f"{item['name']}.")]
    return Row(
        item["name"],
        item["block"],
        tuple(item["shape"]),
        int(item["dense_numel"]),
        sum(part.numel for part in parts),
        sum(part.nbytes for part in parts),
        item.get("dense_macs"),
        item.get("macs"),
        None,
        standing_for(item["run"]),
        output_error,
    )


def _group(name: str, spans: list[Span], credit: bool = True, remark: str | None = None) -> list[Row]:
    numel = sum(span.numel for span in spans)
    nbytes = sum(span.nbytes for span in spans)
    return [Row(name, "", (), numel if credit else 0, numel, nbytes, remark=remark)] if spans else []
