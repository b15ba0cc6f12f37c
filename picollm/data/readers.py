"""Readers of single data files: parquet, JSON lines, one JSON value, text; gzip-ed or not.

A reader knows where each row is and reads it when asked for, so a file costs sixteen bytes a row of memory
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
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from picollm.errors import DataError
from picollm.paths import disk_errors

Row = dict[str, Any]
SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".txt", ".txt.gz")
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BLOCK_BYTES = 1 << 18
MAX_ROW_BYTES = 1 << 26  # a longer line is a file of another kind, or damage
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
    if text.read(0, 2) in _UTF16:
        raise DataError(f"{path} is UTF-16; expected UTF-8. Save it as UTF-8.")
    if path.name.removesuffix(".gz").endswith(".txt"):
        return Lines(text, _text_row)
    lines = Lines(text, _json_row)
    if _is_one_value(lines, path):
        return _json_value(text.read(0, text.size).removeprefix(_BOM), path)
    return lines


def _is_one_value(lines: Lines, path: Path) -> bool:
    """Return whether a file is a single JSON value, a list of rows or one row over several lines."""
    is_json = path.name.removesuffix(".gz").endswith(".json")
    if not len(lines) or (lines.num_bytes(0) > MAX_ROW_BYTES and not is_json):
        return False
    first = lines.raw(0).strip()
    if len(lines) == 1:
        return first[:1] == b"["
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return first[:1] == b"[" or (is_json and first == b"{")
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

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from ``start`` up to ``end``, a quarter of a mebibyte at a time."""
        end = self.size if end is None else end
        for place in range(start, end, _BLOCK_BYTES):
            yield self.read(place, min(place + _BLOCK_BYTES, end))


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
        starts, sizes = _lines(text)
        self._starts, self._sizes = np.frombuffer(starts, np.int64), np.frombuffer(sizes, np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    def num_bytes(self, index: int) -> int:
        """Return how long one line is."""
        return int(self._sizes[index])

    def raw(self, index: int) -> bytes:
        """Return the bytes of one line."""
        start = int(self._starts[index])
        return self._text.read(start, start + self.num_bytes(index))

    def __getitem__(self, index: int) -> Row:
        try:
            if self.num_bytes(index) > MAX_ROW_BYTES:
                raise _RowError(f"{self.num_bytes(index):,} bytes; a row holds at most {MAX_ROW_BYTES:,}")
            return self._row_of(self.raw(index).decode("utf-8").rstrip("\r"))
        except UnicodeDecodeError as error:
            reason = f"byte {error.start} of it is not UTF-8 ({error.reason})"
        except _RowError as error:
            reason = str(error)
        before = self._text.blocks(0, int(self._starts[index]))
        number = sum(block.count(b"\n") for block in before) + 1
        raise DataError(f"{self._text.path}, row {index}: line {number}, {reason}.")


def _lines(text: Text) -> tuple[array[int], array[int]]:
    """Return where each line starts that holds more than white space, and how many bytes it has."""
    starts, sizes = array("q"), array("q")
    begin = position = len(_BOM) if text.read(0, len(_BOM)) == _BOM else 0
    filled = False  # whether the line begun at ``begin`` holds more than white space
    for block in text.blocks(position):
        for number, piece in enumerate(block.split(b"\n")):
            if number:  # a line ends before every piece but the first
                if filled:
                    starts.append(begin)
                    sizes.append(position - begin)
                position += 1
                begin, filled = position, False
            filled = filled or (piece != b"" and not piece.isspace())
            position += len(piece)
    if filled:
        starts.append(begin)
        sizes.append(position - begin)
    return starts, sizes


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
