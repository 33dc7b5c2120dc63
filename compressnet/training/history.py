"""``metrics.jsonl``: a line for each stage and epoch; and the same in words."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compressnet.output import replacing
from compressnet.training import distributed


def write_history(
    folder: Path,
    before: Mapping[str, Any] | None,
    stages: Mapping[str, Mapping[str, Any]],
    epochs: Sequence[Mapping[str, Any]],
) -> None:
    """Write the history of a run anew; of several processes, the first does.

    Args:
        folder: of the run.
        before: on the val part, as the model came: epoch 0.
        stages: the same after each stage before the first epoch, by name.
        epochs: a record each.

    Raises:
        FileError: it cannot be written.
    """
    if distributed.rank():
        return
    prepared = [{"epoch": 0, "stage": name, "val": val} for name, val in stages.items()]
    lines = map(json.dumps, [{"epoch": 0, "val": before}, *prepared, *epochs])
    with replacing(folder / "metrics.jsonl", force=True) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines))


def in_words(record: Mapping[str, Any], val: object) -> str:
    """An epoch in a line.

    Args:
        record: its line of the history.
        val: how it does on the val part, in words.

    >>> in_words({"epoch": 3, "loss": 0.25, "top1": 91, "skipped": 2, "entropy_nbytes": 5000.4}, "88.50 %")
    'epoch 3: loss 0.2500, train 91.00 %, val 88.50 %, symbols of 5,000 bytes, 2 steps skipped, as not finite'
    """
    parts = [f"loss {record['loss']:.4f}"]
    if "top1" in record:
        parts.append(f"train {record['top1']:.2f} %")
    parts.append(f"val {val}")
    if "entropy_nbytes" in record:
        parts.append(f"symbols of {record['entropy_nbytes']:,.0f} bytes")
    if record["skipped"]:
        parts.append(f"{record['skipped']} steps skipped, as not finite")
    return f"epoch {record['epoch']}: {', '.join(parts)}"
