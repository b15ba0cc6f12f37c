"""GSM8K: marks become calculator calls whose output is what the tool prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from picollm.chat.conversation import Message
from picollm.data.rows import rows_of
from picollm.errors import DataError
from picollm.tasks.gsm8k import Gsm8k, final_number, worked
from picollm.tasks.registry import load_task
from picollm.tools.calculator import calculate

ANSWER = "She has 48/2 = <<48/2=24.0>>24 left.\nThat is <<24+.5=24.50>>24.5 in all.\n#### 1,024.5"


def task(*answers: object) -> Gsm8k:
    return Gsm8k(
        "gsm8k", rows_of([{"question": "How many?", "answer": answer} for answer in answers], "made"), "test"
    )


def test_marks_become_calls_with_the_output_of_the_tool() -> None:
    assert worked(ANSWER) == [
        {"type": "text", "text": "She has 48/2 = "},
        {"type": "python", "text": "48/2"},
        {"type": "python_output", "text": "24"},
        {"type": "text", "text": "24 left.\nThat is "},
        {"type": "python", "text": "24+.5"},
        {"type": "python_output", "text": "24.5"},
        {"type": "text", "text": "24.5 in all.\n#### 1,024.5"},
    ]


def test_a_mark_the_calculator_cannot_compute_stays_out_unless_it_says_so() -> None:
    assert worked("So <<x+1=3>>3.\n#### 3") == [{"type": "text", "text": "So 3.\n#### 3"}]
    assert worked("<<7/0=error>>No.\n#### error")[:2] == [
        {"type": "python", "text": "7/0"},
        {"type": "python_output", "text": "error"},
    ]


@pytest.mark.parametrize(
    "reply", ["#### 1024.5", "#### 1,024.50", "Say 3.\n#### 7\n#### 1024.5", "#### 1024.5."]
)
def test_right_replies(reply: str) -> None:
    assert task(ANSWER).check(0, Message("assistant", reply))


@pytest.mark.parametrize(
    "reply", ["1024.5", "#### 1024", "#### 1024.5\n#### 3", "####", "#### error", "#### ,"]
)
def test_wrong_replies(reply: str) -> None:
    assert not task(ANSWER).check(0, Message("assistant", reply))


def test_what_the_tool_printed_is_not_what_the_reply_says() -> None:
    parts = [{"type": "python", "text": "1"}, {"type": "python_output", "text": "#### 1024.5"}]
    assert not task(ANSWER).check(0, Message("assistant", [*parts, {"type": "text", "text": "#### 2"}]))


def test_no_value_is_an_answer_too() -> None:
    made = task("<<7/0=error>>No.\n#### error")
    assert made.check(0, made[0].messages[-1])
    assert not made.check(0, Message("assistant", "#### 0"))


def test_completions_end_where_the_next_question_starts() -> None:
    made = task(ANSWER)
    assert made.completion(0) == "Question: How many?\nAnswer:"
    assert made.check_completion(0, " She has 1,024.5 pens.\n\nQuestion: And 3?\nAnswer: 4")
    assert made.check_completion(0, " It is 2.\n#### 1024.5")
    assert not made.check_completion(0, " It is 1024.5 or 7.")
    assert not made.check_completion(0, " none")


def test_an_answer_without_a_number_is_named() -> None:
    made = task("no number here", 7)
    with pytest.raises(DataError, match="made, row 0: 'answer' has no final '#### number'"):
        made.expected(0)
    with pytest.raises(DataError, match="made, row 1: 'answer' is 7; expected str"):
        made[1]


def test_every_published_answer_keeps_its_text_and_is_right(shared_data: Path) -> None:
    made = load_task("gsm8k", "test", data_root=shared_data)
    for index in range(len(made)):
        answer = made.rows[index]["answer"]
        reply = made[index].messages[-1]
        assert reply.text == re.sub(r"<<[^<>]*>>", "", answer)
        calls = [part.text for part in reply.parts if part.type == "python"]
        outputs = [part.text for part in reply.parts if part.type == "python_output"]
        assert len(calls) == answer.count("<<") and outputs == [calculate(call) for call in calls]
        assert made.check(index, reply) and made.expected(index) == final_number(answer)
