"""Spelling documents spell right, and never spell a held-out word."""

from __future__ import annotations

import itertools
import re

from picollm.data.primer import spelling, words
from picollm.tools.calculator import calculate


def documents(num: int) -> list[str]:
    return list(itertools.islice(spelling.documents(seed=4), num))


def test_documents_are_a_function_of_the_seed() -> None:
    first = documents(50)
    assert first == documents(50)
    assert first != list(itertools.islice(spelling.documents(seed=5), 50))
    assert len(set(first)) == 50


def test_every_spelled_line_is_right() -> None:
    spelled = re.findall(r"^([a-z]+): (\w(?:,\w)+)$", "\n".join(documents(400)), re.MULTILINE)
    assert len(spelled) > 1000
    assert all(",".join(word) == letters for word, letters in spelled)


def test_every_count_is_what_the_calculator_says() -> None:
    stated = re.findall(r'("\w+"\.count\("\w"\)) (?:is|=) (\d+)', "\n".join(documents(1500)))
    assert len(stated) > 100
    assert all(calculate(call) == count for call, count in stated)


def test_no_held_out_word_is_spelled() -> None:
    letters = set(re.findall(r"\w(?:,\w)+", "\n".join(documents(3000))))
    held_out = {",".join(word) for split in ("validation", "test") for word in words.words(split)}
    assert letters and not letters & held_out


def test_the_two_forms() -> None:
    assert spelling.spell("apple") == "apple: a,p,p,l,e"
    assert calculate(spelling.count_call("strawberry", "r")) == "3"
