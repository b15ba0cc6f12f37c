"""Evaluation rows found by hashes against a search with sets of words."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from picollm.data.check.overlap import GRAM_WORDS, MAX_ROWS, MIN_WORDS, EvaluationTexts
from picollm.data.check.words import hash_words
from picollm.data.rows import rows_of


def words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


def grams(text: str) -> set[tuple[str, ...]]:
    cut = words(text)
    return {cut[i : i + GRAM_WORDS] for i in range(len(cut) - GRAM_WORDS + 1)}


def sentences(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(f"w{rng.randrange(500)}" for _ in range(rng.randint(3, 40))) for _ in range(count)]


def test_the_same_rows_as_a_search_with_sets() -> None:
    questions, talks, rng = sentences(1, 80), sentences(2, 200), random.Random(3)
    for index in range(0, 200, 3):  # every third conversation quotes a piece of a question
        quoted = rng.choice(questions).split()
        start, end = sorted(rng.choices(range(len(quoted) + 1), k=2))
        talks[index] += " " + " ".join(quoted[start:end])
    talks[1] = questions[0].upper() + "!"
    evaluation = EvaluationTexts([rows_of([{"question": text} for text in questions], "questions")])
    matches = evaluation.matches([[hash_words("hello"), hash_words(talk)] for talk in talks])

    said = set().union(*map(grams, talks))
    shared = {row for row, text in enumerate(questions) if grams(text) & said}
    equal = {row for row, text in enumerate(questions) if words(text) in set(map(words, talks))}
    assert shared and 0 in equal
    (overlap,) = evaluation.overlaps([matches])
    assert (overlap.rows, overlap.whole, overlap.texts, overlap.grams) == (80, 0, len(equal), len(shared))
    assert overlap.found == len(shared | equal)

    asked = set().union(*map(grams, questions))
    assert set(matches.first) == {n for n, talk in enumerate(talks) if grams(talk) & asked or n == 1}
    for number, match in matches.first.items():
        assert match.message == 1
        if match.word is not None:
            quote = words(talks[number])[match.word : match.word + GRAM_WORDS]
            assert quote in grams(questions[match.row])


def talk(question: str, answer: str) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
    }


@pytest.mark.parametrize(
    ("row", "message", "expected"),
    [
        (talk("Hi", "Hello."), ["hi!", "hello"], (1, 0, 0)),  # short, but the whole conversation
        (talk("Hi", "Hello."), ["hi", "goodbye"], (0, 0, 0)),
        ({"question": "one two three four five six seven", "choices": ["a"]}, [], (0, 0, 0)),
        ({"q": {"deep": ["1 2 3 4 5 6 7 8"]}}, ["x", "1 2 3 4 5 6 7 8"], (0, 1, 0)),
        ({"q": "1 2 3 4 5 6 7 8 9 10 11 12 13"}, ["0 1 2 3 4 5 6 7 8 9 10 11 12 13 14"], (0, 0, 1)),
        ({"id": 5}, ["..."], (0, 0, 0)),  # no words are not the same words
    ],
)
def test_what_counts_as_overlap(
    row: dict[str, Any], message: list[str], expected: tuple[int, int, int]
) -> None:
    evaluation = EvaluationTexts([rows_of([row], "set")])
    (overlap,) = evaluation.overlaps([evaluation.matches([[hash_words(text) for text in message]])])
    assert (overlap.whole, overlap.texts, overlap.grams) == expected
    assert overlap.found == int(any(expected))
    assert MIN_WORDS == 8


def test_the_wording_of_a_task_is_no_overlap() -> None:
    wording = "Answer the following question with one letter and nothing but one letter please thank you"
    rows = [{"prompt": f"{wording} {number}"} for number in range(MAX_ROWS + 1)]
    evaluation = EvaluationTexts([rows_of(rows, "many")])
    assert not evaluation.matches([[hash_words(wording)]]).first
    assert EvaluationTexts([rows_of(rows[:-1], "few")]).matches([[hash_words(wording)]]).first


def test_rows_are_counted_file_by_file_and_no_files_are_fine() -> None:
    long = "the first word of nine that make a text"
    evaluation = EvaluationTexts(
        [rows_of([{"a": "b"}] * 3, "one"), rows_of([{"a": "b"}, {"a": long}], "two")]
    )
    matches = evaluation.matches([[hash_words(long)]])
    assert evaluation.places.where(matches.first[0].row) == "two, row 1"
    assert [each.found for each in evaluation.overlaps([matches])] == [0, 1]
    assert EvaluationTexts([]).overlaps([EvaluationTexts([]).matches([[hash_words(long)]])]) == []
