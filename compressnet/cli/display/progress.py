"""Progress on stderr: bars on a terminal, now and then a line elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from compressnet.cli.display.terminal import console
from compressnet.progress import Advance, Progress

SECONDS = 10.0  # between two lines of a task where there is no terminal

FORMATS = {
    "loss": "loss {:.3f}",
    "top1": "top1 {:.1f}",
    "images_per_s": "{:.0f} img/s",
    "layer": "{}",
    "error": "error {:.3f}",
    "output_error": "of outputs {:.3f}",
    "divergence": "divergence {:.2g}",
    "nbytes": "{:,} bytes",
}


def progress() -> Progress:
    """What suits stderr."""
    return Bars() if console(stderr=True).is_terminal else Lines()


def figures(fields: dict[str, Any]) -> str:
    """What a task shows beside its count.

    >>> figures({"loss": 0.51234, "top1": 93.75, "images_per_s": 812.4})
    'loss 0.512  top1 93.8  812 img/s'
    """
    return "  ".join(FORMATS.get(key, key + " {}").format(value) for key, value in fields.items())


class _Times(ProgressColumn):
    """The time it took and, as far as one can tell, the time that is left."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = "" if task.time_remaining is None else f"<{clock(task.time_remaining)}"
        return Text(f"{clock(task.elapsed or 0)}{left}")


class _Figures(ProgressColumn):
    """The figures, which give way where the terminal is narrow."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["figures"], no_wrap=True, overflow="ellipsis")


class Bars(Progress):
    """Bars that vanish when they are full; notes stay."""

    def __init__(self) -> None:
        self.console = console(stderr=True)

    @contextmanager
    def task(self, title: str, total: int | None = None) -> Iterator[Advance]:
        """A bar with its count, the time it took and may take, and figures."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24 if self.console.width >= 120 else 5, table_column=Column(no_wrap=True)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            _Times(table_column=Column(no_wrap=True)),
            _Figures(),
        )
        with RichProgress(*columns, console=self.console, transient=True) as bars:
            bar = bars.add_task(title, total=total, figures="")

            def advance(steps: int = 1, **fields: Any) -> None:
                bars.update(bar, advance=steps)
                if fields:
                    bars.update(bar, figures=figures(fields))

            yield advance

    def note(self, message: str) -> None:
        """A line that stays."""
        self.console.print(Text(message), soft_wrap=True)


class Lines(Progress):
    """A line when a task begins and ends, and one every ten seconds between."""

    @contextmanager
    def task(self, title: str, total: int | None = None) -> Iterator[Advance]:
        """Lines with the count, the time it took and may take, and figures."""
        began = said = time.monotonic()
        done, skipped, shown = 0, 0, ""

        def standing(seconds: float) -> str:
            left = ""
            if total and skipped < done < total:
                left = f", {clock(seconds * (total - done) / (done - skipped))} left"
            of = "" if total is None else f" of {total}"
            return f"{title}: {done}{of}, {clock(seconds)}{left}{'  ' if shown else ''}{shown}"

        def advance(steps: int = 1, **fields: Any) -> None:
            nonlocal done, skipped, shown, said
            if not fields and not done and steps > 1:
                skipped = steps  # what a resumed run had done before takes no time now
            done, shown, now = done + steps, figures(fields) or shown, time.monotonic()
            if now - said >= SECONDS:
                said = now
                self.note(standing(now - began))

        self.note(f"{title} …")
        yield advance
        self.note(standing(time.monotonic() - began))

    def note(self, message: str) -> None:
        """A line on stderr."""
        print(message, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Minutes and seconds, and hours where there are any.

    >>> clock(7.6), clock(3725)
    ('0:08', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
