"""Two things timed beside each other, and a row that says how they compare with what was asked for."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

Thunk = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Of repetitions of one thing.

    Args:
        median: seconds.
        spread: the distance from the 25th to the 75th percentile over the median, halved: ± of it.
        taken: seconds of each repetition.
    """

    median: float
    spread: float
    taken: tuple[float, ...]

    def over(self, other: "Times") -> float:
        """How many times as long as what took turns with it: the median of single turns, so that drifts fall out."""
        return statistics.median(a / b for a, b in zip(self.taken, other.taken, strict=True))


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Args:
        what: is measured, with its size.
        ours: seconds, or what ``unit`` says.
        other: what it is measured against, likewise; None where the target is absolute.
        ratio: how many times faster ours is (``faster``), or ours over the other.
        faster: whether the ratio is of speed: more is better.
        target: what the ratio, or ours itself without another, is to reach.
        noise: the larger spread of the two.
        unit: of ours and other.
        note: beside it.
    """

    what: str
    ours: float
    other: float | None
    ratio: float
    faster: bool
    target: float | None
    noise: float = 0.0
    unit: str = "s"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        if self.target is None:
            return None
        return self.ratio >= self.target if self.faster else self.ratio <= self.target

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"met": self.met}


def interleaved(
    competitors: dict[str, Thunk],
    repetitions: int = 15,
    seconds: float = 1.0,
    calls: int = 1,
    synchronise: Thunk = lambda: None,
) -> dict[str, Times]:
    """Competitors take turns, repetition by repetition, so that a noisy machine disturbs all of them alike.

    Who begins changes from round to round: caches and clocks remember who was before. There are at least so many
    repetitions, and more for so many seconds; one round before them warms up. A repetition is of so many calls, and
    ends when a device has done them, which ``synchronise`` waits for.
    """
    names, times = list(competitors), {name: list[float]() for name in competitors}
    begin, rounds = time.perf_counter(), 0
    while rounds <= repetitions or time.perf_counter() - begin < seconds:
        for turn in range(len(names)):
            name = names[(rounds + turn) % len(names)]
            synchronise()
            start = time.perf_counter()
            for _ in range(calls):
                competitors[name]()
            synchronise()
            if rounds:
                times[name].append((time.perf_counter() - start) / calls)
        rounds += 1
    return {name: summary(taken) for name, taken in times.items()}


def summary(taken: list[float]) -> Times:
    """The median of repetitions, and how they scatter."""
    low, middle, high = statistics.quantiles(taken, n=4)
    return Times(middle, (high - low) / middle / 2, tuple(taken))


def speedup(what: str, times: dict[str, Times], target: float | None, note: str = "") -> Row:
    """How many times faster ``ours`` is than ``other``."""
    ours, other = times["ours"], times["other"]
    noise = max(ours.spread, other.spread)
    return Row(what, ours.median, other.median, other.over(ours), True, target, noise, note=note)


def cost(what: str, times: dict[str, Times], target: float | None, note: str = "") -> Row:
    """How many times as long ``ours`` takes as ``other``."""
    ours, other = times["ours"], times["other"]
    noise = max(ours.spread, other.spread)
    return Row(what, ours.median, other.median, ours.over(other), False, target, noise, note=note)


def limit(what: str, taken: float, target: float | None, noise: float = 0.0, unit: str = "s", note: str = "") -> Row:
    """An absolute figure that is to stay below its target."""
    return Row(what, taken, None, taken, False, target, noise, unit, note)


def table(rows: Iterable[Row]) -> str:
    """As markdown."""
    lines = ["| what | ours | other | ratio | asked | noise | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        sign = "≥" if row.faster else "≤"
        asked = "" if row.target is None else f"{sign} {row.target:g}"
        verdict = {True: "yes", False: "**no**", None: ""}[row.met]
        other = "" if row.other is None else shown(row.other, row.unit)
        ratio = "" if row.other is None else f"{row.ratio:.3g}×"
        said = " ".join(filter(None, (verdict, row.note)))
        cells = (row.what, shown(row.ours, row.unit), other, ratio, asked, f"±{row.noise:.0%}", said)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown(value: float, unit: str) -> str:
    """A figure in the unit that suits it."""
    if unit != "s":
        return f"{value:.3g} {unit}"
    for factor, name in ((1, "s"), (1e3, "ms")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {name}"
    return f"{value * 1e6:.3g} µs"
