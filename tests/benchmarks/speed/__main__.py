"""Speed and memory, row by row beside what is asked of them.

    python -m tests.benchmarks.speed [GROUP …] [--only TEXT] [--threads N] [-o FILE.json] [--device cpu --tiny]

Competitors take turns within one run; a figure is the median, the noise half the distance between the quartiles over
it. Groups stand in files of their own, with the functions whose names begin with ``measure``, which give rows. What
fails is said, and the rest is measured. A file that is there keeps the rows of what is not measured again. The group
``cuda`` is left out where there is no CUDA device; with ``--device cpu --tiny`` it is tried out.
"""

import argparse
import importlib
import json
import os
import sys
import traceback
from pathlib import Path

import torch

from tests.benchmarks.speed.measure import Row, table

GROUPS = ("products", "steps", "files", "cuda")


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
    parser.add_argument("--device", default="cuda", help="of the group cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes of the group cuda that only try it out")
    asked = parser.parse_args()
    if unknown := set(asked.groups) - set(GROUPS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    groups = list(asked.groups or GROUPS)
    if "cuda" in groups and asked.device == "cuda" and not torch.cuda.is_available():
        if asked.groups:
            parser.error("cuda: this machine has no CUDA device; --device cpu --tiny tries the group out")
        print("cuda: left out, this machine has no CUDA device")
        groups.remove("cuda")
    torch.set_num_threads(asked.threads)
    torch.empty(31 << 20, dtype=torch.uint8)  # once freed, glibc keeps smaller ones: no page faults in what is measured
    print(f"torch {torch.__version__}, {asked.threads} threads, {os.cpu_count()} CPU cores")
    failed, names = 0, list[str]()
    for group in groups:
        module = importlib.import_module(f"tests.benchmarks.speed.{group}")
        if group == "cuda":
            module.prepare(torch.device(asked.device), asked.tiny)
        own = [name for name in vars(module) if name.startswith("measure_")]
        names += own
        for name in (name for name in own if asked.only in name):
            measurement, rows = name.removeprefix("measure_"), list[Row]()
            print(f"\n## {getattr(module, name).__doc__.splitlines()[0]}\n", flush=True)
            try:
                for row in getattr(module, name)():
                    rows.append(row)
                    print(f"{measurement}: {row.what}", file=sys.stderr)
            except Exception:
                failed = 1
                traceback.print_exc()
            print(table(rows), flush=True)
            if asked.output:
                keep(asked.output, measurement, rows)
    if not any(asked.only in name for name in names):
        known = ", ".join(name.removeprefix("measure_") for name in names)
        parser.error(f"--only {asked.only}: none of these has that in its name: {known}")
    sys.exit(failed)
