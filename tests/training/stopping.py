"""A training run that is asked to stop, or just ends."""

import os
from contextlib import contextmanager
from typing import Any

from compressnet.progress import Progress


class StopAfter(Progress):
    """Sends this process a signal after some training steps."""

    def __init__(self, steps: int, number: int) -> None:
        self.steps, self.number = steps, number

    def task(self, title: str, total: int | None = None) -> Any:
        @contextmanager
        def counting() -> Any:
            def advance(steps: int = 1, **fields: Any) -> None:
                if "images_per_s" in fields:
                    self.steps -= 1
                    self.count()

            yield advance

        return counting()

    def count(self) -> None:
        if self.steps == 0:
            os.kill(os.getpid(), self.number)


class Died(Exception):  # noqa: N818 - as told to
    """The run is gone."""


class DieAfter(StopAfter):
    """Ends a run some training steps, and what is saved after them, from its start, as if its process were gone."""

    def __init__(self, steps: int) -> None:
        super().__init__(steps, 0)

    def task(self, title: str, total: int | None = None) -> Any:
        if self.steps <= 0:
            raise Died
        return super().task(title, total)

    def count(self) -> None:
        if self.steps < 0:
            raise Died
