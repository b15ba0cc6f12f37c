"""Training examples that lie in files: a run holds their index in memory, and reads a batch when it is due.

::

    ids.bin     int32 token ids of one example after the other       index.npz   length, number of targets
    mask.bin    one byte per token: is it supervised?                            and row of every example
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from picollm.train.examples import Examples, Int64s

Int32s = npt.NDArray[np.int32]
IDS, MASK, INDEX = "ids.bin", "mask.bin", "index.npz"
_BLOCK_BYTES = 1 << 20
_INDEXED = ("lengths", "targets", "rows")


class Block(NamedTuple):
    """Examples as bytes, on their way from where they were rendered to a file."""

    ids: bytes
    mask: bytes
    lengths: Int32s
    targets: Int32s
    rows: Int32s

    @classmethod
    def of(cls, examples: Examples) -> Block:
        """Return all of ``examples``."""
        lengths = (examples.costs + 1).astype(np.int32)
        targets, rows = (np.array(x.view(), np.int32) for x in (examples._targets, examples._row))
        ids = np.ascontiguousarray(examples._ids.view(), np.int32)
        mask = np.ascontiguousarray(examples._mask.view(), np.bool_)
        return cls(ids.tobytes(), mask.tobytes(), lengths, targets, rows)


class Shard:
    """The files of one source while they are written, a block at a time; closed, they have their index."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ids, self._mask = (directory / IDS).open("wb"), (directory / MASK).open("wb")
        self._index: dict[str, list[Int32s]] = {name: [np.empty(0, np.int32)] for name in _INDEXED}

    def append(self, block: Block) -> None:
        """Write ``block`` behind what is there."""
        self._ids.write(block.ids)
        self._mask.write(block.mask)
        for name, parts in self._index.items():
            parts.append(getattr(block, name))

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, *_: object) -> None:
        self._ids.close()
        self._mask.close()
        with (self._directory / INDEX).open("wb") as file:
            np.savez(file, **{name: np.concatenate(parts) for name, parts in self._index.items()})  # type: ignore[arg-type]


class _OnDisk:
    """Numbers in files, one file after the other, read where a slice asks for them."""

    def __init__(self, paths: Sequence[Path], dtype: npt.DTypeLike) -> None:
        self._paths, self._dtype = paths, np.dtype(dtype)
        self._files = [os.open(path, os.O_RDONLY) for path in paths]
        for file in self._files:
            weakref.finalize(self, os.close, file)
        sizes = [os.fstat(file).st_size // self._dtype.itemsize for file in self._files]
        self._bounds = np.cumsum([0, *sizes])

    def view(self) -> _OnDisk:
        return self

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def __getitem__(self, part: slice) -> npt.NDArray[Any]:
        """Return the numbers of ``part``, which does not cross from one file to the next."""
        which = int(np.searchsorted(self._bounds, part.start, side="right")) - 1
        start, size = int(part.start - self._bounds[which]), self._dtype.itemsize
        data = os.pread(self._files[which], int(part.stop - part.start) * size, start * size)
        return np.frombuffer(data, self._dtype)

    def add_to(self, digest: Any) -> None:
        """Hash everything, a block at a time."""
        for file, (start, end) in zip(self._files, pairwise(self._bounds.tolist()), strict=True):
            for place in range(0, (end - start) * self._dtype.itemsize, _BLOCK_BYTES):
                digest.update(os.pread(file, _BLOCK_BYTES, place))


class StoredExamples(Examples):
    """The examples of several shards, one after the other; equal to the same ones in memory."""

    def __init__(self, shards: Sequence[tuple[str, Path]]) -> None:
        """Open ``shards``: pairs of a source's name and a directory."""
        super().__init__()
        self.bounds = [0]
        for name, directory in shards:
            with np.load(directory / INDEX) as index:
                lengths, targets, rows = (index[name] for name in _INDEXED)
            self._offsets.extend(self._offsets.view()[-1] + np.cumsum(lengths, dtype=np.int64))
            self._targets.extend(targets)
            self._row.extend(rows)
            self.sources.append(name)
            self._source.extend(np.full(len(lengths), len(self.sources) - 1, np.int32))  # type: ignore[arg-type]
            self.bounds.append(len(self))
        places = [directory for _, directory in shards]
        # Both only ever give slices of themselves, which is all that Examples asks of its arrays.
        self._ids = _OnDisk([place / IDS for place in places], np.int32)  # type: ignore[assignment]
        self._mask = _OnDisk([place / MASK for place in places], np.bool_)  # type: ignore[assignment]

    def members(self, number: int) -> Int64s:
        """Return the numbers of the examples of shard ``number``."""
        return np.arange(self.bounds[number], self.bounds[number + 1], dtype=np.int64)

    @property
    def digest(self) -> str:
        """The SHA-256 over everything that training can see, as of examples in memory."""
        total = hashlib.sha256()
        for array in (self._ids, self._mask):
            array.add_to(total)  # type: ignore[attr-defined]
        total.update(np.ascontiguousarray(self._offsets.view()).data)
        return total.hexdigest()
