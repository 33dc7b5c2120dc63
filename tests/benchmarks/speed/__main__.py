"""Speed and memory, row by row beside what is asked of them.

    python -m tests.benchmarks.speed [GROUP …] [--only TEXT] [--threads N] [-o FILE.json]

Competitors take turns within one run; a figure is the median, the noise half the distance between the quartiles over
it. Groups stand in files of their own, with the functions whose names begin with ``measure``, which give rows. A file
that is there keeps the rows of what is not measured again.
"""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

import torch

from tests.benchmarks.speed.measure import Row, table

GROUPS = ("products", "steps", "files")


def keep(path: Path, measurement: str, rows: list[Row]) -> None:
    """Write the rows of a measurement into a file, in the place of those that it has of it."""
    results = json.loads(path.read_text()) if path.exists() else {}
    results[measurement] = [row.to_json() for row in rows]
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("groups", nargs="*", metavar="|".join(GROUPS), help="all by default")
    parser.add_argument("--only", default="", help="measurements whose name has this in it")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    if unknown := set(asked.groups) - set(GROUPS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    torch.set_num_threads(asked.threads)
    torch.empty(31 << 20, dtype=torch.uint8)  # once freed, glibc keeps smaller ones: no page faults in what is measured
    print(f"torch {torch.__version__}, {asked.threads} threads, {os.cpu_count()} CPU cores")
    for group in asked.groups or GROUPS:
        module = importlib.import_module(f"tests.benchmarks.speed.{group}")
        for name in (name for name in vars(module) if name.startswith("measure_") and asked.only in name):
            rows: list[Row] = []
            for row in getattr(module, name)():
                rows.append(row)
                print(f"{name.removeprefix('measure_')}: {row.what}", file=sys.stderr)
            if asked.output:
                keep(asked.output, name.removeprefix("measure_"), rows)
            print(f"\n## {getattr(module, name).__doc__.splitlines()[0]}\n\n{table(rows)}", flush=True)
