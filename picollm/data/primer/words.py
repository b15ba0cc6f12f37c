"""The package's own list of English words, and pseudo-words made from their pieces.

A word belongs to one split forever: to ``train`` where ``words.txt`` marks it as taught, otherwise by a hash
of its letters. The words of ``validation`` and ``test`` are never spelled out in a training text.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from picollm.data.primer.wordings import check_split

_FILE = Path(__file__).with_name("words.txt")
_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"


def split_of(key: str) -> str:
    """Return the split that ``key`` belongs to: 80 % ``train``, 5 % ``validation``, 15 % ``test``.

    A pure function of the text, the same on every machine and for every seed.
    """
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 20
    return "train" if bucket < 16 else "validation" if bucket == 16 else "test"


@cache
def all_words() -> dict[str, bool]:
    """Return every word of the list in alphabetical order, 3 to 10 letters each, and whether it is taught."""
    lines = [
        line.split() for line in _FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    return {line[0]: line[1:] == ["taught"] for line in lines}


@cache
def words(split: str) -> tuple[str, ...]:
    """Return the words of ``split`` in alphabetical order.

    Raises:
        InputError: for a split that is not train, validation or test.
    """
    check_split(split)
    return tuple(
        word for word, taught in all_words().items() if split == ("train" if taught else split_of(word))
    )


def pseudo_word(rng: Random) -> str:
    """Return a pronounceable string of 3 to 10 letters that is no word of the list.

    Most join the head of one word and the tail of another, at most 5 letters of each and never all of
    them, so that every piece a tokenizer cuts words into is spelled in training while held-out words are not.
    The rest are built from syllables.
    """
    while True:
        if rng.random() < 0.85:
            head, tail = rng.choice(_list()), rng.choice(_list())
            made = (
                head[: rng.randint(2, min(5, len(head) - 1))] + tail[-rng.randint(2, min(5, len(tail) - 1)) :]
            )
        else:
            made = "".join(_syllable(rng) for _ in range(rng.randint(1, 3)))
        if 3 <= len(made) <= 10 and made not in all_words():
            return made


def rows(split: str, seed: int = 0, limit: int | None = None) -> list[dict[str, Any]]:
    """Return ``{"word": ...}`` rows in an order that follows from ``seed``.

    ``train`` mixes the training words with equally many pseudo-words; the other splits hold real words only.

    Raises:
        InputError: for an unknown split.
    """
    rng = Random(f"words/{split}/{seed}")
    chosen = list(words(split))
    if split == "train":
        chosen += sorted({pseudo_word(rng) for _ in chosen})
    rng.shuffle(chosen)
    return [{"word": word} for word in chosen[:limit]]


def _syllable(rng: Random) -> str:
    return (
        rng.choice(_CONSONANTS)
        + rng.choice(_VOWELS)
        + (rng.choice(_CONSONANTS) if rng.random() < 0.5 else "")
    )


@cache
def _list() -> tuple[str, ...]:
    return tuple(all_words())
