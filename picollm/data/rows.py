"""Rows of data sets: local files, directories in the published Hugging Face layout, or the Hub.

A row is a dictionary. Rows are read by position and decoded when asked for, so a data set costs its compact
form in memory. Whatever is wrong with a file is reported with the file and the row (counted from 0).
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from picollm.data.readers import SUFFIXES, Row, Source, open_file
from picollm.errors import DataError, InputError, UnavailableError

T = TypeVar("T")
HUB = "hub:"
_COMMIT = re.compile("[0-9a-f]{40}")
Filter = Mapping[str, Any]


class Rows(Sequence[Row]):
    """A data set, or a selection of its rows.

    Attributes:
        name: Where the rows come from, as errors and records name it.
        digest: sha256 of the file (of several files, sha256 over theirs, in order), or the Hub revision.
        files: sha256 of each file by path, of the Hub's as far as it tells them; empty for generated rows.
        steps: How many rows were left after each step of choosing: ``{"all": 9000, "filter": 800}``.
    """

    def __init__(
        self,
        source: Source,
        name: str,
        digest: str,
        files: dict[str, str] | None = None,
        indices: Sequence[int] | npt.NDArray[np.int64] | None = None,
        steps: dict[str, int] | None = None,
    ) -> None:
        self.name, self.digest, self.files = name, digest, files or {}
        self._source = source
        self._indices = range(len(source)) if indices is None else indices
        self.steps = steps or {"all": len(self._indices)}
        self._last: tuple[int, Row] | None = None

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Row | Rows:
        if isinstance(index, slice):
            return self._selected(self._indices[index])
        place = int(self._indices[index])
        if self._last is None or self._last[0] != place:  # a task reads several fields of a row in turn
            self._last = (place, self._source[place])
        return self._last[1]

    def __iter__(self) -> Iterator[Row]:
        return (self._source[int(index)] for index in self._indices)

    def select(self, indices: Sequence[int] | npt.NDArray[np.int64], step: str | None = None) -> Rows:
        """Return these rows at ``indices``, in that order, without copying any; ``step`` says what it is."""
        chosen = np.asarray(indices, np.int64)
        return self._selected(np.asarray(self._indices, np.int64)[chosen], step)

    def limited(self, limit: int | None) -> Rows:
        """Return the first ``limit`` rows, or all of them."""
        return self if limit is None else self._selected(self._indices[:limit], "limit")

    def filtered(self, wanted: Filter, *, may_be_empty: bool = False) -> Rows:
        """Return the rows whose columns have the values in ``wanted``: one value, or one of a list.

        Raises:
            DataError: A row has no such column, or no row is left (unless that ``may_be_empty``); the text
                names values that are there.
        """
        if not wanted:
            return self
        kept = np.ones(len(self), np.bool_)
        for column, value in wanted.items():
            options = value if isinstance(value, list | tuple) else [value]
            values = self._column(column)
            kept &= np.fromiter((each in options for each in values), np.bool_, len(self))
            if not kept.any() and not may_be_empty:
                known = ", ".join(sorted({f"{each!r:.40}" for each in values})[:8])
                raise DataError(f"{self.name}: no row has {column} = {value!r:.80}; it has {known}.")
        return self.select(np.flatnonzero(kept), "filter")

    def _column(self, name: str) -> list[Any]:
        read = getattr(self._source, "column", None)  # a parquet file reads one column without the others
        values = read(name) if read is not None else None
        if values is not None:
            return [values[int(place)] for place in self._indices]
        return [self.field(index, name, object) for index in range(len(self))]

    def _selected(self, places: Sequence[int] | npt.NDArray[np.int64], step: str | None = None) -> Rows:
        steps = {**self.steps, step: len(places)} if step else self.steps
        return Rows(self._source, self.name, self.digest, self.files, places, steps)

    def where(self, index: int) -> str:
        """Return the name of one row for an error message: ``train.parquet, row 31007``."""
        return f"{self.name}, row {self.place(index)}"

    def place(self, index: int) -> int:
        """Return which row of the file one row is, whatever was left out before it."""
        return int(self._indices[index])

    def field(self, index: int, key: str, kind: type[T]) -> T:
        """Return ``self[index][key]``.

        Raises:
            DataError: The row has no such key, or its value is not a ``kind``.
        """
        row = self[index]
        if key not in row:
            raise DataError(f"{self.where(index)} has no {key!r}; its keys are {', '.join(map(repr, row))}.")
        value = row[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise DataError(f"{self.where(index)}: {key!r} is {value!r:.60}; expected {kind.__name__}.")
        return value


def rows_of(rows: Sequence[Row], name: str) -> Rows:
    """Return generated ``rows`` as ``Rows``; the digest is that of their JSON."""
    text = "\n".join(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows)
    return Rows(list(rows), name, hashlib.sha256(text.encode()).hexdigest())


def load_rows(
    location: str | Path | Sequence[str | Path], *, split: str | None = None, limit: int | None = None
) -> Rows:
    """Return the rows at ``location``: a file, a directory, files, or ``hub:org/name[/config]@revision``.

    Files are parquet, JSON lines, a JSON list, or text (one row ``{"text": line}`` per line), the last three
    also gzip-ed. In a directory ``split`` picks ``<split>.parquet`` or the shards ``<split>-*.parquet`` (or
    another of the suffixes), there or below ``data/``; without it every data file is read, in order of name.
    ``limit`` keeps the first rows only.

    Raises:
        DataError: A file is missing, empty, truncated or not what its name says.
        InputError: A Hub location without a revision.
        UnavailableError: The Hub cannot be reached, or has no such data set.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; expected at least 1 row, or no limit.")
    if isinstance(location, str) and location.startswith(HUB):
        rows = _load_hub(location, split or "train")
    elif isinstance(location, (str, Path)):
        path = Path(location)
        rows = _load_files(find_files(path, split) if path.is_dir() else [path], str(location), split)
    else:
        paths = [Path(path) for path in location]
        if not paths:
            raise InputError("no data files were given; expected at least one.")
        rows = _load_files(paths, str(paths[0].parent), split)
    return rows.limited(limit)


def find_files(directory: Path, split: str | None = None) -> list[Path]:
    """Return the data files of ``split`` in ``directory``, sorted by name.

    Raises:
        DataError: There is none; the text says which splits there are.
    """
    found = sorted(p for p in [*directory.glob("*"), *directory.glob("data/*")] if p.name.endswith(SUFFIXES))
    wanted = [path for path in found if split is None or _split(path) == split]
    if not wanted:
        has = ", ".join(sorted({_split(path) for path in found})) or "no data files"
        raise DataError(f"{directory} has no {split or 'data'} files; it has {has}.")
    return wanted


def split_names(location: str | Path) -> set[str]:
    """Return the splits at ``location``, a directory or Hub data set; none for a file, which is one whole.

    Raises:
        UnavailableError: The Hub cannot be reached, or has no such data set.
    """
    if str(location).startswith(HUB):
        repository, config, revision = _hub_parts(str(location))
        with _hub_errors(str(location)):
            import datasets

            return set(datasets.get_dataset_split_names(repository, config, revision=revision))
    path = Path(location)
    return {_split(file) for file in find_files(path)} if path.is_dir() else set()


def _split(path: Path) -> str:
    """Return the split in a file name: ``train`` for ``train.parquet`` and ``train-00000-of-00002.jsonl``."""
    return path.name.split(".")[0].split("-")[0]


def _load_files(paths: Sequence[Path], name: str, split: str | None) -> Rows:
    files = {str(path): file_sha256(path) for path in paths}
    sources = [open_file(path) for path in paths]
    if len(paths) == 1:
        return Rows(sources[0], str(paths[0]), next(iter(files.values())), files)
    digest = hashlib.sha256("".join(files.values()).encode()).hexdigest()
    return Rows(_Chain(sources), f"{name} ({split})" if split else name, digest, files)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits; raise DataError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}. Check the path, or --data-root.") from error


class _Chain:
    """Several sources, one after the other."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._ends = list(itertools.accumulate(len(source) for source in sources))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Row:
        which = bisect.bisect_right(self._ends, index)
        return self._sources[which][index - (self._ends[which - 1] if which else 0)]


def _load_hub(location: str, split: str) -> Rows:
    """Return the rows of a Hub data set, which stays in the cache of the ``datasets`` library."""
    repository, config, revision = _hub_parts(location)
    with _hub_errors(f"{location} (split {split})"):
        import datasets

        loaded = datasets.load_dataset(repository, config, split=split, revision=revision)
    # Without a network the library takes what it has of the set, be it of another revision.
    if any(revision not in Path(file["filename"]).parts for file in loaded.cache_files):
        raise UnavailableError(
            f"{location} cannot be fetched, and what lies in the cache is another revision. Go online once, "
            "or pass --data-root with local files."
        )
    return Rows(loaded, location, revision, _hub_files(repository, revision))


def _hub_files(repository: str, revision: str) -> dict[str, str]:
    """Return the hashes that the Hub tells of the set's data files; none when it cannot be asked.

    The revision alone pins them all. The hashes say which file differs, also after a copy to a disk.
    """
    import huggingface_hub

    try:
        about = huggingface_hub.HfApi().dataset_info(
            repository, revision=revision, files_metadata=True, timeout=20
        )
    except Exception:  # offline, or not allowed: the rows themselves have been loaded
        return {}
    found = {}
    for file in about.siblings or []:
        if file.rfilename.endswith(SUFFIXES):
            found[file.rfilename] = file.lfs.sha256 if file.lfs else f"git:{file.blob_id}"
    return found


def _hub_parts(location: str) -> tuple[str, str | None, str]:
    """Return repository, configuration (or None) and revision."""
    name, _, revision = location.removeprefix(HUB).partition("@")
    parts = name.split("/")
    if not _COMMIT.fullmatch(revision) or len(parts) not in (2, 3) or not all(parts):
        raise InputError(
            f"{location!r} is no pinned data set; expected hub:org/name@revision or "
            "hub:org/name/config@revision, the revision being a commit of its page (40 hexadecimal digits; "
            "a branch or a tag may move)."
        )
    return "/".join(parts[:2]), parts[2] if len(parts) == 3 else None, revision


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of many kinds: connection, HTTP status, schema, split
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnavailableError(
            f"cannot load {what}: {reason} - check name, split and revision, go online, or pass --data-root "
            "with local files."
        ) from error
