"""What a long task tells whoever watches: the command line draws it, a library call stays silent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[..., None]


class Progress:
    """The silent watcher; the command line overrides both methods to draw on stderr."""

    @contextmanager
    def task(self, title: str, total: int | None = None) -> Iterator[Advance]:
        """A task of ``total`` steps; the yielded ``advance(steps=1, **fields)`` counts and shows figures."""
        yield lambda steps=1, **fields: None

    def note(self, message: str) -> None:
        """A line that stays."""


SILENT = Progress()
