"""Readers of single data files: parquet, JSON lines, a JSON list, text; gzip-ed or not.

Each reader holds the compact form of a file (Arrow columns, or its bytes) and decodes one row at a time.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from picollm.errors import DataError

Row = dict[str, Any]
SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".txt", ".txt.gz")
_BOM = b"\xef\xbb\xbf"


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
    data = _decompressed(path)
    if path.name.removesuffix(".gz").endswith(".txt"):
        return Lines(data, path, lambda text: {"text": text})
    if data.lstrip()[:1] == b"[":
        return _json_list(data, path)
    return Lines(data, path, _json_row)


def _decompressed(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name.endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except EOFError as error:
            raise DataError(f"{path} ends in the middle of its gzip stream; fetch it again.") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path} is damaged or no gzip file ({error}); fetch it again.") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path} is UTF-16; expected UTF-8. Save it as UTF-8.")
    return data.removeprefix(_BOM)


class Table:
    """The rows of a parquet file, kept as Arrow columns."""

    def __init__(self, path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                self._batches = list(file.iter_batches())
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{path} is damaged or no parquet file ({reason}); fetch it again.") from error
        self._ends = np.cumsum([batch.num_rows for batch in self._batches])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Row:
        which = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[which - 1]) if which else 0
        row: Row = self._batches[which].slice(index - start, 1).to_pylist()[0]
        return row


class Lines:
    """The non-blank lines of a UTF-8 text, each decoded by ``row_of``; a final newline and CRLF are fine."""

    def __init__(self, data: bytes, path: Path, row_of: Callable[[str], Row]) -> None:
        self._data, self._path, self._row_of = data, path, row_of
        breaks = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n"))
        starts = np.concatenate(([0], breaks + 1))
        ends = np.concatenate((breaks, [len(data)]))
        filled = [bool(data[start:end].strip()) for start, end in zip(starts, ends, strict=True)]
        self._starts, self._ends = starts[filled], ends[filled]

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Row:
        start, end = int(self._starts[index]), int(self._ends[index])
        try:
            return self._row_of(self._data[start:end].decode("utf-8").rstrip("\r"))
        except UnicodeDecodeError as error:
            reason = f"byte {error.start} of it is not UTF-8 ({error.reason})"
        except _RowError as error:
            reason = str(error)
        line = self._data.count(b"\n", 0, start) + 1
        raise DataError(f"{self._path}, row {index} (line {line}): {reason}.")


class _RowError(ValueError):
    """What is wrong with the text of one row."""


def _json_row(text: str) -> Row:
    try:
        row = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise _RowError(f"no valid JSON at column {error.colno} ({error.msg})") from error
    except RecursionError as error:
        raise _RowError("the JSON is nested too deeply") from error
    if not isinstance(row, dict):
        raise _RowError(f"expected a JSON object, not {type(row).__name__}")
    return row


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _RowError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return row


def _json_list(data: bytes, path: Path) -> list[Row]:
    try:
        rows = json.loads(data, object_pairs_hook=_unique)
    except (_RowError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is no valid JSON list: {error}.") from error
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {index}: expected a JSON object, not {type(row).__name__}.")
    return list(rows)
