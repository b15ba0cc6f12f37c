"""Text as hashed words: what duplicates and overlaps are looked for in.

Case, punctuation and white space do not count. Chinese and Japanese characters are words of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from zlib import crc32

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

_IDEOGRAM = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_IDEOGRAM}]|[^\W{_IDEOGRAM}]+")
_ASCII = bytes(code if chr(code).isalnum() or code == ord("_") else ord(" ") for code in range(128)).lower()
_ASCII += bytes(128)  # translate() wants 256 entries; only ASCII text is translated

_BASE = np.uint64(0x9E3779B97F4A7C15)


def split_words(text: str) -> list[bytes]:
    """Return the words of ``text``, case-folded, as UTF-8."""
    if text.isascii():
        return text.encode("ascii").translate(_ASCII).split()
    return [word.encode("utf-8") for word in _WORD.findall(text.casefold())]


def hash_words(text: str) -> Hashes:
    """Return a 32-bit hash for each word of ``text``, the same on every machine and in every process."""
    words = split_words(text)
    return np.fromiter(map(crc32, words), np.uint64, len(words))


def ngrams(words: Hashes, n: int) -> Hashes:
    """Return the 64-bit hash of every ``n`` neighboring words: ``len(words) - n + 1`` of them, or none."""
    size = max(0, len(words) - n + 1)
    total = np.zeros(size, np.uint64)
    for offset in range(n):
        total = total * _BASE + words[offset : offset + size]
    return _mixed(total)


def ngrams_within(documents: Sequence[Hashes], n: int) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Return the n-grams of all ``documents``, none across two of them, and how many each document has."""
    flat = np.concatenate(documents) if documents else np.empty(0, np.uint64)
    lengths = np.array([len(document) for document in documents], np.int64)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    within = owner[: max(0, len(flat) - n + 1)] == owner[n - 1 :]
    return ngrams(flat, n)[within], np.maximum(lengths - n + 1, 0)


def hash_text(words: Hashes) -> int:
    """Return one 64-bit hash of a whole sequence of words."""
    return int.from_bytes(blake2b(words.tobytes(), digest_size=8).digest(), "little")


def _mixed(values: Hashes) -> Hashes:
    """Return ``values`` with every bit of each depending on all of its bits (the end of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
