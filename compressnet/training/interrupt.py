"""Ctrl-C and SIGTERM ask a loop to stop at the next step; a second one stops at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from compressnet.errors import CompressnetError


class Interrupted(CompressnetError):  # noqa: N818 - nothing went wrong
    """Training was asked to stop; its state is saved.

    Args:
        number: of the signal.
        place: where it stopped.
        cure: how it goes on.
    """

    def __init__(self, number: int, place: str, cure: str = "--resume goes on from there") -> None:
        super().__init__(f"interrupted at {place}", cure=cure)
        self.number, self.place = number, place
        self.exit_code = 128 + number


class StopRequest:
    """The signal that asked to stop, or 0."""

    number = 0


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM while the block runs; outside the main thread nothing is caught."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        if request.number:
            raise KeyboardInterrupt
        request.number = number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
