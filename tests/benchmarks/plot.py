"""Test error against stored numbers, as a picture of what ``accuracy.py`` has measured.

pip install matplotlib && python tests/benchmarks/plot.py scratch.json error.svg
"""

import json
import sys
from pathlib import Path

MARKERS = "osD^vPX*<>"


def plot(rows: list[dict[str, float | str]], path: Path) -> None:
    """A line a form, through its numbers; the dense net as a dashed line."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "compressnet"  # the same rows give the same file
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    forms = [name for name in dict.fromkeys(row["form"] for row in rows) if name != "dense"]
    for form, marker in zip(forms, MARKERS, strict=False):
        points = sorted((row["stored numbers"], row["error %"]) for row in rows if row["form"] == form)
        axes.plot(*zip(*points, strict=True), marker=marker, label=form, linewidth=1)
    for row in rows:
        if row["form"] == "dense":
            axes.axhline(float(row["error %"]), linestyle="--", color="grey", linewidth=1, label="dense")
    axes.set(xscale="log", yscale="log", xlabel="stored numbers", ylabel="test error, %")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:,g}")
        axis.set_minor_locator(mpl.ticker.NullLocator())
    axes.grid(linewidth=0.3)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    plot(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
