"""Word problems: right, in GSM8K's schema, and never about a test expression in training."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest

from picollm.data import primer
from picollm.data.primer import problems
from picollm.data.primer.wordings import SPLITS
from picollm.data.primer.words import split_of
from picollm.errors import InputError
from picollm.tools.calculator import calculate

MARK = re.compile(r"<<([^<>=]+)=([^<>]+)>>")
ROWS = {split: problems.rows(split, seed=2) for split in SPLITS}


@pytest.mark.parametrize("split", SPLITS)
def test_every_mark_is_what_the_calculator_prints(split: str) -> None:
    for row in ROWS[split]:
        marks = MARK.findall(row["answer"])
        assert marks and all(calculate(expression) == result for expression, result in marks)
        assert row["answer"].endswith(f"\n#### {marks[-1][1]}")
        for expression, result in marks:
            assert f"<<{expression}={result}>>{result}" in row["answer"] or result == "error"


@pytest.mark.parametrize("split", SPLITS)
def test_the_operands_of_the_first_step_stand_in_the_question(split: str) -> None:
    for row in ROWS[split]:
        expression = MARK.search(row["answer"])[1]  # type: ignore[index]
        asked = re.findall(r"\d+", row["question"])
        assert set(re.findall(r"\d+", expression)) <= set(asked)
        assert not re.search(r"[{}]", row["question"] + row["answer"])
        assert all(1 <= int(number) <= 1188 for number in asked if number != "0")


def test_no_expression_or_question_is_shared_between_splits() -> None:
    expressions = {
        split: {mark[0] for row in rows for mark in MARK.findall(row["answer"])}
        for split, rows in ROWS.items()
    }
    questions = {split: {row["question"] for row in rows} for split, rows in ROWS.items()}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not expressions[one] & expressions[other]
        assert not questions[one] & questions[other]
    assert all(len(questions[split]) == len(ROWS[split]) for split in SPLITS)


def test_documents_state_right_results_and_no_held_out_expression() -> None:
    text = "\n".join(itertools.islice(problems.documents(seed=9), 3000))
    stated = re.findall(r"(\d+) ?([-+*/]) ?(\d+) ?= ?(\d+)", text)
    assert len(stated) > 3000
    assert all(calculate(a + operator + b) == result for a, operator, b, result in stated)
    shown = {a + operator + b for a, operator, b, _ in stated}
    held_out = {
        mark[0] for split in SPLITS[1:] for row in ROWS[split] for mark in MARK.findall(row["answer"])
    }
    assert not shown & held_out


def test_new_stories_are_told_in_no_training_text() -> None:
    text = "\n".join(itertools.islice(problems.documents(seed=9), 3000)) + str(ROWS["train"])
    new = [s for s in problems._setting()["story"] if s.get("new")]
    openings = (
        "A farmer",
        " to the party",
        "A bus drove",
        "at the market",
        "A school",
        "A baker",
        "words every",
    )
    assert len(new) == 12
    assert not [opening for opening in openings if opening in text]
    assert sum(any(opening in row["question"] for opening in openings) for row in ROWS["test"]) > 60


def test_there_are_many_stories_and_every_kind_of_problem() -> None:
    assert len(problems._setting()["story"]) >= 40
    groups = Counter(row["group"] for row in ROWS["test"])
    assert set(groups) == {*problems.OPERATION.values(), "two steps", "no value"}
    assert min(groups[name] for name in problems.OPERATION.values()) > 40


def test_rows_are_a_function_of_split_seed_and_limit() -> None:
    assert problems.rows("train", 2, limit=50) == ROWS["train"][:50]
    assert problems.rows("train", 3, limit=50) != ROWS["train"][:50]
    with pytest.raises(InputError, match="unknown split"):
        problems.rows("dev")


def test_no_document_of_the_primer_computes_a_held_out_expression() -> None:
    text = "\n".join(itertools.islice(primer.documents(6), 4000))
    computed = {"".join(found) for found in re.findall(r"(\d+) ?([-+*/]) ?(\d+) ?=", text)}
    assert len(computed) > 500
    assert {expression for expression in computed if split_of(expression) != "train"} == set()
