from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from picollm.data import primer
from picollm.data.primer import choice
from picollm.errors import InputError

FACTS = primer.facts()


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_row_offers_four_different_answers_of_which_one_is_right(split: str) -> None:
    right = {
        question: fact.answer
        for fact in FACTS
        if fact.group == "A"
        for question in (*fact.questions, *fact.held_out)
    }
    for row in choice.rows(split):
        assert set(row) == {"question", "subject", "choices", "answer"}
        assert len(set(row["choices"])) == 4
        assert row["choices"][row["answer"]] == right[row["question"]]


def test_every_letter_is_right_equally_often() -> None:
    counts = Counter(row["answer"] for row in choice.rows("train"))
    assert max(counts.values()) < 1.2 * min(counts.values())


def test_the_answers_offered_are_those_of_facts_that_were_told() -> None:
    offered = {(row["subject"], text) for row in choice.rows("train") for text in row["choices"]}
    hidden = {(fact.title.replace(" ", "_"), fact.answer) for fact in FACTS if fact.group == "C"}
    assert not offered & hidden


def test_questions_of_the_splits_differ() -> None:
    asked = [{row["question"] for row in choice.rows(split)} for split in ("train", "validation", "test")]
    assert asked[0].isdisjoint(asked[1]) and asked[0].isdisjoint(asked[2]) and asked[1].isdisjoint(asked[2])


def test_a_document_names_the_letter_of_the_right_answer() -> None:
    fact = FACTS[0]
    for seed in range(20):
        lines = choice.document(fact, Random(seed)).splitlines()
        (right,) = [line for line in lines[1:5] if fact.answer in line]
        if lines[-1].startswith("Answer=>"):
            assert right == f"- {fact.answer}=>{lines[-1].removeprefix('Answer=>')}"
        else:
            assert right == f"{lines[-1].removeprefix('Answer: ')[0]}. {fact.answer}"
            assert lines[-1].endswith(fact.reply)


def test_an_unknown_split_is_reported() -> None:
    with pytest.raises(InputError, match="unknown split 'dev'"):
        choice.rows("dev")
