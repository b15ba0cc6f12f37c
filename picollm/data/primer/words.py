"""The package's own list of English words, and pseudo-words made from their pieces.

A word belongs to one split forever, decided by a hash of its letters: the words of ``validation`` and ``test``
are never spelled out in a training document or conversation.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from picollm.errors import InputError

SPLITS = ("train", "validation", "test")
_FILE = Path(__file__).with_name("words.txt")
_ONSETS = "b bl br c ch cl cr d dr f fl fr g gl gr h j k l m n p pl pr qu r s sh sk sl sm sn sp st str t th tr v w y z"
_VOWELS = "a a a e e e i i o o u ai ea ee ie oa oo ou y"
_CODAS = "b ck ct d f g l ll ld m mp n nd ng nk nt p r rd rk rm rn rt s sh ss st t th x"


def split_of(key: str) -> str:
    """Return the split that ``key`` belongs to: 80 % ``train``, 5 % ``validation``, 15 % ``test``.

    A pure function of the text, the same on every machine and for every seed.
    """
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 20
    return "train" if bucket < 16 else "validation" if bucket == 16 else "test"


@cache
def all_words() -> tuple[str, ...]:
    """Return every word of the list in alphabetical order; 3 to 10 lower-case letters each."""
    return tuple(_FILE.read_text(encoding="utf-8").split())


@cache
def words(split: str) -> tuple[str, ...]:
    """Return the words of ``split`` in alphabetical order.

    Raises:
        InputError: for a split that is not train, validation or test.
    """
    check_split(split)
    return tuple(word for word in all_words() if split_of(word) == split)


def check_split(split: str) -> None:
    """Return nothing for a known split.

    Raises:
        InputError: for any other name.
    """
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r} - the primer has {', '.join(SPLITS)}")


def pseudo_word(rng: Random) -> str:
    """Return a pronounceable string of 3 to 10 letters that is no word of the list.

    Half are the head of one training word and the tail of another, so that every piece a tokenizer cuts words
    into is spelled in training; half are built from syllables.
    """
    while True:
        if rng.random() < 0.5:
            head, tail = rng.choice(words("train")), rng.choice(words("train"))
            made = head[: rng.randint(2, len(head))] + tail[-rng.randint(2, len(tail)) :]
        else:
            made = "".join(_syllable(rng) for _ in range(rng.randint(1, 3)))
        if 3 <= len(made) <= 10 and made not in _known():
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
    coda = rng.choice(_CODAS.split()) if rng.random() < 0.5 else ""
    return rng.choice(_ONSETS.split()) + rng.choice(_VOWELS.split()) + coda


@cache
def _known() -> frozenset[str]:
    return frozenset(all_words())
