"""What a weight costs by its number of weights, as a picture of what ``files --only growth`` has measured.

pip install matplotlib && python -m tests.benchmarks.speed.plot FILE.json docs/results/growth.svg
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

MARKERS = "osD^v"
POINT = re.compile(r"(.+), (\d+) M")


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """A line an operation, and beside them dashed ones of slope 1: so many nanoseconds a weight."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "compressnet"  # the same rows give the same file
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if found := POINT.fullmatch(row["what"]):
            lines.setdefault(found[1], []).append((int(found[2]), row["ours"]))
    for (what, points), marker in zip(lines.items(), MARKERS, strict=False):
        axes.plot(*zip(*points, strict=True), marker=marker, label=what, linewidth=1)
    sizes = [size for points in lines.values() for size, _ in points]
    ends = min(sizes), max(sizes)
    for nanoseconds in (1, 10):
        line = [1e-3 * nanoseconds * end for end in ends]
        label = "slope 1: 1 and 10 ns a weight" if nanoseconds == 1 else None
        axes.plot(ends, line, linestyle="--", color="grey", linewidth=1, label=label)
    axes.set(xscale="log", yscale="log", xlabel="weights, millions", ylabel="time, seconds")
    axes.set_xticks(sorted(set(sizes)))
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.grid(linewidth=0.3)
    axes.legend(fontsize="small", loc="upper left")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    plot(json.loads(Path(sys.argv[1]).read_text())["growth"], Path(sys.argv[2]))
