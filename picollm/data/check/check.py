"""Check data sets of conversations: open, examine row by row, compare rows, report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from picollm.chat.adapters import LAYOUTS, recognize
from picollm.chat.format import ChatFormat
from picollm.data.check.counts import Counts
from picollm.data.check.examiner import Chunk, Examiner
from picollm.data.check.gathered import Gathered
from picollm.data.check.overlap import EvaluationTexts
from picollm.data.check.places import Places
from picollm.data.check.report import Report
from picollm.data.readers import Row
from picollm.data.rows import HUB, Rows, find_files, load_rows
from picollm.data.workers import in_order
from picollm.errors import ConversationError, DataError, InputError
from picollm.progress import SILENT, Progress

_CHUNK_ROWS = 256
_ROWS_FOR_WORKERS = 4096  # below this, starting a process takes longer than what it saves


def open_sets(locations: Sequence[str | Path]) -> list[Rows]:
    """Return the rows of every file at ``locations``: files, directories (all their files), Hub data sets.

    Raises:
        DataError: A file is missing, or damaged as a whole.
        UnavailableError: The Hub cannot be reached.
    """
    sets = []
    for location in locations:
        is_directory = not str(location).startswith(HUB) and Path(location).is_dir()
        sets += [load_rows(file) for file in (find_files(Path(location)) if is_directory else [location])]
    return sets


def check(
    sets: Sequence[Rows],
    fmt: ChatFormat,
    *,
    limit: int | None = None,
    against: Sequence[Rows] = (),
    layout: str | None = None,
    examples: int = 5,
    workers: int = 1,
    progress: Progress = SILENT,
) -> Report:
    """Return what is wrong with the conversations of ``sets``, as ``fmt`` renders them.

    ``limit`` is the most tokens a conversation may have in training; ``against`` are evaluation sets that
    must not occur in the data. ``layout`` is how rows are written, one of ``LAYOUTS``; without it each file's
    first row tells. Of each kind of problem the first ``examples`` places are reported.

    Raises:
        InputError: A number is out of range.
        DataError: A row of an evaluation set cannot be read.
        UnavailableError: A worker process was killed.
    """
    for name, value, least in (("limit", limit, 1), ("examples", examples, 0), ("workers", workers, 1)):
        if value is not None and value < least:
            raise InputError(f"{name} is {value}; expected at least {least}.")
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"no layout is called {layout!r}; expected one of {', '.join(LAYOUTS)}.")
    layouts = [layout or _layout(rows) for rows in sets]
    evaluation = EvaluationTexts(against)
    num_rows = sum(map(len, sets))
    gathered = Gathered(Places.of(sets), examples)
    with progress.bar("checking conversations", num_rows, "rows") as bar:
        examiner = Examiner(fmt, limit, evaluation)
        chunks = in_order(
            examiner.examine, _chunks(sets, layouts), workers if num_rows >= _ROWS_FOR_WORKERS else 1
        )
        for examined in chunks:
            gathered.add(examined)
            bar.advance(sum(counts.rows for counts in examined.sources.values()))
    gathered.compare_rows()
    total = Counts()
    for counts in gathered.sources.values():
        total.add(counts)
    return Report(
        files=[
            {"file": rows.name, "rows": len(rows), "sha256": rows.digest, "layout": name}
            for rows, name in zip(sets, layouts, strict=True)
        ],
        format={"name": fmt.name, "fingerprint": fmt.fingerprint},
        limit=limit,
        total=total,
        lengths=gathered.lengths(),
        sources=gathered.sources,
        problems=gathered.problems(),
        overlaps=gathered.overlaps(evaluation),
    )


def _layout(rows: Rows) -> str:
    """Return the layout of the first row, ``messages`` where it is in none that is known."""
    first = _read(rows, 0) if len(rows) else ""
    try:
        return recognize(first)
    except ConversationError:
        return "messages"


def _chunks(sets: Sequence[Rows], layouts: Sequence[str]) -> Iterator[Chunk]:
    number = 0
    for rows, layout in zip(sets, layouts, strict=True):
        for start in range(0, len(rows), _CHUNK_ROWS):
            end = min(start + _CHUNK_ROWS, len(rows))
            read = [_read(rows, index) for index in range(start, end)]
            yield Chunk(number + start, rows.name, read, layout)
        number += len(rows)


def _read(rows: Rows, index: int) -> Row | str:
    """Return one row, or what is wrong with it."""
    try:
        return rows[index]
    except DataError as error:
        return str(error).removeprefix(f"{rows.where(index)}: ")
