"""Rows counted through several files, and which file each is in."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from picollm.data.rows import Rows


@dataclass(frozen=True)
class Places:
    """Files one after the other: file ``i`` ends before row ``ends[i]``."""

    names: tuple[str, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, sets: Sequence[Rows]) -> Places:
        """Return the places of all rows of ``sets``."""
        return cls(tuple(rows.name for rows in sets), tuple(accumulate(map(len, sets))))

    def file_and_row(self, number: int) -> tuple[str, int]:
        """Return the file of row ``number`` and which row of that file it is."""
        which = bisect.bisect_right(self.ends, number)
        return self.names[which], number - (self.ends[which - 1] if which else 0)

    def where(self, number: int) -> str:
        """Return the name of row ``number``: ``test.parquet, row 12``."""
        file, row = self.file_and_row(number)
        return f"{file}, row {row}"
