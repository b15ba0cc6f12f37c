"""Words to spell from a plain word list, such as the published ``words_alpha.txt``."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

from picollm.data.primer.words import split_of
from picollm.data.rows import Rows, load_rows
from picollm.errors import DataError

MIN_WORDS = 10
_SPELLABLE = re.compile(r"[a-z]{3,10}")


def load_words(location: str | Path, split: str, *, seed: int = 0) -> Rows:
    """Return the words of ``split`` in a list, one per line, as rows ``{"text": word}``, shuffled.

    Only words of 3 to 10 lower-case letters a-z are taken. A word is in the same split here as in the primer.

    Raises:
        DataError: The list holds too few such words to learn or to measure spelling.
    """
    rows = load_rows(location)
    taken = [
        index
        for index, row in enumerate(rows)
        if _SPELLABLE.fullmatch(row.get("text", "")) and split_of(row["text"]) == split
    ]
    if len(taken) < MIN_WORDS:
        raise DataError(
            f"{rows.name} has {len(taken)} words of 3 to 10 letters a-z for the {split} split; "
            f"expected at least {MIN_WORDS}. Give a longer list, one word per line."
        )
    Random(f"words/{split}/{seed}").shuffle(taken)
    return rows.select(taken, f"{split}, 3 to 10 letters")
