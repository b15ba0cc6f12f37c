"""Duplicates found by hashing against duplicates found by comparing every row with every other."""

from __future__ import annotations

import itertools
import random

import numpy as np

from picollm.data.check.duplicates import THRESHOLD, exact_twins, near_twins, signatures
from picollm.data.check.words import hash_words


def texts() -> list[str]:
    """Return random sentences, each followed by copies with more and more of its words changed."""
    rng = random.Random(7)
    words = [f"w{number}" for number in range(2000)]
    made = []
    for _ in range(30):
        sentence = rng.choices(words, k=rng.randint(60, 200))
        made.append(" ".join(sentence))
        for num_changes in (1, 2, 4, 12):
            copy = list(sentence)
            for place in rng.sample(range(len(copy)), num_changes):
                copy[place] = rng.choice(words)
            made.append(" ".join(copy))
    rng.shuffle(made)
    return made


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def jaccard(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other)


def test_near_twins_are_those_that_a_comparison_of_all_pairs_finds() -> None:
    made = texts()
    sets = [shingles(text) for text in made]
    found = {twin.row: twin for twin in near_twins(signatures([hash_words(text) for text in made]))}
    similar: dict[int, float] = {}
    for earlier, later in itertools.combinations(range(len(made)), 2):
        similar[later] = max(similar.get(later, 0), jaccard(sets[earlier], sets[later]))
    sure = {row for row, similarity in similar.items() if similarity >= THRESHOLD + 0.1}
    possible = {row for row, similarity in similar.items() if similarity >= THRESHOLD - 0.2}
    assert len(sure) > 20 and sure <= found.keys() <= possible
    for twin in found.values():
        assert twin.of < twin.row
        assert abs(twin.similarity - jaccard(sets[twin.of], sets[twin.row])) < 0.2


def test_the_estimate_follows_the_true_overlap() -> None:
    made = texts()[:60]
    rows = signatures([hash_words(text) for text in made]).view(np.uint16)
    sets = [shingles(text) for text in made]
    errors = [
        (rows[one] == rows[other]).mean() - jaccard(sets[one], sets[other])
        for one, other in itertools.combinations(range(len(made)), 2)
    ]
    assert abs(np.mean(errors)) < 0.01


def test_texts_shorter_than_a_shingle_and_texts_without_words() -> None:
    rows = signatures([hash_words(text) for text in ("Hi", "hi!", "hi there", "...", "?")])
    assert [(twin.row, twin.of) for twin in near_twins(rows)] == [(1, 0), (4, 3)]
    assert len(near_twins(signatures([]))) == 0


def test_exact_twins_name_the_first_of_their_kind() -> None:
    keys = np.random.default_rng(0).integers(0, 50, 200, np.uint64)
    first: dict[int, int] = {}
    slow = []
    for row, key in enumerate(keys.tolist()):
        if first.setdefault(key, row) != row:
            slow.append((row, first[key], 1.0))
    assert exact_twins(keys) == slow
