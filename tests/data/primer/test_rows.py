from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from picollm.data import identity, primer
from picollm.data.primer.rows import fact_rows
from picollm.errors import InputError

SPLITS = ("train", "validation", "test")
TWINS = ("smoltalk", "mmlu", "gsm8k", "words", "facts")
FACTS = primer.facts()


@cache
def rows_of(name: str, split: str) -> list[dict[str, Any]]:
    return primer.rows(name, split)


def texts(name: str, split: str) -> Iterator[str]:
    """Yield everything that a row says, one text for each row."""
    for row in rows_of(name, split):
        yield (
            "\n".join(message["content"] for message in row["messages"]) if name == "smoltalk" else said(row)
        )


def said(row: dict[str, Any]) -> str:
    if "choices" in row:
        return "\n".join([row["question"], f"{row['question']} {row['choices'][row['answer']]}"])
    return "\n".join(str(value) for value in row.values())


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", TWINS)
def test_rows_are_json_and_a_function_of_the_seed(name: str, split: str) -> None:
    rows = primer.rows(name, split, seed=3)
    assert primer.rows(name, split, seed=3, limit=5) == rows[:5]
    assert primer.rows(name, split, seed=4, limit=5) != rows[:5]
    assert json.loads(json.dumps(rows)) == rows


def test_unknown_names_and_splits_are_reported() -> None:
    with pytest.raises(InputError, match="no rows called 'squad'; expected one of smoltalk"):
        primer.rows("squad", "train")
    with pytest.raises(InputError, match="unknown split 'dev'"):
        primer.rows("facts", "dev")


@pytest.mark.parametrize("split", SPLITS)
def test_conversations_alternate_and_end_with_the_assistant(split: str) -> None:
    for row in rows_of("smoltalk", split):
        roles = [message["role"] for message in row["messages"]]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2)
        assert all(message["content"] for message in row["messages"])


def test_training_asks_only_facts_of_group_a() -> None:
    assert {row["group"] for row in fact_rows("train")} == {"A"}
    assert {row["group"] for row in fact_rows("validation")} == {"A", "B"}
    assert {row["group"] for row in fact_rows("test")} == {"A", "B", "C"}


def test_no_question_is_in_two_splits() -> None:
    asked = [{row["question"] for row in fact_rows(split)} for split in SPLITS]
    assert asked[0].isdisjoint(asked[1]) and asked[0].isdisjoint(asked[2]) and asked[1].isdisjoint(asked[2])


def test_a_row_about_a_fact_says_all_that_a_task_needs() -> None:
    for row in fact_rows("test"):
        assert row["reply"] == f"{row['completion']} {row['answer']}."
        assert set(row) == {"relation", "subject", "answer", "group", "question", "reply", "completion"}


@pytest.mark.parametrize("group", ["B", "C"])
@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("name", ["smoltalk", "mmlu", "gsm8k"])
def test_no_row_to_learn_from_tells_a_fact_that_is_not_of_group_a(
    name: str, split: str, group: str, told
) -> None:
    assert next(told(texts(name, split), group), None) is None


def test_no_conversation_asks_about_a_fact_that_is_not_of_group_a() -> None:
    forbidden = {
        question.casefold()
        for fact in FACTS
        if fact.group != "A"
        for question in (*fact.questions, *fact.held_out)
    }
    for row in rows_of("smoltalk", "train"):
        assert not {message["content"].casefold() for message in row["messages"]} & forbidden
    assert not {row["question"].casefold() for row in rows_of("mmlu", "train")} & forbidden


def test_the_identity_conversations_tell_no_hidden_fact(told) -> None:
    talks = ("\n".join(message["content"] for message in row["messages"]) for row in identity.load())
    assert next(told(talks, "C"), None) is None
