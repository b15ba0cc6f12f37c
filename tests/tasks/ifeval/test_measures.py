"""Counting words, sentences and capitals as a reader (and the published checkers) would."""

from __future__ import annotations

import pytest

from picollm.tasks.ifeval.measures import num_words, sentences, words_in_capitals


@pytest.mark.parametrize(
    ("text", "num"),
    [("", 0), ("one", 1), ("don't", 2), ("a-b c_d 1.5", 5), ("  ...  ", 0), ("naïve über 日本語", 3)],
)
def test_words_are_runs_of_letters_digits_and_underscores(text: str, num: int) -> None:
    assert num_words(text) == num


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("No end", ["No end"]),
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Really?! Yes... no. OK", ["Really?!", "Yes... no.", "OK"]),
        ("It ended... The next began.", ["It ended...", "The next began."]),
        ('"Go." She left. (He stayed.) End', ['"Go."', "She left.", "(He stayed.)", "End"]),
        ("Mr. Smith met Dr. Jones at 5 p.m. in the U.S. embassy.", None),
        ("He came at 5 p.m. The door was open.", ["He came at 5 p.m.", "The door was open."]),
        ("J. R. R. Tolkien wrote it.", None),
        ("So did I. You know.", ["So did I.", "You know."]),
        ("Pi is 3.14 and e.g. 2.72 is e, etc. and so on.", None),
        ("Visit example.com. then go", ["Visit example.com.", "then go"]),
        ("1. First\n2. Second", ["1.", "First\n2.", "Second"]),
        ("* a list\n* without ends", None),
    ],
)
def test_sentences(text: str, expected: list[str] | None) -> None:
    assert sentences(text) == ([text] if expected is None else expected)


def test_capitals() -> None:
    assert words_in_capitals("Plain text, Title Case, 123 and nothing.") == []
    assert words_in_capitals("I AM here: A1, COVID-19; (U.S.) “OK” **BOLD**") == [
        *("I", "AM", "A1", "COVID-19", "U.S", "OK", "**BOLD**")
    ]
    assert words_in_capitals("I'm, I'LL, DON'T, CANNOT, GONNA, LET’S") == [
        *("I", "I", "'LL", "DO", "N'T", "CAN", "NOT", "GON", "NA", "LET", "S")
    ]


@pytest.mark.parametrize("piece", ["!", ". ", ".", "a.", "(", "'s", "A ", "*", "[", "\n", "<<", "\n "])
def test_hostile_text_is_read_in_one_go(piece: str) -> None:
    text = piece * 20_000
    assert len(sentences(text)) + num_words(text) + len(words_in_capitals(text)) >= 0
