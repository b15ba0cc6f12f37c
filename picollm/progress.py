"""How library code tells a person what it is doing, without printing.

Functions that take longer than a few seconds accept a ``Progress``; the command line hands in one that draws
bars on stderr, and everything else uses ``SILENT``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """One running piece of work."""

    def advance(self, amount: float = 1.0, **figures: float | str) -> None:
        """Add ``amount`` units of work done; ``figures`` (loss, tokens_per_s, ...) replace those shown."""


class Progress(Protocol):
    """A place that shows bars and single lines."""

    def bar(self, title: str, total: float | None, unit: str) -> AbstractContextManager[Bar]:
        """Return a context that shows a bar while it is open; ``total`` counts ``unit``, None: unknown."""

    def note(self, line: str) -> None:
        """Show one line that stays."""


class _SilentBar:
    def advance(self, amount: float = 1.0, **figures: float | str) -> None:
        return


class _Silent:
    @contextmanager
    def bar(self, title: str, total: float | None, unit: str) -> Iterator[Bar]:
        yield _SilentBar()

    def note(self, line: str) -> None:
        return


SILENT: Progress = _Silent()
