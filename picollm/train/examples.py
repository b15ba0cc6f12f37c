"""The training examples of a run, as four flat arrays.

::

    ids      | 7 3 9 4 | 7 8 8 | 7 5 2 6 6 |      every example's tokens, one after the other
    mask     | 0 0 1 1 | 0 1 1 | 0 1 1 1 1 |      1 where the token is to be predicted
    offsets  0         4       7           12     example i is ids[offsets[i]:offsets[i + 1]]
    source      chat      gsm8k     chat          where it came from,
    row         0         0         1             and which row it was there: a message must name it
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from picollm.errors import InputError

Int64s = npt.NDArray[np.int64]


class Rendered(Protocol):
    """What a chat format renders: token ids, and one 0 or 1 per token."""

    @property
    def ids(self) -> Sequence[int]:
        """The token ids."""

    @property
    def loss_mask(self) -> Sequence[int]:
        """1 where the token is supervised, else 0."""


class _Growing:
    """A numpy array that grows at its end, in amortised constant time."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._room: npt.NDArray[np.generic] = np.empty(1024, dtype)
        self._size = 0

    def extend(self, values: Sequence[int]) -> None:
        end = self._size + len(values)
        if end > len(self._room):
            room = np.empty(max(end, len(self._room) * 3 // 2), self._room.dtype)
            room[: self._size] = self._room[: self._size]
            self._room = room
        self._room[self._size : end] = values
        self._size = end

    def view(self) -> npt.NDArray[np.generic]:
        return self._room[: self._size]


class Examples:
    """Rendered documents and conversations: five bytes a token, and one source name each.

    Tokens after the last supervised one are no target and help to predict none, so they are not stored.
    """

    def __init__(self) -> None:
        self.sources: list[str] = []
        self.num_without_targets = 0
        self._ids = _Growing(np.int32)
        self._mask = _Growing(np.bool_)
        self._offsets = _Growing(np.int64)
        self._targets = _Growing(np.int32)
        self._source = _Growing(np.int32)
        self._row = _Growing(np.int32)
        self._offsets.extend([0])

    def append(self, rendered: Rendered, source: str = "", row: int | None = None) -> bool:
        """Return True when ``rendered`` was added, False (and count it) when no token of it is supervised.

        The first token is never a target: nothing stands before it. ``row`` is its place in its source; left
        out, its place among these examples.
        """
        mask = np.asarray(rendered.loss_mask, np.bool_)
        if len(mask) != len(rendered.ids):
            raise InputError(
                f"an example of {source or 'the data'} has {len(rendered.ids)} ids but {len(mask)} mask bits."
            )
        targets = np.flatnonzero(mask[1:])
        if not len(targets):
            self.num_without_targets += 1
            return False
        end = int(targets[-1]) + 2
        self._ids.extend(rendered.ids[:end])
        self._mask.extend(mask[:end])  # type: ignore[arg-type]
        self._offsets.extend([self.num_tokens])
        self._row.extend([len(self) if row is None else row])
        self._targets.extend([len(targets)])
        if source not in self.sources:
            self.sources.append(source)
        self._source.extend([self.sources.index(source)])
        return True

    def __len__(self) -> int:
        return len(self._targets.view())

    @property
    def num_tokens(self) -> int:
        """All stored tokens."""
        return len(self._ids.view())

    def num_targets_of(self, indices: Int64s) -> int:
        """Return how many tokens of the examples ``indices`` are supervised."""
        return int(self._targets.view()[indices].sum())

    @property
    def costs(self) -> Int64s:
        """How many positions each example takes in a batch: all but the last token, only a target."""
        return np.diff(self._offsets.view()).astype(np.int64) - 1

    def ids(self, index: int) -> npt.NDArray[np.int32]:
        """Return the token ids of one example."""
        start, end = self._offsets.view()[index : index + 2]
        return self._ids.view()[start:end]  # type: ignore[return-value]

    def mask(self, index: int) -> npt.NDArray[np.bool_]:
        """Return for each token of one example whether it is supervised."""
        start, end = self._offsets.view()[index : index + 2]
        return self._mask.view()[start:end]  # type: ignore[return-value]

    def source(self, index: int) -> str:
        """Return where one example came from."""
        return self.sources[int(self._source.view()[index])]

    def row(self, index: int) -> int:
        """Return which row of its source one example was, counted from 0."""
        return int(self._row.view()[index])

    def of_source(self, source: str) -> Int64s:
        """Return the indices of the examples of ``source``."""
        return np.flatnonzero(self._source.view() == self.sources.index(source)).astype(np.int64)

    @property
    def digest(self) -> str:
        """The SHA-256 over everything that training can see: tokens, mask and borders."""
        total = hashlib.sha256()
        for array in (self._ids, self._mask, self._offsets):
            total.update(np.ascontiguousarray(array.view()).data)
        return total.hexdigest()
