"""A training run that is asked to stop."""

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
                    if self.steps == 0:
                        os.kill(os.getpid(), self.number)

            yield advance

        return counting()
