"""How long the command line takes to answer, against starting Python and against importing torch.

    python tests/benchmarks/startup.py [FILE.safetensors]

Competitors take turns; figures are medians of 15 starts, and the ratio to an empty Python process.
"""

import statistics
import subprocess
import sys
import time

STARTS = 15


def main() -> None:
    """The table."""
    compressnet = [sys.executable, "-m", "compressnet"]
    commands = {
        "python -c ''": [sys.executable, "-c", ""],
        "compressnet --help": [*compressnet, "--help"],
        "compressnet convert --help": [*compressnet, "convert", "--help"],
        **{f"compressnet report {path}": [*compressnet, "report", path] for path in sys.argv[1:2]},
        "python -c 'import torch'": [sys.executable, "-c", "import torch"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(STARTS):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            taken[name].append(time.perf_counter() - began)
    least = statistics.median(taken["python -c ''"])
    print("| what | seconds | ratio |\n|---|---|---|")
    for name, seconds in taken.items():
        middle = statistics.median(seconds)
        print(f"| {name} | {middle:.3f} | {middle / least:.1f} |")


if __name__ == "__main__":
    main()
