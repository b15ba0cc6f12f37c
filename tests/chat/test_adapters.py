"""Every layout that people write conversations in becomes the same conversation."""

from __future__ import annotations

from typing import Any

import pytest

from picollm.chat.adapters import LAYOUTS, conversation_from_row, recognize
from picollm.chat.conversation import Conversation, Message
from picollm.errors import ConversationError

TALK = [Message("system", "S"), Message("user", "U"), Message("assistant", "A")]
MESSAGES = [message.to_dict() for message in TALK]
SAID = [("system", "S"), ("human", "U"), ("gpt", "A")]
ROWS: dict[str, Any] = {
    "messages": {"messages": MESSAGES, "source": "x"},
    "list": MESSAGES,
    "sharegpt": {"id": 1, "conversations": [{"from": who, "value": text} for who, text in SAID]},
    "conversations": {"conversations": MESSAGES},
    "alpaca": {"instruction": "U", "input": "", "output": "A", "system": "S"},
    "dolly": {"instruction": "U", "context": "", "response": "A", "category": "qa", "system": "S"},
    "prompt-completion": {"prompt": "U", "completion": "A", "system": "S"},
    "prompt-response": {"prompt": "U", "response": "A", "system": "S"},
}


def test_every_layout_is_tried() -> None:
    assert ROWS.keys() == LAYOUTS.keys()


@pytest.mark.parametrize("name", ROWS)
def test_a_layout_is_recognized_and_can_be_named(name: str) -> None:
    assert recognize(ROWS[name]) == name
    assert conversation_from_row(ROWS[name]) == conversation_from_row(ROWS[name], name) == Conversation(TALK)


def test_the_weights_of_openai_and_prompts_are_kept() -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]
    assert conversation_from_row({"messages": talk}).messages[1].weight == 0
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "weight": 0}]
    assert conversation_from_row({"conversations": turns}).messages[1].weight == 0
    prompt = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    found = conversation_from_row({"prompt": prompt, "completion": [{"role": "assistant", "content": "d"}]})
    assert [message.weight for message in found.messages] == [1, 0, 1, 1]


def test_input_and_history_of_alpaca_are_not_lost() -> None:
    row = {"instruction": "Sum", "input": "1 2", "output": "3", "history": [["a", "b"]]}
    assert [message.text for message in conversation_from_row(row).messages] == ["a", "b", "Sum\n\n1 2", "3"]


@pytest.mark.parametrize(
    ("row", "layout", "said"),
    [
        ({"text": "x"}, None, "not a conversation: fields text; expected one of: messages"),
        (7, None, "not a conversation: a int"),
        ({"messages": "x"}, None, "messages is a string; expected a list"),
        (
            {"conversations": [{"from": "cat", "value": "x"}]},
            None,
            "message 0: unknown speaker 'cat'; expected one of",
        ),
        ({"conversations": [{"from": ["cat"], "value": "x"}]}, None, "message 0: unknown speaker"),
        ({"prompt": "x", "completion": ["y"]}, None, "prompt and completion differ in kind"),
        ({"instruction": 7, "output": "x"}, None, "message 0: content is a number"),
        ({"instruction": "x", "output": "x", "history": [["a"]]}, None, "history"),
        (ROWS["alpaca"], "sharegpt", "not in the layout 'sharegpt'; expected"),
        (ROWS["alpaca"], "martian", "no layout is called 'martian'; expected one of messages"),
    ],
)
def test_other_rows_are_refused_by_name(row: Any, layout: str | None, said: str) -> None:
    with pytest.raises(ConversationError, match=said):
        conversation_from_row(row, layout)
