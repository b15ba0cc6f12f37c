"""Conversations of one's own, with or without an answer to check."""

from __future__ import annotations

from typing import Any

import pytest

from picollm.chat.conversation import Message
from picollm.data.rows import rows_of
from picollm.errors import DataError
from picollm.tasks.jsonl import Jsonl

HI = {"role": "user", "content": "Hi"}
HELLO = {"role": "assistant", "content": "Hello there."}


def task(**row: Any) -> Jsonl:
    return Jsonl("jsonl", rows_of([row], "made"), "test")


def test_the_last_message_is_the_answer_where_none_is_given() -> None:
    made = task(messages=[HI, HELLO])
    assert made.expected(0) == "Hello there."
    assert made.check(0, Message("assistant", "Hello there. ")) and not made.check(
        0, Message("assistant", "Hello")
    )


def test_an_answer_is_mentioned_and_trained_on_where_no_reply_is_given() -> None:
    made = task(messages=[HI], answer=["Hello", "there"])
    assert made[0].messages[-1] == Message("assistant", "Hello")
    assert made.prompt(0).messages == (Message("user", "Hi"),)
    assert made.check(0, Message("assistant", "there, hello!"))
    assert not made.check(0, Message("assistant", "hello!"))
    assert task(messages=[HI, HELLO], answer="there").expected(0) == "there"


def test_weights_stay() -> None:
    made = task(messages=[HI, {**HELLO, "weight": 0}, HI, HELLO])
    assert [message.weight for message in made[0].messages] == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [HI]}, "ends with the user and has no 'answer'"),
        ({"messages": [HI], "answer": 7}, "'answer' is 7; expected a text or a list"),
        ({"messages": [HI], "answer": [""]}, "expected a text or a list"),
        ({"messages": "Hi"}, "'messages' is 'Hi'; expected list"),
        ({"messages": []}, "no messages"),
        ({"messages": [HELLO]}, "the first message is from the assistant"),
    ],
)
def test_a_broken_row_is_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"made, row 0.*{message}"):
        task(**row)[0]
