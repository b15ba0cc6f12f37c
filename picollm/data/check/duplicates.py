"""Rows that are there twice, exactly or nearly.

Near duplicates are conversations whose sets of five-word sequences overlap by ``THRESHOLD`` (Jaccard). The
overlap is estimated by MinHash (Broder 1997) with 64 hash functions, the low 16 bits of each (Li and König
2010), and only rows that agree in one of 16 bands of four are compared at all: a pair that overlaps by 0.8
does so with a probability of 0.9998. The estimate has a standard deviation of 0.05.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from picollm.data.check.words import Hashes, ngrams_within

THRESHOLD = 0.8
NUM_BANDS = 16
_SHINGLE_WORDS = 5
_BAND_ROWS = 4
# Odd numbers: multiplying 64-bit integers by one is a permutation of them.
_FACTORS = np.random.default_rng(2010).integers(0, 2**63, NUM_BANDS * _BAND_ROWS, np.uint64) * 2 + 1

Signatures = npt.NDArray[np.uint64]


class Twin(NamedTuple):
    """Row ``row`` repeats the earlier row ``of``; ``similarity`` is 1 for an exact copy."""

    row: int
    of: int
    similarity: float


def signatures(documents: Sequence[Hashes]) -> Signatures:
    """Return MinHash signatures ``[N, NUM_BANDS]`` of documents given as hashed words; a number is a band."""
    if not documents:
        return np.empty((0, NUM_BANDS), np.uint64)
    long_enough = [_padded(document) for document in documents]
    shingles, counts = ngrams_within(long_enough, _SHINGLE_WORDS)
    starts = np.cumsum(counts) - counts
    smallest = np.empty((len(documents), len(_FACTORS)), np.uint16)
    for column, factor in enumerate(_FACTORS):
        smallest[:, column] = np.minimum.reduceat(shingles * factor, starts).astype(np.uint16)
    return smallest.view(np.uint64)


def _padded(words: Hashes) -> Hashes:
    """Return ``words`` with room for one shingle at least."""
    missing = _SHINGLE_WORDS - len(words)
    return np.concatenate((words, np.zeros(missing, np.uint64))) if missing > 0 else words


def exact_twins(keys: Hashes) -> list[Twin]:
    """Return each position of ``keys`` that repeats an earlier one, with the first of its kind."""
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[which] != np.arange(len(keys)))
    return [Twin(int(row), int(first[which[row]]), 1.0) for row in repeated]


def near_twins(rows: Signatures) -> list[Twin]:
    """Return each row whose estimated similarity with an earlier row is at least ``THRESHOLD``.

    Inside a bucket a row is compared with the first row of the bucket and with its neighbor, not with all.
    """
    values = np.ascontiguousarray(rows).view(np.uint16)
    best = np.zeros(len(rows))
    of = np.full(len(rows), -1, np.int64)
    for band in range(rows.shape[1]):
        order = np.argsort(rows[:, band], kind="stable")  # rows of one bucket stay in their order
        keys = rows[order, band]
        starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))[: len(keys)])
        first = np.repeat(order[starts], np.diff(np.append(starts, len(order))))
        shared = np.flatnonzero(order != first)
        for earlier in (first[shared], order[shared - 1]):
            later = order[shared]
            similarity = (values[later] == values[earlier]).mean(axis=1)
            better = (similarity >= THRESHOLD) & (similarity > best[later])
            best[later[better]], of[later[better]] = similarity[better], earlier[better]
    return [Twin(int(row), int(of[row]), float(best[row])) for row in np.flatnonzero(of >= 0)]
