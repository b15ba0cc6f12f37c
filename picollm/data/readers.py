"""Readers of single data files: parquet, JSON lines, one JSON value, text; gzip-ed or not.

A reader knows where each row is and reads it when asked for, so a file costs twelve bytes a row of memory
(parquet: one row group), not its size. Only a JSON list has to be held whole. Readers can be sent to another
process, which opens the file for itself.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from picollm.errors import DataError
from picollm.paths import disk_errors

Row = dict[str, Any]
SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".txt", ".txt.gz")
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BLOCK_BYTES = 1 << 18
_ROWS_AHEAD = 64  # rows of a parquet file that are decoded together when they are read in order


class Source(Protocol):
    """Anything that holds rows by position."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def __getitem__(self, index: int) -> Row:
        """Return one row."""


def open_file(path: Path) -> Source:
    """Return the rows of one file; its name says of what kind it is.

    Raises:
        DataError: The file is empty, truncated, not what its name says, or of an unknown kind.
    """
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"{path} is of no known kind; expected a name ending in {', '.join(SUFFIXES)}.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); expected rows. Fetch or write it again.")
    source = Table(path) if path.name.endswith(".parquet") else _open_text(path)
    if len(source) == 0:
        raise DataError(f"{path} has no rows; expected at least one.")
    return source


def _open_text(path: Path) -> Source:
    text = Text(path)
    head = text.read(0, 1 << 16)
    if head.startswith(_UTF16):
        raise DataError(f"{path} is UTF-16; expected UTF-8. Save it as UTF-8.")
    if path.name.removesuffix(".gz").endswith(".txt"):
        return Lines(text, _text_row)
    if _is_one_value(head.removeprefix(_BOM).lstrip(), path):
        return _json_value(text.read(0, text.size).removeprefix(_BOM), path)
    return Lines(text, _json_row)


def _is_one_value(head: bytes, path: Path) -> bool:
    """Return whether a file is a single JSON value, a list of rows or one row over several lines."""
    first, _, others = head.partition(b"\n")
    if not others.strip():
        return head[:1] == b"["
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return head[:1] == b"[" or (path.name.removesuffix(".gz").endswith(".json") and first.strip() == b"{")
    return False


class Text:
    """The bytes of a file, unpacked where it is gzip-ed; read in any order, by any number of processes."""

    def __init__(self, path: Path) -> None:
        """Open ``path``. Raises DataError when it is no gzip stream although it is called one, or a part."""
        self.path = path
        self._open()

    def _open(self) -> None:
        # A gzip stream cannot be entered in the middle: it is unpacked once, to a file without a name.
        self._file = _unpacked(self.path) if self.path.name.endswith(".gz") else _opened(self.path)
        self.size = os.fstat(self._file).st_size
        weakref.finalize(self, os.close, self._file)

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.path = path
        self._open()

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from ``start`` up to ``end``, or to the end of the file."""
        pieces = []
        while start < end and (piece := os.pread(self._file, end - start, start)):
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)

    def blocks(self) -> Iterator[bytes]:
        """Yield all bytes, a quarter of a mebibyte at a time."""
        for start in range(0, self.size, _BLOCK_BYTES):
            yield self.read(start, start + _BLOCK_BYTES)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}. Check the path, or --data-root.") from error


def _unpacked(path: Path) -> int:
    with disk_errors(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as unpacked:
        try:
            with gzip.open(path) as packed:
                while block := packed.read(_BLOCK_BYTES):
                    unpacked.write(block)
        except EOFError as error:
            raise DataError(
                f"{path} ends in the middle of its gzip stream; it was cut short. Fetch it again."
            ) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path} is damaged or no gzip file ({error}); fetch it again.") from error
        unpacked.flush()
        return os.dup(unpacked.fileno())


class Table:
    """The rows of a parquet file; one row group of it at a time is in memory."""

    def __init__(self, path: Path) -> None:
        """Open ``path``. Raises DataError when it is no whole parquet file."""
        self._path = path
        self._open()

    def _open(self) -> None:
        import pyarrow
        import pyarrow.parquet

        try:
            self._file = pyarrow.parquet.ParquetFile(self._path)
        except (pyarrow.ArrowException, OSError) as error:
            raise self._damaged(error) from error
        about = self._file.metadata
        sizes = [about.row_group(number).num_rows for number in range(about.num_row_groups)]
        self._ends = np.cumsum([0, *sizes])[1:]
        self._group: tuple[int, Any] | None = None
        self._ahead: tuple[int, list[Row]] = (0, [])

    def __getstate__(self) -> Path:
        return self._path

    def __setstate__(self, path: Path) -> None:
        self._path = path
        self._open()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Row:
        start, rows = self._ahead
        if not start <= index < start + len(rows):
            count = _ROWS_AHEAD if index == start + len(rows) else 1  # in order, or here and there
            start, rows = self._ahead = (index, self._decoded(index, count))
        return rows[index - start]

    def column(self, name: str) -> list[Any] | None:
        """Return one value of every row, or None where there is no such column."""
        if name not in self._file.schema_arrow.names:
            return None
        values: list[Any] = self._file.read([name], use_threads=False).column(0).to_pylist()
        return values

    def _decoded(self, index: int, count: int) -> list[Row]:
        which = int(np.searchsorted(self._ends, index, side="right"))
        if self._group is None or self._group[0] != which:
            import pyarrow

            try:
                self._group = (which, self._file.read_row_group(which, use_threads=False))
            except (pyarrow.ArrowException, OSError) as error:
                raise self._damaged(error, f", row {index}") from error
        start = int(self._ends[which - 1]) if which else 0
        rows: list[Row] = self._group[1].slice(index - start, count).to_pylist()
        return rows

    def _damaged(self, error: Exception, where: str = "") -> DataError:
        reason = str(error).splitlines()[0]
        return DataError(f"{self._path}{where} is damaged or no parquet file ({reason}); fetch it again.")


class Lines:
    """The non-blank lines of a UTF-8 text, each decoded by ``row_of``; a final newline and CRLF are fine."""

    def __init__(self, text: Text, row_of: Callable[[str], Row]) -> None:
        self._text, self._row_of = text, row_of
        self._starts, self._lengths = _lines(text)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Row:
        start = int(self._starts[index])
        try:
            line = self._text.read(start, start + int(self._lengths[index])).decode("utf-8")
            return self._row_of(line.rstrip("\r"))
        except UnicodeDecodeError as error:
            reason = f"byte {error.start} of it is not UTF-8 ({error.reason})"
        except _RowError as error:
            reason = str(error)
        number = self._text.read(0, start).count(b"\n") + 1
        raise DataError(f"{self._text.path}, row {index} (line {number}): {reason}.")


def _lines(text: Text) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Return where each line starts that holds more than white space, and how long it is."""
    filling = np.ones(256, np.bool_)
    filling[list(b" \t\n\r\x0b\x0c")] = False
    starts, lengths = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
    position, line, filled = 0, 0, 0  # filled: how much of the line begun at ``line`` is no white space
    for block in text.blocks():
        data = np.frombuffer(block, np.uint8)
        if position == 0 and block.startswith(_BOM):
            line, data, position = len(_BOM), data[len(_BOM) :], len(_BOM)
        breaks = np.flatnonzero(data == ord("\n"))
        so_far = np.concatenate(([0], np.cumsum(filling[data])))
        begins = np.concatenate(([line], position + breaks + 1))
        marks = so_far[np.concatenate((breaks, [len(data)]))]
        counts = np.diff(marks, prepend=-filled)
        kept = counts[:-1] > 0
        starts.append(begins[:-1][kept])
        lengths.append((position + breaks - begins[:-1])[kept].astype(np.int32))
        line, filled, position = int(begins[-1]), int(counts[-1]), position + len(data)
    if filled:
        starts.append(np.array([line]))
        lengths.append(np.array([position - line], np.int32))
    return np.concatenate(starts), np.concatenate(lengths)


class _RowError(ValueError):
    """What is wrong with the text of one row."""


def _text_row(text: str) -> Row:
    return {"text": text}


def _json_row(text: str) -> Row:
    try:
        row = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise _RowError(f"no valid JSON at column {error.colno} ({error.msg})") from error
    except RecursionError as error:
        raise _RowError("the JSON is nested too deeply") from error
    return _row_of(row)


def _row_of(value: Any) -> Row:
    """Return a JSON value as a row; a bare list is the messages of a conversation."""
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return {"messages": value}
    if not isinstance(value, dict):
        raise _RowError(f"expected a JSON object, not {type(value).__name__}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _RowError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return row


def _json_value(data: bytes, path: Path) -> list[Row]:
    try:
        value = json.loads(data, object_pairs_hook=_unique)
    except (_RowError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is no valid JSON list: {error}.") from error
    if not isinstance(value, list) or (value and all(isinstance(v, dict) and "role" in v for v in value)):
        return [_row_of(value)]  # one row, or the messages of one conversation
    rows = []
    for index, each in enumerate(value):
        try:
            rows.append(_row_of(each))
        except _RowError as error:
            raise DataError(f"{path}, row {index}: {error}.") from error
    return rows
