"""What is measured on a text, on texts whose measures a person can see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picollm.data.primer.concepts import concepts
from picollm.eval.properties import (
    count_code_fences,
    count_list_items,
    first_mention,
    nonempty_lines,
    repetition,
    split_sentences,
    topic_words,
    words,
)


@pytest.mark.parametrize(
    ("text", "num"),
    [
        ("", 0),
        ("   \n ", 0),
        ("Paris", 1),
        ("It is Paris.", 1),
        ("One. Two! Three? Four", 4),
        ("Use tools, e.g. a calculator, at 3.5 times. Done.", 2),
        ('She said "Stop!" He left.', 2),
        ("Dr. Lee came. Mr. Poe went.", 2),
        ("- first\n- second\n- third", 3),
        ("1. One thing.\n2. Another thing.", 2),
        ("Look:\n```python\nx = 1. \ny = 2.\n```\nDone.", 2),
        ("Wait... what?!", 2),
        ("A line\nanother line", 2),
    ],
)
def test_sentences_are_counted_as_a_reader_does(text: str, num: int) -> None:
    assert len(split_sentences(text)) == num


def test_the_explanations_of_the_primer_have_the_sentences_they_promise() -> None:
    for concept in concepts():
        for num in range(1, 7):
            assert len(split_sentences(concept.explanation(num))) == num, concept.name


def test_lists_fences_lines_and_words() -> None:
    text = "Items:\n- a\n* b\n  3) c\n-no item\n\n```\n- code\n```\n```\nopen"
    assert (count_list_items(text), count_code_fences(text)) == (3, 2)
    assert nonempty_lines("a\n\n \nb") == ["a", "b"]
    assert words("It's a well-known fact: 3 of 10.") == ["It's", "a", "well-known", "fact", "3", "of", "10"]


def test_topic_words_leave_out_what_only_says_how_to_answer() -> None:
    assert topic_words("Explain self-attention to a beginner in 4 sentences.") == ["self-attention"]
    assert topic_words("Give me a list of 3 facts about the KV cache.") == ["facts", "cache"]


@pytest.mark.parametrize(
    ("text", "wanted", "place"),
    [
        ("Well, tokens are pieces.", ["token"], 6),
        ("It uses attention.", ["self-attention"], None),
        ("It uses Self-Attention.", ["self-attention"], 8),
        ("The answer is 42.", ["42"], 14),
        ("Over and out.", ["Over and out."], 0),
        ("nothing here", ["cache"], None),
        ("", ["cache"], None),
    ],
)
def test_first_mention(text: str, wanted: list[str], place: int | None) -> None:
    assert first_mention(text, wanted) == place


def test_repetition_is_the_share_of_four_grams_seen_before() -> None:
    assert repetition([1, 2, 3, 4, 5, 6]) == 0.0
    assert repetition([1, 2, 3]) == 0.0
    assert repetition([7] * 13) == pytest.approx(9 / 10)


@given(st.text())
def test_any_text_can_be_measured(text: str) -> None:
    assert len(split_sentences(text)) <= len(text)
    assert count_code_fences(text) >= 0 <= count_list_items(text)
    assert first_mention(text, topic_words(text)) is None or topic_words(text)
