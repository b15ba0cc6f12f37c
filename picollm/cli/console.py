"""What commands show: tables and bars on stderr for people, one JSON document on stdout for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Column, Table

from picollm.progress import Bar, Progress

console = Console(stderr=True, highlight=False, soft_wrap=True)

LINE_EVERY_S = 15.0  # in a log file or a pipe, a bar becomes one plain line this often


def print_json(document: Any) -> None:
    """Write ``document`` to stdout as exactly one JSON document."""
    json.dump(document, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Show a table on stderr: first column to the left, the others to the right."""
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False
    )
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)


def _figures(figures: dict[str, float | str]) -> str:
    shown = []
    for name, value in figures.items():
        text = value if isinstance(value, str) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
        shown.append(f"{name.replace('_', ' ')} {text}")
    return "  ".join(shown)


class _DrawnBar:
    def __init__(self, drawing: RichProgress, task: TaskID) -> None:
        self._drawing, self._task = drawing, task

    def advance(self, amount: float = 1.0, **figures: float | str) -> None:
        if figures:
            self._drawing.update(self._task, advance=amount, figures=_figures(figures))
        else:
            self._drawing.update(self._task, advance=amount)


class _LineBar:
    """A bar for places that cannot redraw: a plain line every ``LINE_EVERY_S`` seconds."""

    def __init__(self, title: str, total: float | None, unit: str) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done, self._figures = 0.0, ""
        self._start = self._last = time.monotonic()

    def advance(self, amount: float = 1.0, **figures: float | str) -> None:
        self._done += amount
        self._figures = _figures(figures) or self._figures
        if time.monotonic() - max(self._last, ConsoleProgress.last_note) >= LINE_EVERY_S:
            self.show()

    def show(self) -> None:
        self._last = time.monotonic()
        elapsed = self._last - self._start
        line = f"{self._title}: {self._done:,.0f}"
        if self._total:
            remaining = elapsed * (self._total - self._done) / max(self._done, 1e-9)
            line += f"/{self._total:,.0f} {self._unit}  {elapsed:.0f} s, {max(0, remaining):.0f} s left"
        else:
            line += f" {self._unit}  {elapsed:.0f} s"
        console.print(f"{line}  {self._figures}".rstrip(), style="dim", markup=False)


class ConsoleProgress:
    """The ``Progress`` of the command line: live bars on a terminal, plain lines elsewhere."""

    last_note = 0.0  # a line that says how far the work is makes the bar's own line superfluous

    @contextmanager
    def bar(self, title: str, total: float | None, unit: str) -> Iterator[Bar]:
        """Show a bar while the block runs; it stays, with its time, when it is done."""
        if not console.is_terminal:
            line = _LineBar(title, total, unit)
            yield line
            line.show()
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn(
                f"{{task.completed:,.0f}}/{{task.total:,.0f}} {unit}"
                if total
                else f"{{task.completed:,.0f}} {unit}"
            ),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(elapsed_when_finished=False),
            # What is too narrow for all shortens the figures, not the time.
            TextColumn("[dim]{task.fields[figures]}", table_column=Column(ratio=1, no_wrap=True)),
        )
        with RichProgress(*columns, console=console, expand=True) as drawing:
            task = drawing.add_task(title, total=total, figures="")
            yield _DrawnBar(drawing, task)

    def note(self, line: str) -> None:
        """Show one line that stays."""
        ConsoleProgress.last_note = time.monotonic()
        console.print(line, markup=False)


def progress() -> Progress:
    """Return the Progress that draws on this terminal."""
    return ConsoleProgress()
